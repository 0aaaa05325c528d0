"""A number from another tool's file, as one of the two: as far as a file without entries goes.

The file's series says which statistic the number is. Where the other number is a run's, the way to
it leads over that statistic of the run's own entries: what lies between the two statistics has
exact causes; what lies between the file's number and the run's is rounding, or another training.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from lossledger import explain
from lossledger.call import Call, entries_of
from lossledger.errors import LossLedgerError
from lossledger.explain import Series
from lossledger.explain.kind import rounded
from lossledger.explain.source import in_folder
from lossledger.reconciliation.chain import merged
from lossledger.reconciliation.moves import near, number, signed
from lossledger.reconciliation.result import Cause, Reconciliation, Side, gap_of
from lossledger.reconciliation.spec import Spec, Which
from lossledger.run import Run
from lossledger.run import open as open_run

Between: TypeAlias = "Callable[[Which, Which], Reconciliation]"

_ROUNDED = "None is needed: a float32 sum rounds. State the number from the entries."


@dataclass(frozen=True, eq=False)
class FileNumber:
    """A number of a file.

    Args:
        side: The number.
        series: Its series.
        slack: By how much the file rounds it.
        place: Where in the series it stands.
        tool: Who wrote the file.
        kind: What the file is.
    """

    side: Side
    series: Series
    slack: float
    place: int = -1
    tool: str | None = None
    kind: str = ""

    @property
    def step(self) -> int | None:
        """The step after which it was logged, from 0; `None` of a number of an epoch.

        Lightning counts from 0; Keras's TensorBoard and transformers count steps that are done.
        """
        if self.series.per == "epoch":
            return None
        return int(self.series.steps[self.place]) - (self.tool != "lightning")

    @property
    def epochs(self) -> tuple[int | None, ...]:
        """Which epoch it may be of: a History doesn't say from which on it counts."""
        if self.kind != "keras-history" or self.side.epoch != self.place:
            return (self.side.epoch,)
        return self.side.epoch, self.place - len(self.series.values)

    @property
    def statistic(self) -> str | None:
        """What the run's own number of the kind is called; `None` where the file doesn't tell."""
        if not self.series.conventions:
            return None
        if self.series.statistic == "evaluate":
            return self.series.name if self.series.name.startswith("val_") else "evaluate"
        row = self.series.conventions[-1]
        given = [f"{name}={value}" for name, value in row.parameters.items()]
        if row.statistic == "window_mean" and self.series.per == "step":
            steps = self.series.steps
            given = [f"n={int(steps[self.place] - (steps[self.place - 1] if self.place else 0))}"]
        if row.weight_kind == "one" and row.statistic in ("epoch_mean", "running_mean"):
            given.append("weight=one")
        return f"{row.statistic}:{','.join(given)}" if given else row.statistic


def file_of(which: Which) -> tuple[Path, str] | None:
    """The file that is meant, and the series or statistic named after it; `None` for a run."""
    if isinstance(which, Run):
        return None
    if isinstance(which, tuple):
        found = None if isinstance(which[0], Run) else file_of(str(which[0]))
        return None if found is None else (found[0], which[1].removeprefix(":"))
    text = str(which)
    ends = [len(text), *(place for place in range(len(text) - 1, 0, -1) if text[place] == ":")]
    for end in ends:
        path = Path(text[:end])
        file = path if path.is_file() else in_folder(path) if path.is_dir() else None
        if file is not None:
            return file, text[end + 1 :]
    return None


def with_files(
    which: tuple[Which, Which],
    files: Sequence[tuple[Path, str] | None],
    epoch: int,
    directory: str | Path,
    between: Between,
) -> Reconciliation:
    """Reconciles two numbers of which one or both are in files.

    Args:
        which: The two.
        files: What `file_of` says of each.
        epoch: Of both; from the end where negative.
        directory: The folder of runs in which a bare name is looked up.
        between: Reconciles two numbers of runs.
    """
    if files[0] is not None and files[1] is not None:
        return _two_files(*(_read(*file, epoch, {}) for file in files if file is not None))
    place = 0 if files[0] is not None else 1
    file, other = files[place], which[1 - place]
    assert file is not None
    run = _run_of(other, directory)
    keras = run.info.get("versions", {}).get("keras")
    found = _read(*file, epoch, {"keras": keras} if keras else {})
    try:
        inner = _over_the_run(found, run, other, place, between)
    except LossLedgerError as error:
        itself = between(other, other)
        sides = (found.side, itself.b) if place == 0 else (itself.a, found.side)
        return Reconciliation.of(*sides, verdict=f"{_nothing(*sides)} {_missing(found, error)}")
    return _joined(found, inner, place)


def _run_of(which: Which, directory: str | Path) -> Run:
    run = Spec.of(which).run
    return run if isinstance(run, Run) else open_run(run, directory=directory)


def _over_the_run(
    found: FileNumber, run: Run, other: Which, place: int, between: Between
) -> Reconciliation:
    """From the run's number of the file's kind to the other one, or back.

    Raises:
        LossLedgerError: The run has no such number.
    """
    if found.statistic is None:
        raise LossLedgerError("The file doesn't tell.", slug="unknown-statistic")
    spec = Spec.of(other)
    calls = [each for each in run.select(spec.call, spec.model) if each.steps]
    ats = [{"epoch": epoch} for epoch in found.epochs]
    ats = ats if found.step is None else [_at(run, calls, found.step)]
    inners: list[Reconciliation] = []
    for at in ats:
        chosen = {"call": spec.call, "model": spec.model, **at}
        told = ",".join(f"{key}={value}" for key, value in chosen.items() if value is not None)
        own = (run, f"@{told}:{found.statistic}")
        try:
            inners.append(between(own, other) if place == 0 else between(other, own))
        except LossLedgerError:
            if at is ats[-1] and not inners:
                raise
    like = (e for e in inners if near((e.a if place == 0 else e.b).value, found.side.value))
    return next(like, inners[0])


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
    return f"The run has no {found.statistic or 'number of that kind'} to set beside the file's."


def _joined(found: FileNumber, inner: Reconciliation, place: int) -> Reconciliation:
    """The run's reconciliation, with the step from the file's number to the run's before it."""
    own = inner.a if place == 0 else inner.b
    off = gap_of(found.side.value, own.value)
    amount = off if place == 0 else -off
    name = f"the run's {own.statistic} of epoch {own.epoch}, {number(own.value)}"
    causes = list(inner.causes)
    if near(found.side.value, own.value):
        evidence = f"The file has {found.side.value:.9g} for {name}."
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
    known = near(found.side.value, own.value)
    sides = (found.side, inner.b) if place == 0 else (inner.a, found.side)
    gap = gap_of(sides[0].value, sides[1].value)
    tells = (inner.gap and gap) or not amount
    rest = f" {'' if known else 'Of the rest: '}{inner.verdict}" if tells else ""
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
    if kinds[0] == kinds[1]:
        told += f" Both are {kinds[0]}."
    else:
        told += f" They are different things: {kinds[0]} in a, {kinds[1]} in b."
    return Reconciliation.of(a.side, b.side, verdict=told)


def _nothing(a: Side, b: Side) -> str:
    if gap_of(a.value, b.value) == 0:
        return "No gap: the numbers are equal."
    return "A file holds no entries, so nothing of the gap can be priced from it."


def _read(path: Path, name: str, epoch: int, versions: dict[str, str]) -> FileNumber:
    explained = explain.read(path, versions)
    series = _chosen(explained, name)
    place = _place(path, series, epoch)
    label = int(series.steps[place]) if series.per == "epoch" else None
    at = "" if label is not None else f", {series.per} {int(series.steps[place]):,}"
    side = Side(
        str(path),
        f"{series.name}, {series.statistic or 'not told'}",
        float(series.values[place]),
        epoch=label,
        note=f"{explained.kind}{at}",
    )
    decimals = rounded(series.values[np.isfinite(series.values)])
    slack = 0.0 if decimals is None else 0.5 * 10.0**-decimals
    return FileNumber(side, series, slack, place, explained.tool, explained.kind)


def _chosen(explained: explain.Explained, name: str) -> Series:
    """The series that is named, by its own name or its statistic; else a training loss.

    Of epochs, if there is one.
    """
    if name:
        found = [each for each in explained.series if each.name == name]
        found += [each for each in explained.losses if each.statistic == name]
    else:
        trained = [each for each in explained.losses if each.statistic != "evaluate"]
        trained.sort(key=lambda each: each.per != "epoch")
        found = [*trained, *explained.losses, *explained.series]
    found = [each for each in found if len(each.values)]
    if not found:
        has = ", ".join(each.name for each in explained.series[:20]) or "none"
        raise LossLedgerError(
            f"The file has no such series. Received: {name!r} of {explained.path}. It has: {has}.",
            slug="no-series",
        )
    return found[0]


def _place(path: Path, series: Series, epoch: int) -> int:
    """Where in a series the number of an epoch stands; the last one of several trainings."""
    count = len(series.values)
    if epoch < 0 and -epoch <= count:
        return count + epoch
    places = np.flatnonzero(series.steps == epoch) if series.per == "epoch" else np.empty(0, int)
    if not len(places):
        has = f"{series.per}s {series.steps[0]:,} to {series.steps[-1]:,}"
        raise LossLedgerError(
            f"The series has no such epoch. Received: {epoch} of {series.name} in {path}. It has "
            f"{has}; -1 is its last number.",
            slug="no-epoch",
        )
    return int(places[-1])
