"""What was shown, beside what the entries say: every reported number with its statement.

A reported number is a float32 fold by Keras, a statement a float64 fold over the same entries,
so the two differ by rounding at least. Which statistic a number is depends on Keras's version
(`lossledger.conventions`).
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from lossledger import conventions
from lossledger.call import Call
from lossledger.floats import gap_of, same
from lossledger.returned import ReturnedFold, are_whole, roundings
from lossledger.series import bounds
from lossledger.statement import Block, Windows
from lossledger.statistics import STATISTICS, keras_mean

Agreement: TypeAlias = Literal["equal", "rounding", "differs"]
Read: TypeAlias = Callable[[Iterable[Call], Sequence[str]], Iterator[tuple[Call, Block]]]

_NEWEST = "3.15"  # the convention taken for a run that doesn't say its Keras
_MEASURED = "Measured in inference mode, with weights held fixed; no training step is part of it."
_UNWRITTEN = (
    "Differs: the process was cut short, and entries of the epoch's end may not have been written."
)
_AGAIN = "The epoch was trained again when the run was resumed; these entries count no more."
_NO_COLUMN = "The entries keep losses; they have no column of this."


@dataclass(frozen=True)
class Reported:
    """A number that the user was shown or handed.

    Args:
        place: Where: `history`, `returned` (by `train_on_batch`), `validation`, `evaluate`,
            `tested` (by a `test_on_batch` inside an epoch, the last one).
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
        agreement: `equal` to the statement as float32 has it, another number by float32
            `rounding` alone, or one that `differs`; `None` without a statement.
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
    agreement: Agreement | None = None


def reported_by(
    calls: Sequence[Call],
    read: Read,
    outputs: Sequence[str],
    version: str | None,
    complete: bool = True,
) -> list[Reported]:
    """All that some calls reported, call by call.

    Args:
        calls: The calls.
        read: Gives their entries in one pass, block by block, the columns named.
        outputs: The named outputs whose losses the entries have.
        version: Of the Keras that reported.
        complete: Whether the run is closed; else the last entries may not be written. Nor may
            those of a call that was cut short before a resume.
    """
    version = version or _NEWEST
    latest = max((call.attempt for call in calls), default=0)
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
            mine = facts.get(call.number, {})
            whole = "ended" in call.info or (complete and call.attempt == latest)
            unwritten = None if whole else max(mine, default=None)
            for item in _history(call, column, values[call.number], mine, version):
                if item.epoch == unwritten and item.agreement == "differs":
                    item = dataclasses.replace(item, why=_UNWRITTEN)
                found[call.number].append(item)
    for item in (*_returned(calls, read, version), *others):
        found[item.call].append(item)
    return [item for items in found.values() for item in items]


@dataclass(frozen=True)
class _Facts:
    """What the entries say of one epoch.

    Args:
        stated: The statistic that was reported, float64.
        float32: The same, as Keras's float32 sums give it when repeated.
        bound: How far float32 rounding can take a number from `stated`, at most.
        batch_mean: The plain mean of the losses.
        last: The last loss.
        steps: Entries.
    """

    stated: float
    float32: float
    bound: float
    batch_mean: float
    last: float
    steps: int


Facts: TypeAlias = dict[int, _Facts]  # by epoch


def _history(
    call: Call,
    column: str,
    values: list[tuple[int, float]],
    facts: Facts,
    version: str,
) -> Iterator[Reported]:
    name = call.loss_name if column == "loss" else column
    for epoch, value in values:
        kept = ("history", name, call.number, epoch, value, _statistic(call, version))
        fact = facts.get(epoch)
        if fact is None:
            why = _AGAIN if call.standing.superseded else "The run has no entries of this epoch."
            yield Reported(*kept, None, None, why)
        else:
            difference = gap_of(fact.stated, value)
            agreement, why = _why(value, fact, call)
            yield Reported(*kept, fact.stated, difference, why, agreement=agreement)


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


def _facts(read: Read, calls: Sequence[Call], column: str, version: str) -> dict[int, Facts]:
    """By call."""
    facts: dict[int, Facts] = {}
    windows = {call.number: (call.steps, Windows(limit=None)) for call in calls}
    for call, block in read(calls, ["epoch", column, "weight", "rows"]):
        left, held = windows[call.number]
        left -= len(block["epoch"])
        windows[call.number] = (left, held)
        # What it holds goes with its last entry: a run may have thousands of calls.
        for window, _ in (*held.feed(block), *(() if left else held.rest())):
            found = _facts_of(call, window, column, _statistic(call, version))
            facts.setdefault(call.number, {}).update(found)
    return facts


def _facts_of(call: Call, window: Block, column: str, statistic: str) -> Facts:
    loss, weights = window[column].astype(np.float64), _weights(call, column)
    weight = np.ones(len(loss)) if weights == "one" else window[weights].astype(np.float64)
    begins, ends = bounds(window["epoch"])
    steps = ends - begins + 1
    groups = np.repeat(np.arange(len(begins)), steps)
    stated = STATISTICS[statistic](loss, weight, groups)
    if statistic == "last":  # no sum of several losses
        float32, bound = stated.astype("f4"), roundings(np.ones(len(steps)), stated, True)
    else:
        float32 = keras_mean(loss, weight, groups)
        size = STATISTICS[statistic](np.abs(loss), np.abs(weight), groups)
        bound = roundings(steps, size, are_whole(weight))
    rows = zip(
        window["epoch"][begins].tolist(),
        stated.tolist(),
        float32.tolist(),
        bound.tolist(),
        STATISTICS["batch_mean"](loss, weight, groups).tolist(),
        loss[ends].tolist(),
        steps.tolist(),
        strict=True,
    )
    return {epoch: _Facts(*fact) for epoch, *fact in rows}


def _rounded(value: float) -> float:
    with np.errstate(over="ignore"):
        return float(np.float32(value))


def _why(value: float, fact: _Facts, call: Call) -> tuple[Agreement, str]:
    if same(_rounded(value), _rounded(fact.stated)):
        return "equal", "Equal to the stated value, rounded to float32."
    if same(_rounded(value), fact.float32):
        return "rounding", "Float32 accumulation: Keras's float32 sums, repeated, give it exactly."
    for name, other in (("batch_mean", fact.batch_mean), ("last", fact.last)):
        if same(_rounded(value), _rounded(other)):
            why = f"Differs, and equals {name}, rounded to float32: look at how the loss is logged."
            return "differs", why
    if abs(value - fact.stated) <= fact.bound:
        return "rounding", (
            f"Float32 accumulation, within the {fact.bound:.1e} that rounding over {fact.steps:,} "
            f"steps can come to; Keras's float32 sums, repeated, come within "
            f"{abs(value - fact.float32):.1e}."
        )
    if not call.mean_of_rows:
        what = "the loss is no mean of row losses, so look at what weights its batches"
    else:
        what = "look at the weight of each step, at hidden steps, and at a custom train_step"
    return "differs", f"Differs; {what}."


def _returned(calls: Sequence[Call], read: Read, version: str) -> Iterator[Reported]:
    series = [call for call in calls if call.driver == "train_on_batch"]
    if not series:
        return
    row = conventions.of("keras", version, "returned")
    folds = {call.number: ReturnedFold(row.statistic == "cumulative_mean") for call in series}
    for call, block in read(series, ["loss", "weight", "reported"]):
        folds[call.number].feed(block)
    for call in series:
        fold = folds[call.number]
        _, _, value, stated = fold.worst
        if fold.count:
            kept = ("returned", call.loss_name, call.number, None, value, row.statistic, stated)
            difference, why = gap_of(stated, value), fold.why(row.note)
            yield Reported(*kept, difference, why, fold.count, fold.agreement)
