"""A number as a fold over entries: what a chain of counterfactuals changes one thing of."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np

from lossledger.errors import LossLedgerError
from lossledger.statistics import STATISTICS, Mean
from lossledger.vectors import Floats, Mask

Shape: TypeAlias = Literal["mean", "cumulative", "last", "other"]

_MEANS = {"epoch_mean": "recorded", "running_mean": "recorded", "batch_mean": "one"}


@dataclass(frozen=True, eq=False)
class Ledger:
    """The entries of one epoch, and where a statistic looks further back, those before it.

    Args:
        columns: Equally long arrays in the order of training. `loss`, `weight`, `rows`,
            `penalty` and named losses as float64, `epoch` int64, `batch_id` uint64; `elements`
            and `sample_weight`, float64, only where the run has them; `superseded`, only where
            steps that were trained again count, too.
        start: Entries before the epoch.
        kind: What the column `weight` is.
        scale: What a step's loss is of its data term, where that is one factor in every step;
            there is no `penalty` then. NaN where it may be scaled, by nobody knows how much.
    """

    columns: Mapping[str, np.ndarray]
    start: int = 0
    kind: str = "rows"
    scale: float = 1.0

    def __len__(self) -> int:
        return len(self.columns["loss"]) - self.start

    def __getitem__(self, name: str) -> np.ndarray:
        """A column of the epoch alone."""
        return self.columns[name][self.start :]

    def has(self, name: str) -> bool:
        """Whether every entry of the epoch has the column; rows that nobody said are 0."""
        known = name in self.columns and bool(np.isfinite(self[name]).all()) and len(self) > 0
        return known and (name != "rows" or bool(self[name].any()))

    @property
    def again(self) -> Mask:
        """Which entries of the epoch were trained again."""
        if "superseded" in self.columns:
            return self["superseded"].astype(bool)
        return np.zeros(len(self), bool)

    @property
    def penalties(self) -> Floats:
        """The penalty in each loss, as long as the columns are; 0 where it isn't known."""
        return np.nan_to_num(self.columns["penalty"], nan=0.0)

    @property
    def data(self) -> Floats:
        """The epoch's data terms: losses without their penalties."""
        return self["loss"] - self.penalties[self.start :]

    def with_loss(self, loss: Floats, **columns: Floats) -> "Ledger":
        """The same entries with another loss each; as long as the columns are."""
        return replace(self, columns={**self.columns, "loss": loss, **columns})

    def keep(self, mask: Mask) -> "Ledger":
        """Only some entries of the epoch."""
        whole = np.concatenate((np.ones(self.start, bool), mask))
        return replace(self, columns={name: c[whole] for name, c in self.columns.items()})

    def weights(self, kind: str) -> Floats:
        """What a mean of a weight kind weights each entry by."""
        if kind in ("recorded", self.kind):
            return self.columns["weight"]
        if kind == "one":
            return np.ones(len(self.columns["loss"]))
        if kind not in self.columns:
            raise LossLedgerError(
                f"The run's entries have no column to weight by. Received: weight={kind}. "
                "elements is recorded where there is a mask, sample_weight where there are "
                "sample or class weights.",
                slug="no-weight",
                exit_code=2,
            )
        return self.columns[kind]


@dataclass(frozen=True)
class Form:
    """Which fold: everything about a number that isn't in the entries.

    Args:
        statistic: A name in `lossledger.statistics.STATISTICS`.
        parameters: Its parameters.
        weight: What a mean weights by: a weight kind, or `recorded`.
        loss: As in `Spec`.
        every: As in `Spec`.
        finite: As in `Spec`.
        said: What the user called the statistic, where that is another name.
    """

    statistic: str
    parameters: tuple[tuple[str, Any], ...] = ()
    weight: str = "recorded"
    loss: str = "loss"
    every: int = 1
    finite: bool = False
    said: str = field(default="", compare=False)

    @classmethod
    def named(cls, statistic: str, **more: Any) -> "Form":
        """The form of a statistic with the weight that it has by itself."""
        weight = more.pop("weight", None) or _MEANS.get(statistic, "recorded")
        name = "epoch_mean" if statistic in _MEANS else statistic
        return cls(name, weight=weight, said=statistic if name != statistic else "", **more)

    @property
    def shape(self) -> Shape:
        """What kind of fold it is: means of an epoch differ by their weights alone."""
        if self.statistic == "epoch_mean":
            return "mean"
        if self.statistic == "cumulative_mean":
            return "cumulative"
        return "last" if self.statistic in ("raw", "last") else "other"

    @property
    def looks_back(self) -> bool:
        """Whether it takes entries from before the epoch."""
        return STATISTICS[self.statistic].looks_back(dict(self.parameters))

    @property
    def text(self) -> str:
        """The form in the words of the command line."""
        name = "batch_mean" if self.shape == "mean" and self.weight == "one" else self.statistic
        name = self.said if self.said and self.weight == _MEANS.get(self.said) else name
        own = ",".join(f"{key}={value}" for key, value in self.parameters)
        return f"{name}:{own}" if own else name


@dataclass(frozen=True, eq=False)
class Fold:
    """A form over a ledger, and the number that it gives."""

    ledger: Ledger
    form: Form

    @cached_property
    def value(self) -> float:
        """The number, float64; NaN of no entries."""
        ledger, form = self.ledger, self.form
        loss, weight = self.losses, ledger.weights(form.weight)
        labels = ledger.columns["epoch"]
        kept = np.ones(len(loss), bool)
        if form.every > 1:
            kept = shown(len(loss), ledger.start, form.every)
        if form.finite:
            kept &= np.isfinite(loss)
        loss, weight, labels = loss[kept], weight[kept], labels[kept]
        if form.shape in ("mean", "cumulative"):
            begin = 0 if form.shape == "cumulative" else int(kept[: ledger.start].sum())
            return Mean.of(loss[begin:], weight[begin:]).result
        if not len(loss):
            return float("nan")
        # Labels count on where an epoch's entries were left out, so the last is still its own.
        series = STATISTICS[form.statistic](loss, weight, labels, **dict(form.parameters))
        return float(series[-1])

    @cached_property
    def losses(self) -> Floats:
        """The losses that are folded: float64, as long as the ledger's columns."""
        columns, name = self.ledger.columns, self.form.loss
        if name == "loss":
            return columns["loss"]
        if name == "data":
            return columns["loss"] - columns["penalty"]
        return np.sum([columns[part] for part in name.split("+")], axis=0)

    @property
    def weighs_by(self) -> str:
        """The weight kind of its mean."""
        return self.ledger.kind if self.form.weight == "recorded" else self.form.weight

    @property
    def without_penalty(self) -> "Fold":
        """The same fold of the data terms."""
        penalties = self.ledger.penalties
        loss = self.ledger.columns["loss"] - penalties
        return self.of_losses(loss, penalty=np.zeros(len(penalties)))

    @property
    def whole(self) -> "Fold":
        """The same fold, whose entries before the epoch count as its own."""
        return Fold(replace(self.ledger, start=0), self.form)

    def over(self, ledger: Ledger) -> "Fold":
        """The same form over other entries."""
        return Fold(ledger, self.form)

    def by(self, **changes: Any) -> "Fold":
        """Another form over the same entries."""
        said = "" if "statistic" in changes else self.form.said
        return Fold(self.ledger, replace(self.form, said=said, **changes))

    def of_losses(self, loss: Floats, **columns: Floats) -> "Fold":
        """The same fold of other losses, which are what it folds from here on."""
        return Fold(self.ledger.with_loss(loss, **columns), replace(self.form, loss="loss"))


def shown(count: int, start: int, every: int) -> Mask:
    """Which entries a log with a stride shows: the last of every so many, and the epoch's last."""
    place = np.arange(count) - start
    kept = (place % every == every - 1) | (place == count - start - 1)
    return kept | (place < 0)
