"""What a model was compiled with, in one form, however it was written."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

from lossledger.call import Call

_ALIASES = {
    "mse": "meansquarederror",
    "mae": "meanabsoluteerror",
    "mape": "meanabsolutepercentageerror",
    "msle": "meansquaredlogarithmicerror",
    "bce": "binarycrossentropy",
    "kld": "kldivergence",
    "kullbackleiblerdivergence": "kldivergence",
    # The same number, of targets that are written as integers.
    "sparsecategoricalcrossentropy": "categoricalcrossentropy",
}
# Parts of a loss's configuration that don't change what its number means.
_HOW = {"class", "name", "reduction", "dtype", "from_logits", "ignore_class", "axis", "fn"}
_USUAL = {"huber": {"delta": 1.0}, "categoricalfocalcrossentropy": {"alpha": 0.25, "gamma": 2.0}}
_USUAL["binaryfocalcrossentropy"] = {"alpha": 0.25, "gamma": 2.0}


BY_WEIGHTS = "mean_with_sample_weight"
"""The reduction of which a batch's loss is a mean over the sum of its weights."""
MEANS = (None, "sum_over_batch_size", "mean", "auto")
"""Those of which it is a mean over its rows."""


def outputs_of(call: Call) -> tuple[str, ...]:
    """The names of the losses of several outputs, in their order; none of a single output."""
    return tuple(call.info.get("output_weights") or ())


def loss_weights_of(call: Call) -> list[float]:
    """The weight of each output's loss: 1 where `compile` was given none."""
    count = max(1, len(outputs_of(call)))
    given = _by_output(call, call.configuration.get("loss_weights"))
    numbers = [1.0 if each is None else float(each) for each in given]
    return numbers * count if len(numbers) == 1 else numbers


def losses_of(call: Call, outputs: Sequence[str] = ()) -> list[Any] | None:
    """What makes the number of each output's loss mean what it does; `None` if not on record.

    Args:
        call: The call.
        outputs: The names of the losses of several outputs, of which the call may lack some.

    Returns:
        A list with `None` for an output that has no loss.
    """
    given = call.configuration.get("loss")
    if given is None:
        return None
    found = [None if each is None else _meaning(each) for each in _by_output(call, given, outputs)]
    return found * max(1, len(outputs_of(call))) if len(found) == 1 else found


def same_functions(a: Call, b: Call) -> bool:
    """Whether two losses are one function, as far as is on record, of the outputs that both have.

    An output without a loss is one whose loss weighs nothing.
    """
    outputs = max(outputs_of(a), outputs_of(b), key=len)
    ours, theirs = losses_of(a, outputs), losses_of(b, outputs)
    if ours is None or theirs is None or ours == theirs:
        return True
    pairs = list(zip(ours, theirs, strict=False))
    alike = all(one == other or None in (one, other) for one, other in pairs)
    return alike and len(ours) == len(theirs) and any(one == other for one, other in pairs)


def weights_within(call: Call, names: Sequence[str]) -> dict[str, float]:
    """The weight of each loss that a call has, of some named ones of which it may have fewer."""
    losses = losses_of(call, names) or []
    given = _by_output(call, call.configuration.get("loss_weights"), names)
    if len(losses) != len(names) or len(given) not in (1, len(names)):
        return {}
    numbers = [1.0 if each is None else float(each) for each in given]
    numbers = numbers * len(names) if len(numbers) == 1 else numbers
    found = zip(names, numbers, losses, strict=True)
    return {name: number for name, number, loss in found if loss is not None}


def layers_of(call: Call) -> Sequence[Mapping[str, Any]]:
    """The layers that a call's record describes; none where it was made before it did."""
    return call.configuration.get("layers") or ()


def reduction_of(call: Call) -> str | None:
    """How a batch's losses become one; `None` if not on record, `several` if outputs differ."""
    found = _said(call, "reduction")
    own = found[0] if all(each == found[0] for each in found) else "several"
    return own or call.configuration.get("reduction")


def ignores_class(call: Call) -> bool:
    """Whether the loss, or that of an output, leaves the targets of a class out."""
    return any(each is not None for each in _said(call, "ignore_class"))


def of_outputs(call: Call) -> dict[str, Any]:
    """What losses of several outputs say of how a batch's become one, as one loss says it."""
    ignored = _said(call, "ignore_class")
    if len(ignored) < 2:
        return {}
    return {
        "reduction": reduction_of(call),
        "ignore_class": ignored if ignores_class(call) else None,
    }


def _said(call: Call, name: str) -> list[Any]:
    """What each output's loss says; of at least one."""
    losses = [each for each in _by_output(call, call.configuration.get("loss")) if each is not None]
    return [each.get(name) if isinstance(each, Mapping) else None for each in losses] or [None]


def targets_of(call: Call) -> list[Any] | None:
    """The shape of each output's targets without the rows; `None` where that isn't on record.

    (rows,) and (rows, 1) are the same targets to Keras's losses.
    """
    found: list[Any] = []
    for each in _by_output(call, call.arguments.get("y")):
        if not isinstance(each, Mapping) or "shape" not in each:
            return None
        found.append([size for size in cast("Any", each)["shape"][1:] if size != 1])
    return found


def integer_targets(call: Call) -> bool:
    """Whether a loss takes classes as integers where its twin takes one number a class."""
    return "sparse" in str(call.configuration.get("loss")).lower()


def takes_logits(call: Call) -> bool | None:
    """Whether the loss takes logits; `None` where losses are several, or the loss isn't asked."""
    given = call.configuration.get("loss")
    if isinstance(given, str):
        return False if "crossentropy" in given else None
    return given.get("from_logits") if isinstance(given, Mapping) else None


def _by_output(call: Call, value: Any, outputs: Sequence[str] = ()) -> list[Any]:
    """A value an output, whether they were given by name, by place, or as one."""
    if isinstance(value, Mapping) and not {"class", "shape"} & set(cast("Any", value)):
        table = cast("Mapping[str, Any]", value)
        names = [name.removesuffix("_loss") for name in outputs or outputs_of(call)]
        return [table[name] for name in (names if set(names) == set(table) else table)]
    return list(cast("Sequence[Any]", value)) if isinstance(value, list) else [value]


def _meaning(loss: Any) -> Any:
    """What of a loss makes its number mean what it does."""
    if isinstance(loss, str):
        name = re.sub(r"[^a-z0-9]", "", loss.lower())
        return _ALIASES.get(name, name)
    if not isinstance(loss, Mapping):
        return repr(loss)
    table = cast("Mapping[str, Any]", loss)
    more = {key: value for key, value in table.items() if key not in _HOW and value}
    name = _meaning(table.get("class", "function"))
    usual = _USUAL.get(name, {})
    shaped = any(usual.get(key) != value for key, value in more.items())
    return (name, sorted(map(repr, more.items()))) if shaped else name
