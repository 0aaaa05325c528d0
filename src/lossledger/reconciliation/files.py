"""A number from another tool's file, as one of the two: as far as a file without entries goes.

The file's series says which statistic the number is. Where the other number is a run's, the way to
it leads over that statistic of the run's own entries: what lies between the two statistics has
exact causes; what lies between the file's number and the run's is rounding, or another training.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np

from lossledger.call import Call, entries_of
from lossledger.errors import LossLedgerError
from lossledger.reconciliation.chain import merged
from lossledger.reconciliation.file_number import FileNumber, read_file
from lossledger.reconciliation.moves import near, number, signed
from lossledger.reconciliation.reading import read
from lossledger.reconciliation.result import Cause, Reconciliation, Side, gap_of
from lossledger.reconciliation.spec import Spec, Which
from lossledger.run import Run

Between: TypeAlias = "Callable[[Which, Which], Reconciliation]"

_CALLS = 16
"""Calls of a run that are looked at for a file's number, at most: its last ones."""
_ROUNDED = "None is needed: a float32 sum rounds. State the number from the entries."


def with_files(
    which: tuple[Which, Which],
    files: Sequence[tuple[Path, str] | None],
    epoch: int,
    opened: Callable[[str | Path], Run],
    between: Between,
) -> Reconciliation:
    """Reconciles two numbers of which one or both are in files.

    Args:
        which: The two.
        files: What `file_of` says of each.
        epoch: Of both; from the end where negative.
        opened: Opens a run that is named.
        between: Reconciles two numbers of runs.
    """
    if files[0] is not None and files[1] is not None:
        return _two_files(*(read_file(*file, epoch, {}) for file in files if file is not None))
    place = 0 if files[0] is not None else 1
    file, other = files[place], which[1 - place]
    assert file is not None
    named = Spec.of(other).run
    run = named if isinstance(named, Run) else opened(named)
    keras = run.info.get("versions", {}).get("keras")
    found = read_file(*file, epoch, {"keras": keras} if keras else {})
    try:
        inner = _over_the_run(found, run, other, place, between)
    except LossLedgerError as error:
        itself = between(other, other)
        sides = (found.side, itself.b) if place == 0 else (itself.a, found.side)
        return Reconciliation.of(*sides, verdict=f"{_nothing(*sides)} {_missing(found, error)}")
    return _joined(found, inner, place)


def _over_the_run(
    found: FileNumber, run: Run, other: Which, place: int, between: Between
) -> Reconciliation:
    """From the run's number of the file's kind to the other one, or back.

    Raises:
        LossLedgerError: The run has no such number.
    """
    own = _own(found, run, Spec.of(other))
    return between(own, other) if place == 0 else between(other, own)


def _own(found: FileNumber, run: Run, spec: Spec) -> Which:
    """The run's number that the file's is, or the nearest that it may be, rounded; else the first.

    Raises:
        LossLedgerError: The run has none of its kind.
    """
    first: Which | None = None
    nearest = (found.slack, first)
    missing: list[LossLedgerError] = []
    for own in _candidates(found, run, spec):
        try:
            value = read(Spec.of(own), -1, None, None).side.value
        except LossLedgerError as error:
            missing.append(error)
            continue
        if near(value, found.side.value):
            return own
        first = first or own
        off = abs(value - found.side.value)
        nearest = (off, own) if off <= nearest[0] else nearest
    if first is None:
        raise missing[0]
    return nearest[1] or first


def _candidates(found: FileNumber, run: Run, spec: Spec) -> Iterator[Which]:
    """Where in the run the file's number may be from, by its statistic and its epoch or step."""
    if not found.statistics:
        raise LossLedgerError("The file doesn't tell.", slug="unknown-statistic")
    calls = [each for each in run.select(spec.call, spec.model) if each.steps]
    ats = [{"epoch": epoch} for epoch in found.epochs]
    if spec.call is None:  # the file may be the log of an earlier call
        last = [each.number for each in calls[::-1][:_CALLS]]
        ats += [{"epoch": epoch, "call": call} for call in last for epoch in found.epochs]
    ats = ats if found.step is None else [_at(run, calls, found.step)]
    for statistic in found.statistics:
        for at in ats:
            chosen = {"call": spec.call, "model": spec.model, **at}
            if found.series.statistic == "evaluate":
                chosen["batch"] = None  # measured after the epoch
            told = ",".join(f"{key}={value}" for key, value in chosen.items() if value is not None)
            yield run, f"@{told}:{statistic}"


def _at(run: Run, calls: Sequence[Call], step: int) -> dict[str, int]:
    """The epoch and the batch of a step, counted over calls.

    Keras counts executions, of which each has as many steps as `steps_per_execution` says, and the
    last one of an epoch what is left.
    """
    lengths: dict[tuple[int, int, int], int] = {}
    for call, block in entries_of(run.path, calls, ["epoch"]):
        size = int(call.configuration.get("steps_per_execution") or 1)
        for epoch, count in zip(*np.unique(block["epoch"], return_counts=True), strict=True):
            key = call.line, int(epoch), size
            lengths[key] = lengths.get(key, 0) + int(count)
    done = 0
    for (_, epoch, size), length in lengths.items():
        executions = -(-length // size)
        if done <= step < done + executions:
            return {"epoch": epoch, "batch": min((step - done + 1) * size, length) - 1}
        done += executions
    raise LossLedgerError(
        f"The run has no such step. Received: step {step + 1:,}. It has {done:,}.", slug="no-epoch"
    )


def _missing(found: FileNumber, error: LossLedgerError) -> str:
    """What of the run could not be set beside the file's number."""
    if error.slug == "no-epoch":
        return str(error)
    kind = found.statistics[0] if found.statistics else "number of that kind"
    return f"The run has no {kind} to set beside the file's."


def _joined(found: FileNumber, inner: Reconciliation, place: int) -> Reconciliation:
    """The run's reconciliation, with the step from the file's number to the run's before it."""
    own = inner.a if place == 0 else inner.b
    off = gap_of(found.side.value, own.value)
    amount = off if place == 0 else -off
    of = f" of call {own.call}" if inner.a.call != inner.b.call else ""
    which = f"the run's {own.statistic} of epoch {own.epoch}{of}"
    name = f"{which}, {number(own.value)}"
    causes = list(inner.causes)
    known = off == 0 or near(found.side.value, own.value)
    if known:
        evidence = f"The file has {found.side.value:.9g} for {which}, {own.value:.9g}."
        if amount:
            causes.append(Cause("float32_accumulation", amount, "exact", None, evidence, _ROUNDED))
        told = f"The file's number is {name}."
    elif abs(off) <= found.slack:
        told = f"The file's number is {name}, rounded: {signed(off)} of that is unexplained."
    else:
        told = (
            f"The file's number, {number(found.side.value)}, is not {name}: {signed(off)} of "
            "another training, epoch or loss is unexplained."
        )
    sides = (found.side, inner.b) if place == 0 else (inner.a, found.side)
    gap = gap_of(sides[0].value, sides[1].value)
    tells = (inner.gap and gap) or not amount
    between = "" if known else "Between the run's own two numbers: "
    rest = f" {between}{inner.verdict}" if tells else ""
    return Reconciliation.of(
        *sides,
        merged(causes),
        verdict=f"{told}{rest}",
        reasons=inner.reasons,
        differences=inner.differences,
        comparable=inner.comparable,
        divergence=inner.divergence,
    )


def _two_files(a: FileNumber, b: FileNumber) -> Reconciliation:
    kinds = [each.series.statistic or "not told by the file" for each in (a, b)]
    told = _nothing(a.side, b.side)
    epochs = [each.side.epoch for each in (a, b)]
    if kinds[0] == kinds[1] and None not in epochs and epochs[0] != epochs[1]:
        told += f" Both are {kinds[0]}, of other epochs: {epochs[0]} in a, {epochs[1]} in b."
    elif kinds[0] == kinds[1]:
        told += f" Both are {kinds[0]}."
    else:
        told += f" They are different things: {kinds[0]} in a, {kinds[1]} in b."
    return Reconciliation.of(a.side, b.side, verdict=told)


def _nothing(a: Side, b: Side) -> str:
    if gap_of(a.value, b.value) == 0:
        return "No gap: the numbers are equal."
    return "A file holds no entries, so nothing of the gap can be priced from it."
