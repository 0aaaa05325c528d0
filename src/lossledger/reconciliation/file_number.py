"""A number from another tool's file: which file, which series, which place in it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lossledger import explain
from lossledger.errors import LossLedgerError
from lossledger.explain import Series
from lossledger.explain.kind import rounded
from lossledger.explain.source import in_folder
from lossledger.reconciliation.result import Side
from lossledger.reconciliation.spec import Which
from lossledger.run import Run

_WEIGHTED = ("epoch_mean", "running_mean", "cumulative_mean")
_VALIDATION = re.compile(r"epoch_(.+)|evaluation_(.+)_vs_iterations")


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
    def statistics(self) -> tuple[str, ...]:
        """What a run's own number of the kind may be called; nothing if the file doesn't tell."""
        if not self.series.conventions:
            return ()
        return self._measured if self.series.statistic == "evaluate" else (self._stated,)

    @property
    def _measured(self) -> tuple[str, ...]:
        """Keras calls a validation's loss val_loss, its TensorBoard callback otherwise."""
        name = self.series.name
        own = _VALIDATION.fullmatch(name)
        if self.tool == "keras":
            return (f"val_{own[1] or own[2]}" if own else name,)
        return "val_loss", "evaluate"

    @property
    def _stated(self) -> str:
        row = self.series.conventions[-1]
        given = [f"{name}={value}" for name, value in row.parameters.items()]
        if row.statistic == "window_mean" and self.series.per == "step":
            steps = self.series.steps
            given = [f"n={int(steps[self.place] - (steps[self.place - 1] if self.place else 0))}"]
        if row.weight_kind == "one" and row.statistic in _WEIGHTED:
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


def read_file(path: Path, name: str, epoch: int, versions: Mapping[str, str]) -> FileNumber:
    """Reads a number of a file.

    Args:
        path: The file.
        name: The series, or the statistic, that is meant; "" for its training loss.
        epoch: Of a series of epochs; from the end where negative.
        versions: Of the tools that may have written it, where known.

    Raises:
        LossLedgerError: It can't be read, or has no such number.
    """
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
        by_epoch = sorted(explained.losses, key=lambda each: each.per != "epoch")
        trained = [each for each in by_epoch if each.statistic != "evaluate"]
        found = [*trained, *by_epoch, *explained.series]
    found = [each for each in found if len(each.values)]
    if not found:
        some = [each.name for each in explained.series if len(each.values)]
        has = ", ".join(some[:20]) or "no number at all"
        raise LossLedgerError(
            f"The file has no such series. Received: {name or 'its loss'} of {explained.path}. It "
            f"has: {has}.",
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
