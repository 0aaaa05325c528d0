"""What differences between two records are causes of, by the names of what is recorded."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from lossledger.reconciliation.result import Difference
from lossledger.restored import draws

# The first that matches.
_CAUSES: Sequence[tuple[str, str]] = (
    (r"arguments\.batch_size", "hyperparameters"),
    (r"arguments\.shuffle", "order"),
    (r"replicas", "replica_scaling"),
    (r"arguments\.(steps_per_epoch|validation_split)", "unseen_rows"),
    (r"arguments\.sample_weight", "sample_weight"),
    (r"arguments\.class_weight", "class_weight"),
    (r"loss_weights", "loss_weights"),
    (r"(loss\.)?reduction", "reduction"),
    (r"loss\.ignore_class", "mask"),
    (r"optimizer|gradient_accumulation_steps|loss\b", "hyperparameters"),
    (r"dtype_policy|loss_scaling", "precision"),
    (r"jit_compile|run_eagerly|environment\.(XLA|TF_)", "compilation"),
    (r"versions\.keras", "keras_version"),
    (r"versions\.backend|device|environment\.(KERAS_BACKEND|JAX)", "backend"),
)
_NOISY = ("rate", "stddev", "dropout", "recurrent_dropout")
_MASKS = ("mask_value", "mask_zero")
_REGULARIZER = "_regularizer"
"""What the name of each of a layer's regularizers ends in."""


def factors(
    differences: Iterable[Difference], other_functions: bool, other_outputs: bool
) -> dict[str, list[str]]:
    """The causes that differences could be, each with the names of its differences.

    Args:
        differences: What two records say differently.
        other_functions: Whether the losses are different functions.
        other_outputs: Whether an output has a loss on one side only.
    """
    found: dict[str, list[str]] = {}
    for each in differences:
        for cause in _causes(each, other_functions, other_outputs):
            found.setdefault(cause, []).append(each.name)
    return found


def _causes(difference: Difference, other_functions: bool, other_outputs: bool) -> Iterator[str]:
    name = difference.name
    if name == "layers":
        yield from _of_layers(difference)
        return
    if _of_function(difference) and other_outputs:
        yield "loss_weights"
        return
    data = _of_other_data(difference) if name in ("arguments.x", "arguments.y") else ""
    if data:
        yield data
    cause = next((slug for rule, slug in _CAUSES if re.match(rule, name)), None)
    of_function = other_functions and _of_function(difference)
    if cause is not None and (of_function or not _usual(difference)):
        yield cause


def _of_other_data(difference: Difference) -> str:
    """What arrays are a cause of that differ in more than how many rows they have; else ""."""
    texts = [str(each) for each in (difference.a, difference.b) if "[" in str(each)]
    if len({re.sub(r"\[\d+", "[", text) for text in texts}) < 2:
        return ""
    rounded = len({re.sub(r"^float\d+", "", text) for text in texts}) < 2
    return "precision" if rounded else "data"


def _usual(difference: Difference) -> bool:
    """Whether two ways of writing one thing differ: a default, said or unsaid."""
    unsaid = {
        "arguments.batch_size": (None, 32),
        "arguments.shuffle": (None, True),
        "arguments.validation_split": (None, 0, 0.0),
        "reduction": (None, "sum_over_batch_size"),
        "loss.reduction": (None, "sum_over_batch_size"),
        "loss.ignore_class": (None, "None"),
    }.get(difference.name)
    if difference.name in ("loss", "loss.class", "loss.from_logits", "loss.axis", "loss.fn"):
        return True  # of losses that mean the same: see `comparable`
    if difference.name.startswith("arguments.sample_weight"):
        return None not in (difference.a, difference.b)  # values, not shapes, tell: see entries
    if re.match(r"loss\.", difference.name) and unsaid is None:
        return True
    return unsaid is not None and difference.a in unsaid and difference.b in unsaid


def _of_function(difference: Difference) -> bool:
    """Whether a difference is in what makes a loss another function."""
    name = difference.name
    return re.match(r"loss(\.|$)", name) is not None and name not in (
        "loss.reduction",
        "loss.ignore_class",
    )


def _of_layers(difference: Difference) -> set[str]:
    """What layers that the one model has and the other hasn't are a cause of."""
    found: set[str] = set()
    plain = [_bare(layer) for layer in difference.a], [_bare(layer) for layer in difference.b]
    for layer in (*difference.a, *difference.b):
        if any(name.endswith(_REGULARIZER) for name in layer):
            found.add("penalty")
        if any(layer.get(name) for name in _NOISY) or draws(layer):
            found.add("randomness")
        elif masks(layer):
            found.add("mask")
        elif layer.get("dtype"):
            found.add("precision")
        elif plain[0].count(_bare(layer)) != plain[1].count(_bare(layer)):
            found.add("hyperparameters")
    return found


def masks(layer: Mapping[str, Any]) -> bool:
    """Whether a layer makes a mask; 0, which Masking takes by itself, isn't on record."""
    return any(layer.get(name) for name in _MASKS) or layer.get("class") == "Masking"


def _bare(layer: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """A layer without what is a cause by another name."""
    named = {*_NOISY, *_MASKS, "training", "dtype"}
    own = (
        (key, repr(value))
        for key, value in layer.items()
        if key not in named and not key.endswith(_REGULARIZER)
    )
    return tuple(sorted(own))
