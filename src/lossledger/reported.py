"""What was shown, beside what the entries say: every reported number with its statement.

A reported number is a float32 fold by Keras, a statement a float64 fold over the same entries,
so the two differ by rounding at least. Which statistic a number is depends on Keras's version
(`lossledger.conventions`).
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lossledger import conventions
from lossledger.call import Call
from lossledger.exact import running_mean
from lossledger.statement import Block, Windows, bounds
from lossledger.statistics import STATISTICS, Mean, keras_mean

Read: TypeAlias = Callable[[Iterable[Call], Sequence[str]], Iterator[tuple[Call, Block]]]
Floats: TypeAlias = NDArray[np.float64]

_NEWEST = "3.15"  # the convention taken for a run that doesn't say its Keras
_HALF_ULP = 2.0**-24
_MEASURED = "Measured in inference mode, with weights held fixed; no training step is part of it."
_NO_COLUMN = "The entries keep losses; they have no column of this."


@dataclass(frozen=True)
class Reported:
    """A number that the user was shown or handed.

    Args:
        place: Where: `history`, `returned` (by `train_on_batch`), `validation`, `evaluate`.
        name: Under which name, such as `loss`.
        call: In which call.
        epoch: Of which epoch, as the driver counts; `None` where it belongs to none.
        value: The number; for `returned` the one that differs most from its statement.
        statistic: Which statistic of the entries it is, after the convention of its Keras;
            `None` where the entries have no such column.
        stated: That statistic, float64; `None` where no training step made the number.
        difference: `value - stated`; `None` without a statement.
        why: In a sentence, what makes the difference.
        count: How many numbers this stands for: all that a series of `train_on_batch` returned.
    """

    place: str
    name: str
    call: int
    epoch: int | None
    value: float
    statistic: str | None
    stated: float | None
    difference: float | None
    why: str
    count: int = 1


def reported_by(
    calls: Sequence[Call], read: Read, outputs: Sequence[str], version: str | None
) -> list[Reported]:
    """All that some calls reported, call by call.

    Args:
        calls: The calls.
        read: Gives their entries in one pass, block by block, the columns named.
        outputs: The named outputs whose losses the entries have.
        version: Of the Keras that reported.
    """
    version = version or _NEWEST
    found: dict[int, list[Reported]] = {call.number: [] for call in calls}
    shown: dict[str, dict[int, list[tuple[int, float]]]] = {}
    others: list[Reported] = []
    for call in calls:
        for item in call.reported:
            place, name, value = str(item["place"]), str(item["name"]), float(item["value"])
            column = "loss" if name == call.loss_name else name
            epoch = item.get("epoch")
            kept = (place, name, call.number, epoch, value)
            if place != "history":
                others.append(Reported(*kept, "evaluate", None, None, _MEASURED))
            elif epoch is None or column not in ("loss", *outputs):
                others.append(Reported(*kept, None, None, None, _NO_COLUMN))
            else:
                values = shown.setdefault(column, {}).setdefault(call.number, [])
                values.append((int(epoch), value))
    for column, values in shown.items():
        concerned = [call for call in calls if call.number in values]
        facts = _facts(read, concerned, column, version)
        for call in concerned:
            found[call.number] += _history(call, column, values[call.number], facts, version)
    for item in (*_returned(calls, read, version), *others):
        found[item.call].append(item)
    return [item for items in found.values() for item in items]


@dataclass(frozen=True)
class _Facts:
    stated: float
    float32: float
    batch_mean: float
    last: float
    steps: int


Facts: TypeAlias = Mapping[tuple[int, int], _Facts]  # by call and epoch


def _history(
    call: Call, column: str, values: list[tuple[int, float]], facts: Facts, version: str
) -> Iterator[Reported]:
    name = call.loss_name if column == "loss" else column
    for epoch, value in values:
        kept = ("history", name, call.number, epoch, value, _statistic(call, version))
        fact = facts.get((call.number, epoch))
        if fact is None:
            yield Reported(*kept, None, None, "The run has no entries of this epoch.")
        else:
            difference = _difference(value, fact.stated)
            yield Reported(*kept, fact.stated, difference, _why(value, fact, call))


def _statistic(call: Call, version: str) -> str:
    if call.info.get("history_is") == "last":
        return "last"
    return conventions.of("keras", version, "history").statistic


def _weights(call: Call, column: str) -> str:
    """The column that weights a loss, or "one"."""
    if column == "loss":
        return "weight"
    kinds: Mapping[str, Any] = call.info.get("output_weights", {})
    return "one" if kinds.get(column) == "one" else "rows"


def _facts(read: Read, calls: Sequence[Call], column: str, version: str) -> Facts:
    facts: dict[tuple[int, int], _Facts] = {}
    windows = {call.number: Windows(limit=None) for call in calls}
    for call, block in read(calls, ["epoch", column, "weight", "rows"]):
        for window, _ in windows[call.number].feed(block):
            facts |= _facts_of(call, window, column, _statistic(call, version))
    for call in calls:
        for window, _ in windows[call.number].rest():
            facts |= _facts_of(call, window, column, _statistic(call, version))
    return facts


def _facts_of(call: Call, window: Block, column: str, statistic: str) -> Facts:
    loss, weights = window[column].astype(np.float64), _weights(call, column)
    weight = np.ones(len(loss)) if weights == "one" else window[weights].astype(np.float64)
    begins, ends = bounds(window["epoch"])
    groups = np.repeat(np.arange(len(begins)), ends - begins + 1)
    rows = zip(
        window["epoch"][begins].tolist(),
        STATISTICS[statistic](loss, weight, groups).tolist(),
        keras_mean(loss, weight, groups).tolist(),
        STATISTICS["batch_mean"](loss, weight, groups).tolist(),
        loss[ends].tolist(),
        (ends - begins + 1).tolist(),
        strict=True,
    )
    return {(call.number, epoch): _Facts(*fact) for epoch, *fact in rows}


def _difference(value: float, stated: float) -> float:
    return 0.0 if same(value, stated) else value - stated


def same(a: float, b: float) -> bool:
    """Whether two numbers are equal; NaN equals NaN."""
    return a == b or (math.isnan(a) and math.isnan(b))


def _rounded(value: float) -> float:
    with np.errstate(over="ignore"):
        return float(np.float32(value))


def _why(value: float, fact: _Facts, call: Call) -> str:
    if same(_rounded(value), _rounded(fact.stated)):
        return "Equal to the stated value, rounded to float32."
    if same(_rounded(value), fact.float32):
        return "Float32 accumulation: Keras's float32 sums, repeated, give this number bit for bit."
    gap, left = abs(value - fact.stated), abs(value - fact.float32)
    # Each of n float32 additions rounds by half a unit in the last place, at most.
    bound = (fact.steps + 2) * _HALF_ULP * max(abs(fact.stated), abs(value))
    if left <= gap <= bound:
        return (
            f"Float32 accumulation, within the {bound:.1e} that {fact.steps} roundings allow; "
            f"Keras's float32 sums, repeated, come within {left:.1e}."
        )
    for name, other in (("batch_mean", fact.batch_mean), ("last", fact.last)):
        if same(_rounded(value), _rounded(other)):
            return (
                f"Differs, and equals {name}, rounded to float32: look at how the loss is logged."
            )
    if not call.mean_of_rows:
        return "Differs; the loss is no mean of row losses, so look at what weights its batches."
    return "Differs; look at the weight of each step, at hidden steps, and at a custom train_step."


class _Returned:
    """What a series of `train_on_batch` returned, folded: how many, and the one that differs most.

    Args:
        cumulative: Whether it is a mean that nothing in the series resets; else the raw loss.
    """

    def __init__(self, cumulative: bool) -> None:
        self._cumulative = cumulative
        self._mean = Mean.empty()
        self._sums = np.zeros((2, 1), np.float32)
        self.count = self.rounded = self.repeated = 0
        self.worst = (-1.0, math.nan, math.nan)  # distance, value, stated

    def feed(self, block: Block) -> None:
        stated, float32 = block["loss"].astype(np.float64), block["loss"]
        if self._cumulative:
            stated, float32 = self._means(stated, block["weight"])
        value = block["reported"]
        shown = ~np.isnan(value) | np.isnan(stated)
        if not shown.any():
            return
        value, stated, float32 = value[shown], stated[shown], float32[shown]
        with np.errstate(invalid="ignore", over="ignore"):
            equal = _equal(value.astype("f4"), stated.astype("f4"))
            again = ~equal & _equal(value.astype("f4"), float32)
            distance = np.where(_equal(value, stated), 0.0, np.abs(value - stated))
        distance = np.where(np.isnan(distance), np.inf, distance)
        self.count += len(value)
        self.rounded += int(equal.sum())
        self.repeated += int(again.sum())
        at = int(np.argmax(distance))
        self.worst = max(
            self.worst,
            (float(distance[at]), float(value[at]), float(stated[at])),
            key=lambda found: found[0],
        )

    def _means(self, loss: Floats, weight: Floats) -> tuple[Floats, NDArray[np.float32]]:
        """The cumulative means, and the same by Keras's float32 sums."""
        mean = self._mean
        # The mean so far, as one entry of all the weight so far, goes before those that follow.
        losses = np.append(mean.result if mean.count else 0.0, loss)
        weights = np.append(float(mean.weight + mean.lost_weight), weight)
        stated = running_mean(losses, weights, np.zeros(len(losses), np.int64))[1:]
        self._mean = mean.merge(Mean.of(loss, weight))
        with np.errstate(all="ignore"):
            light = weight.astype(np.float32)
            added = np.hstack((self._sums, np.stack((loss.astype(np.float32) * light, light))))
            sums = np.add.accumulate(added, axis=1, dtype=np.float32)
            float32 = np.where(sums[1] == 0, np.float32(0), sums[0] / sums[1])[1:]
        self._sums = sums[:, -1:]
        return stated, float32


def _returned(calls: Sequence[Call], read: Read, version: str) -> Iterator[Reported]:
    series = [call for call in calls if call.driver == "train_on_batch"]
    if not series:
        return
    row = conventions.of("keras", version, "returned")
    folds = {call.number: _Returned(row.statistic == "cumulative_mean") for call in series}
    for call, block in read(series, ["loss", "weight", "reported"]):
        folds[call.number].feed(block)
    for call in series:
        fold = folds[call.number]
        _, value, stated = fold.worst
        if fold.count:
            kept = ("returned", call.loss_name, call.number, None, value, row.statistic, stated)
            why = _why_returned(fold, row.note)
            yield Reported(*kept, _difference(value, stated), why, fold.count)


def _equal(a: np.ndarray, b: np.ndarray) -> NDArray[np.bool_]:
    return (a == b) | (np.isnan(a) & np.isnan(b))


def _why_returned(fold: _Returned, note: str) -> str:
    if fold.rounded == fold.count:
        return f"All {fold.count} returned values equal the stated ones, rounded to float32."
    left = fold.count - fold.rounded - fold.repeated
    if left:
        return f"{left} of {fold.count} returned values differ; look at: {note}."
    return (
        f"Float32 accumulation: of {fold.count} returned values {fold.rounded} equal the stated "
        f"ones, and the others Keras's float32 sums, repeated, bit for bit."
    )
