"""The causes that a gap can have: one table, in the order in which a reconciliation takes them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["exact", "measured", "replayed"]
"""How an amount is known: from the entries, by evaluating weights, or by training again."""


@dataclass(frozen=True)
class Slug:
    """One row of the table.

    Args:
        name: What JSON and Python call the cause.
        kind: How its amount is known.
        meaning: What it is, in one line.
    """

    name: str
    kind: Kind
    meaning: str


# A table reads by rows.
# fmt: off
_ALL = (
    Slug("convention", "exact", "the same entries under another statistic, epoch or reset"),
    Slug("state_not_reset", "exact", "a running mean or a list goes on over earlier steps"),
    Slug("weighting", "exact", "another weight for each step: rows, elements, sample weights, one"),
    Slug("unseen_rows", "exact", "rows that one side leaves out of its number, or never trains on"),
    Slug("hidden_steps", "exact", "steps that a log never shows: executions of several, a stride"),
    Slug("penalty", "exact", "regularizers and add_loss, in the one number and not in the other"),
    Slug("loss_weights", "exact", "other weights of the losses of several outputs"),
    Slug("sample_weight", "exact", "a loss scaled by its sample weights, or not"),
    Slug("class_weight", "exact", "a loss scaled by its class weights, or not"),
    Slug("mask", "exact", "masked targets counted as zeros, or left out"),
    Slug("reduction", "exact", "a batch's loss is a sum on one side and a mean on the other"),
    Slug("replica_scaling", "exact", "a loss divided by, or counted once for, its replicas"),
    Slug("accumulation_scaling", "exact", "a loss divided by the steps that one update gathers"),
    Slug("nonfinite", "exact", "NaN or infinity, averaged in or dropped"),
    Slug("double_count", "exact", "steps counted twice, as after a resume"),
    Slug("float32_accumulation", "exact", "rounding of sums that are kept in float32"),
    Slug("inference_mode", "measured", "dropout and batch normalization train or are switched off"),
    Slug("moving_weights", "measured", "losses of weights on their way, against the final weights"),
    Slug("initial_weights", "replayed", "training began from other weights"),
    Slug("optimizer_state", "replayed", "an optimizer that began anew, where the other's went on"),
    Slug("data", "replayed", "training saw other rows"),
    Slug("order", "replayed", "the same rows in another order"),
    Slug("randomness", "replayed", "dropout and other layers that draw random numbers"),
    Slug("hyperparameters", "replayed", "another optimizer, learning rate or batch size"),
    Slug("precision", "replayed", "another dtype of computing, or rounding"),
    Slug("compilation", "replayed", "compiled otherwise, or not at all"),
    Slug("backend", "replayed", "another backend, or another device"),
    Slug("keras_version", "replayed", "another version of Keras or of its backend"),
    Slug("driver", "replayed", "fit, train_on_batch or a loop of another kind turned the crank"),
)
# fmt: on

SLUGS: Mapping[str, Slug] = {slug.name: slug for slug in _ALL}
"""The causes by name, in order."""
