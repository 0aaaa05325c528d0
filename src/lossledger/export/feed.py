"""The entries of a run as a tracker takes them: named numbers over optimizer steps, in order.

One pass folds the entries block by block. It can be made in pieces, while the run grows: each
reading gives what has become certain since the one before. A number, once given, stays.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lossledger import shares
from lossledger.call import Call, noted, split
from lossledger.entry import NO_EPOCH
from lossledger.run import Run
from lossledger.segments.tables import null
from lossledger.statement import (
    Block,
    EpochStatement,
    Floats,
    Places,
    RunningMeans,
    Statements,
    bounds,
)

COLUMNS = (
    *("call", "model", "epoch", "loss", "weight", "rows", "penalty", "learning_rate"),
    *("time", "updated"),
)
"""Columns that every feed reads; named outputs come on top."""
SHOWN = ("history", "validation")
"""Places of reported numbers that belong to an epoch, and so have a step."""


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
    optimizer_step: Places
    epoch: Places | None
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


class Feed:
    """One pass over a run.

    The epochs of a series of `train_on_batch` that counts none are found from all of its batches,
    so while the run grows they aren't certain; `uncertain` then says that another pass, when it
    is over, has more to say.

    Args:
        run: The run.
        columns: Columns to read besides `COLUMNS`.
        over: Whether the run is over.
    """

    def __init__(self, run: Run, columns: Sequence[str] = (), *, over: bool) -> None:
        self._run = run
        self._tail = shares.Tail(run.path, list(dict.fromkeys((*COLUMNS, *columns))))
        self._known = {call.number: call for call in run.calls} if over else {}
        self._folds: dict[int, _Fold] = {}
        self._updates: dict[int, int] = {}
        self.uncertain = False

    def read(self, *, over: bool) -> Iterator[Piece]:
        """What has become certain since the last reading.

        Args:
            over: Whether no entry will follow, as known before this reading.
        """
        # Before the entries: a call that has ended has them all written.
        infos, reported = noted(self._run.path)
        for block in self._tail.read():
            for number, part in split(block):
                fold = self._folds.get(number)
                if fold is None:
                    fold = self._folds[number] = self._begun(number, part, infos)
                yield from fold.steps(part, self._counted(part))
        for number, fold in self._folds.items():
            ended = over or "ended" in infos.get(number, {})
            yield from fold.rest(ended, reported.get(number, ()))

    def _begun(self, number: int, part: Block, infos: dict[int, dict[str, Any]]) -> "_Fold":
        if number not in infos:  # it began after we had looked
            infos.update(noted(self._run.path)[0])
        known, info = self._known.get(number), infos.get(number, {})
        length = self._run.steps_per_epoch or info.get("steps_per_epoch")
        counted = int(part["epoch"][0]) != NO_EPOCH
        if known is None and not counted and not length:
            self.uncertain = True
        else:
            known = known or Call(
                number, 0, 0, info, (), "said", None if counted else int(length or 1)
            )
        return _Fold(number, int(info.get("model", part["model"][0])), known)

    def _counted(self, part: Block) -> Places:
        """The optimizer step of each entry; entries of one model lie in the order of training."""
        model, updated = int(part["model"][0]), part["updated"].astype(np.int64)
        after = self._updates.get(model, 0) + np.cumsum(updated)
        self._updates[model] = int(after[-1])
        return after - updated


@dataclass
class _Fold:
    """Where the pass is within one call; `known` has its epochs, once they are certain."""

    call: int
    model: int
    known: Call | None
    count: int = 0
    running: RunningMeans = field(default_factory=RunningMeans)
    last: End | None = None
    open: Statements = field(default_factory=Statements)
    ends: list[End] = field(default_factory=list[End])
    statements: list[EpochStatement] = field(default_factory=list[EpochStatement])
    stated: int = 0
    shown: int = 0
    waiting: dict[int, End] = field(default_factory=dict[int, End])

    def steps(self, part: Block, optimizer_step: Places) -> Iterator[Piece]:
        """Takes the next entries."""
        start, self.count = self.count, self.count + len(optimizer_step)
        if self.known is None:
            yield Steps(self.call, self.model, start, part, optimizer_step, None, None)
            return
        epoch = self.known.epochs_of(part["epoch"], start).astype(np.int64)
        begins, ends = bounds(epoch)
        if self.last is not None and self.last.epoch != int(epoch[0]):
            self._end()
        loss, weight = part["loss"].astype(np.float64), part["weight"].astype(np.float64)
        means = self.running.feed(loss, weight, epoch)
        yield Steps(self.call, self.model, start, part, optimizer_step, epoch, means)
        self._state(part, epoch, begins)
        time = part["time"]
        found = [
            End(*values)
            for values in zip(
                epoch[ends].tolist(),
                optimizer_step[ends].tolist(),
                time[ends].tolist(),
                strict=True,
            )
        ]
        self.ends += found[:-1]
        self.last = found[-1]
        yield from self._epochs()

    def _state(self, part: Block, epoch: Places, begins: Places) -> None:
        """Folds the epochs: the one that was open, the whole ones in between, the one that is."""
        columns = {name: part[name] for name in ("loss", "weight", "rows")} | {"epoch": epoch}
        cuts = [0, *begins[1:2].tolist(), *begins[2:][-1:].tolist(), len(epoch)]
        for place, (begin, end) in enumerate(itertools.pairwise(cuts)):
            if place:
                self.statements += self.open.rest()
            piece = {name: values[begin:end] for name, values in columns.items()}
            self.statements += self.open.feed(piece)

    def _end(self) -> None:
        if self.last is not None:
            self.statements += self.open.rest()
            self.ends.append(self.last)
            self.last = None

    def _epochs(self) -> Iterator[Piece]:
        """The epochs that have ended."""
        count = len(self.ends)
        if not count:
            return
        assert len(self.statements) == count
        yield Epochs(self.call, self.model, self.stated, self.ends, self.statements)
        self.stated += count
        if self.known is not None and self.known.driver in ("fit", "loop"):
            self.waiting |= {end.epoch: end for end in self.ends}
        self.ends, self.statements = [], []

    def rest(self, ended: bool, reported: Sequence[Mapping[str, Any]]) -> Iterator[Piece]:
        """What the end of a reading makes certain."""
        if self.known is None:
            return
        if ended:
            self._end()
        yield from self._epochs()
        items = [item for item in reported if item.get("place") in SHOWN]
        ready: list[Mapping[str, Any]] = []
        for item in items[self.shown :]:
            epoch = item.get("epoch")
            if not ended and epoch is not None and epoch not in self.waiting:
                break  # its epoch may still go on
            ready.append(item)
        start, self.shown = self.shown, self.shown + len(ready)
        if ready:
            ends = [self.waiting.get(item.get("epoch", NO_EPOCH)) for item in ready]
            yield Shown(self.call, self.model, start, ends, ready)
