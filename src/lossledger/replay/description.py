"""A plain description of a training and of the number that is read off it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from lossledger.errors import LossLedgerError
from lossledger.reconciliation.slugs import Kind
from lossledger.request import Request
from lossledger.statistics import STATISTICS, Statistic, named

FOLLOWS = "follows seed"
"""`initial_weights` where the description names none: drawn by its seed."""


@dataclass(frozen=True)
class Factor:
    """One thing that a description says.

    Args:
        name: Its key.
        cause: The cause that swapping it is.
        kind: `replayed` where it takes another training, `exact` where the entries are read anew.
        meaning: What it says.
        default: Without the key; for the driver `fit`, and for `train_on_batch` where they differ.
    """

    name: str
    cause: str
    kind: Kind
    meaning: str
    default: tuple[Any, ...] = (None,)


# In the order in which they are swapped. A table reads by rows.
# fmt: off
FACTORS: tuple[Factor, ...] = (
    Factor("initial_weights", "initial_weights", "replayed",
           "a seed, or arrays as model.get_weights() gives them", (FOLLOWS,)),
    Factor("seed", "randomness", "replayed",
           "of the order of rows and of random layers; of the first weights, too, if "
           "initial_weights isn't given", (0,)),
    Factor("dtype", "precision", "replayed",
           'a dtype policy, such as "mixed_float16"'),
    Factor("jit_compile", "compilation", "replayed",
           "True or False, as compile takes it"),
    Factor("optimizer", "hyperparameters", "replayed",
           "a name, a configuration, an optimizer, or a function that makes one"),
    Factor("learning_rate", "hyperparameters", "replayed",
           "a number, set in whichever optimizer"),
    Factor("dropout", "randomness", "replayed",
           "whether layers that drop or add noise do", (True,)),
    Factor("batch_size", "hyperparameters", "replayed",
           "rows of a batch", (32,)),
    Factor("shuffle", "order", "replayed",
           "whether each epoch takes the rows in another order", (True, False)),
    Factor("driver", "driver", "replayed",
           "fit or train_on_batch", ("fit",)),
    Factor("epochs", "convention", "exact",
           "passes over the data; the number is the last one's", (1,)),
    Factor("statistic", "convention", "exact",
           "a statistic, with parameters: ema:beta=0.9", ("epoch_mean", "batch_mean")),
    Factor("remainder", "unseen_rows", "exact",
           "keep; or drop: rows at the end that fill no batch are neither trained nor averaged",
           ("keep",)),
    Factor("reset_metrics", "state_not_reset", "exact",
           "False: what is averaged is the mean since the first step, as train_on_batch returned "
           "it before Keras 3.15", (True,)),
)
# fmt: on
KEYS = tuple(factor.name for factor in FACTORS)

UNTRAINED = "untrained_remainder"
"""`remainder` is two swaps: out of the mean, which the entries tell, and out of the training."""
PLAYERS: Mapping[str, Factor] = {factor.name: factor for factor in FACTORS} | {
    UNTRAINED: Factor(UNTRAINED, "unseen_rows", "replayed", "the remainder is never trained on")
}
"""The swaps by name."""


@dataclass(frozen=True)
class Reading:
    """How a number is read off the entries of a training.

    Args:
        epochs: The epoch that is meant, from 1.
        statistic: The statistic.
        parameters: Its parameters.
        reset: Whether losses are averaged as they are; else their mean since the first step.
        remainder: Whether the short last batches count.
    """

    epochs: int
    statistic: Statistic
    parameters: Mapping[str, Any]
    reset: bool
    remainder: bool


def described(which: Literal["a", "b"], said: Mapping[str, Any]) -> dict[str, Any]:
    """A description with all its keys, checked.

    Args:
        which: Which one it is, for messages.
        said: As `lossledger.compare` was given it.

    Raises:
        LossLedgerError: An unknown key, or a value that it can't have (slug `description`).
    """
    unknown = [key for key in said if key not in KEYS]
    if unknown:
        raise _wrong(which, f"the key {unknown[0]!r}", f"Known keys: {', '.join(KEYS)}.")
    place = 1 if said.get("driver") == "train_on_batch" else 0
    full = {factor.name: factor.default[min(place, len(factor.default) - 1)] for factor in FACTORS}
    full |= said
    if full["initial_weights"] is None:
        full["initial_weights"] = FOLLOWS
    for key, (right, advice) in _CHECKS.items():
        if not right(full[key]):
            raise _wrong(which, f"{key}={full[key]!r}"[:200], advice)
    reading(full)  # an unknown statistic says so itself
    return full


def reading(state: Mapping[str, Any]) -> Reading:
    """How a described number is read.

    Raises:
        LossLedgerError: No such statistic, or none over entries.
    """
    asked = Request.parse(state["statistic"])
    return Reading(
        state["epochs"],
        named(asked.name, ()),
        asked.parameters,
        state["reset_metrics"],
        state["remainder"] == "keep",
    )


def equal(a: Any, b: Any) -> bool:
    """Whether two values of a description are the same; arrays by their numbers."""
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
    return type(a) is type(b) and bool(a == b) if a is not b else True


def is_seed(value: Any) -> bool:
    """Whether a value is a seed: a whole number that no one means by its size."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _whole(least: int) -> Callable[[Any], bool]:
    return lambda value: is_seed(value) and int(value) >= least


def _one_of(*values: Any) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str | bool | None) and value in values


def _weights(value: Any) -> bool:
    return value == FOLLOWS if isinstance(value, str) else _seed(value) or isinstance(value, list)


def _seed(value: Any) -> bool:
    return is_seed(value) and 0 <= int(value) < 2**32


def _rate(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and value >= 0)


_BOOL = (lambda value: isinstance(value, bool), "Pass True or False.")
_CHECKS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "driver": (_one_of("fit", "train_on_batch"), 'Pass "fit" or "train_on_batch".'),
    "batch_size": (_whole(1), "Pass a whole number from 1 on."),
    "epochs": (_whole(1), "Pass a whole number from 1 on."),
    "shuffle": _BOOL,
    "dropout": _BOOL,
    "reset_metrics": _BOOL,
    "remainder": (_one_of("keep", "drop"), 'Pass "keep" or "drop".'),
    "seed": (_seed, "Pass a whole number from 0 to 2**32 - 1."),
    "initial_weights": (_weights, "Pass a seed, or a list of arrays."),
    "learning_rate": (_rate, "Pass a number."),
    "jit_compile": (_one_of(None, True, False), "Pass True or False."),
    "statistic": (
        lambda value: isinstance(value, str) and value.partition(":")[0] in STATISTICS,
        f"Pass one of {', '.join(STATISTICS)}.",
    ),
}


def _wrong(which: str, received: str, advice: str) -> LossLedgerError:
    return LossLedgerError(
        f"The description {which} can't be replayed. Received: {received}. {advice}",
        slug="description",
        exit_code=2,
    )
