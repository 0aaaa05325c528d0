"""What every tracker is: a place that the numbers of a run are written to, once."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import numpy as np

from lossledger.entry import NAMES
from lossledger.errors import LossLedgerError
from lossledger.export.pieces import Epochs, Shown, Steps
from lossledger.export.progress import ExportFolder, Progress
from lossledger.run import Run
from lossledger.vectors import Floats, Integers

EPOCH_STATISTICS = ("epoch_mean", "batch_mean", "min", "max", "std")
"""What trackers get of each epoch; fields of `EpochStatement`."""

Column: TypeAlias = "tuple[Floats, np.ndarray | None]"


class Tracker(ABC):
    """One tracker. To add one, write a class and put it into `lossledger.export.TRACKERS`.

    What it has is known by its last `commit`: what was written after that is dropped, or written
    again to no effect, when it is next opened.

    Args:
        run: The run.
        directory: The folder that holds what the tracker keeps.
    """

    name: ClassVar[str]
    chunk: ClassVar[int] = 65_536
    """Entries after which there is a commit."""
    columns: ClassVar[tuple[str, ...]] = ()
    """Columns of entries that it takes, besides those of every feed."""
    whole: ClassVar[bool] = False
    """Whether it takes an entry only together with its running mean."""

    def __init__(self, run: Run, directory: Path) -> None:
        self.run = run
        self.directory = directory
        self.added = 0
        """Numbers written."""

    @abstractmethod
    def open(self, *, force: bool) -> Progress:
        """Begins, or goes on after what it has of the run.

        Args:
            force: Whether to begin anew, in the place of what it has.

        Raises:
            LossLedgerError: What it has is of another run, or was changed.
        """

    @abstractmethod
    def steps(self, piece: Steps, *, own: bool, running: bool) -> None:
        """Takes entries: their own numbers, their running mean, or both."""

    @abstractmethod
    def epochs(self, piece: Epochs) -> None:
        """Takes what is stated of epochs."""

    @abstractmethod
    def shown(self, piece: Shown) -> None:
        """Takes numbers that were reported."""

    @abstractmethod
    def commit(self, progress: Progress, *, last: bool) -> None:
        """Makes all that was written last, and notes how far it goes.

        Args:
            progress: What was written, all in all.
            last: Whether nothing follows in this export.
        """

    @abstractmethod
    def close(self) -> None:
        """Lets go of files; after trouble, too."""

    @property
    @abstractmethod
    def where(self) -> str:
        """Where the numbers are."""

    @property
    def next(self) -> str | None:
        """The command to look at them."""
        return None


class InFolder(Tracker):
    """A tracker whose numbers are files in a folder named like the run."""

    def place(self, *, force: bool) -> Progress:
        """Opens the folder; see `Tracker.open`."""
        self.files = ExportFolder(self.directory / self.run.id, self.run, force=force)
        return self.files.progress

    def commit(self, progress: Progress, *, last: bool) -> None:
        """See `Tracker`."""
        self.files.commit(progress)

    def close(self) -> None:
        """See `Tracker`."""
        if hasattr(self, "files"):  # it may have been refused
            self.files.close()

    @property
    def where(self) -> str:
        """See `Tracker`."""
        return str(self.directory / self.run.id)


class Scalars(Tracker):
    """A tracker of named scalars over a step."""

    def open(self, *, force: bool) -> Progress:
        """See `Tracker`."""
        self._progress = self.begin(force=force)
        return self._progress

    @abstractmethod
    def begin(self, *, force: bool) -> Progress:
        """What `open` does."""

    @abstractmethod
    def write(self, step: Integers, time: Integers, columns: Mapping[str, Column]) -> None:
        """Takes numbers by name.

        Args:
            step: int64 (n,), optimizer steps.
            time: int64 (n,), ns since the run began.
            columns: By name, float64 (n,), and where there is a value; `None` for everywhere.
        """

    def _write(
        self, model: int, step: Iterable[int], time: Iterable[int], columns: Mapping[str, Column]
    ) -> None:
        present = {
            f"{self._progress.prefixes.get(model, '')}{name}": (values, known)
            for name, (values, known) in columns.items()
            if len(values) and (known is None or known.any())
        }
        if present:
            steps, times = np.asarray(step, np.int64), np.asarray(time, np.int64)
            self.write(steps, times, present)
            for values, known in present.values():
                self.added += len(values) if known is None else int(known.sum())

    def steps(self, piece: Steps, *, own: bool, running: bool) -> None:
        """See `Tracker`."""
        columns: dict[str, Column] = {}
        if own:
            columns["loss/raw"] = piece.values("loss")
        if running and piece.running_mean is not None:
            columns["loss/running_mean"] = (piece.running_mean, None)
        if own:
            columns["loss/penalty"] = piece.values("penalty")
            for name in piece.block:
                if is_output(name):
                    columns[f"{readable(name)}/raw"] = piece.values(name)
            columns["learning_rate"] = piece.values("learning_rate")
        self._write(piece.model, piece.optimizer_step, piece.block["time"], columns)

    def epochs(self, piece: Epochs) -> None:
        """See `Tracker`."""
        columns: dict[str, Column] = {}
        for name in EPOCH_STATISTICS:
            values = np.array([getattr(each, name) for each in piece.statements], np.float64)
            columns[f"loss/{name}"] = (values, None)
        steps, times = ([getattr(e, n) for e in piece.ends] for n in ("optimizer_step", "time"))
        self._write(piece.model, steps, times, columns)

    def shown(self, piece: Shown) -> None:
        """See `Tracker`."""
        series: dict[str, list[tuple[int, int, float]]] = {}
        for end, item in zip(piece.ends, piece.items, strict=True):
            if end is not None:
                of = series.setdefault(f"reported/{readable(str(item['name']))}", [])
                of.append((end.optimizer_step, end.time, float(item["value"])))
        for name, points in series.items():
            steps, times, values = zip(*points, strict=True)
            column = (np.array(values, np.float64), None)
            self._write(piece.model, steps, times, {name: column})


def is_output(name: str) -> bool:
    """Whether a column of a block is the loss of a named output."""
    return name not in NAMES and not name.startswith("\0")


def readable(name: str) -> str:
    """A name of the user's as a part of a name that every tracker takes."""
    kept = re.sub(r"[^\w.\- :]", "_", name)[:80].strip()
    return kept if kept.strip(".") else "_"


def began(created: object) -> float:
    """When a run began, in Unix seconds; 0 where its folder doesn't say."""
    try:
        return datetime.fromisoformat(str(created)).timestamp()
    except ValueError:
        return 0.0


def needed(module: str, extra: str) -> Any:
    """Imports what a tracker needs.

    Raises:
        LossLedgerError: It isn't installed (slug `not-installed`).
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise LossLedgerError(
            f"{extra} is needed for this, and can't be imported. Received: {error}. "
            f'Install it: pip install "lossledger[{extra}]".',
            slug="not-installed",
        ) from error
