"""What a feed gives to a tracker: a run's numbers in pieces, each of one call and in order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lossledger.segments.tables import null
from lossledger.statement import Block, EpochStatement
from lossledger.vectors import Floats, Integers


@dataclass(frozen=True)
class Steps:
    """Entries of one call, one after another.

    Args:
        call: Number of the call.
        model: Number of its model.
        start: Entries of the call before these.
        block: Their columns, as recorded, and where these are null (`shares.Tail`).
        optimizer_step: int64 (n,), updates of the model's weights in this run before each entry.
        epoch: int64 (n,), as the driver counts; `None` while it isn't certain.
        running_mean: float64 (n,), likewise.
    """

    call: int
    model: int
    start: int
    block: Block
    optimizer_step: Integers
    epoch: Integers | None
    running_mean: Floats | None

    @property
    def count(self) -> int:
        """How many entries."""
        return len(self.optimizer_step)

    def values(self, column: str) -> tuple[Floats, np.ndarray | None]:
        """A column as float64, and where it has a value; `None` for everywhere."""
        missing = self.block.get(null(column))
        return self.block[column].astype(np.float64), None if missing is None else ~missing

    def cut(self, done: int) -> "Steps":
        """Those that follow the first `done` entries of the call."""
        skip = min(max(done - self.start, 0), self.count)
        return self._at(slice(skip, None), self.start + skip) if skip else self

    def head(self, size: int) -> "Steps":
        """The first of them."""
        return self._at(slice(size), self.start)

    def _at(self, place: slice, start: int) -> "Steps":
        return Steps(
            self.call,
            self.model,
            start,
            {name: values[place] for name, values in self.block.items()},
            self.optimizer_step[place],
            None if self.epoch is None else self.epoch[place],
            None if self.running_mean is None else self.running_mean[place],
        )


@dataclass(frozen=True)
class End:
    """Where an epoch ended: the optimizer step and the time of its last entry."""

    epoch: int
    optimizer_step: int
    time: int


@dataclass(frozen=True)
class Epochs:
    """Epochs of one call that have ended; `start` of the call's came before."""

    call: int
    model: int
    start: int
    ends: Sequence[End]
    statements: Sequence[EpochStatement]

    @property
    def count(self) -> int:
        """How many epochs."""
        return len(self.ends)

    def cut(self, done: int) -> "Epochs":
        """Those that follow the first `done` epochs of the call."""
        skip = max(done - self.start, 0)
        rest = self.ends[skip:], self.statements[skip:]
        return Epochs(self.call, self.model, self.start + skip, *rest)


@dataclass(frozen=True)
class Shown:
    """Numbers that a call reported, each at the end of its epoch; `start` came before.

    An end is `None` where the run has no entries of that epoch.
    """

    call: int
    model: int
    start: int
    ends: Sequence[End | None]
    items: Sequence[Mapping[str, Any]]

    @property
    def count(self) -> int:
        """How many numbers."""
        return len(self.items)

    def cut(self, done: int) -> "Shown":
        """Those that follow the first `done` numbers of the call."""
        skip = max(done - self.start, 0)
        return Shown(self.call, self.model, self.start + skip, self.ends[skip:], self.items[skip:])


Piece = Steps | Epochs | Shown
