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
from lossledger.call import Call, entries_of, noted, split
from lossledger.entry import NO_EPOCH, OF_EPOCHS
from lossledger.epochs import Epochs as Known
from lossledger.export.pieces import End, Epochs, Piece, Shown, Steps
from lossledger.run import Run
from lossledger.series import bounds
from lossledger.statement import Block, EpochStatement, RunningMeans, Statements
from lossledger.vectors import Integers

COLUMNS = (
    *("call", "model", "epoch", "loss", "weight", "rows", "penalty", "learning_rate"),
    *("time", "updated"),
)
"""Columns that every feed reads; named outputs come on top."""
SHOWN = ("history", "validation")
"""Places of reported numbers that belong to an epoch, and so have a step."""


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
        self._read: dict[int, int] = {}
        self.uncertain = False

    def read(self, *, over: bool) -> Iterator[Piece]:
        """What has become certain since the last reading.

        Args:
            over: Whether no entry will follow, as known before this reading.
        """
        # Before the entries: a call that has ended has them all written.
        infos, reported = noted(self._run.path)
        counts = self._counts()
        for block in self._tail.read():
            for number, found in split(block):
                part = self._counting(number, found, counts)
                if not len(part["loss"]):
                    continue
                fold = self._folds.get(number)
                if fold is None:
                    fold = self._folds[number] = self._begun(number, part, infos)
                yield from fold.steps(part, self._counted(part))
        for number, fold in self._folds.items():
            ended = over or "ended" in infos.get(number, {})
            yield from fold.rest(ended, reported.get(number, ()))

    def _counts(self) -> dict[int, int]:
        """How many entries count of calls of which a resume trained some again."""
        if not self._run.info.get("resumed"):
            return {}
        return {call.number: call.steps for call in self._run.calls if call.standing.superseded}

    def _counting(self, number: int, part: Block, counts: Mapping[int, int]) -> Block:
        """What of a call's next entries counts."""
        before = self._read.get(number, 0)
        self._read[number] = before + len(part["loss"])
        if number not in counts:
            return part
        left = max(counts[number] - before, 0)
        return {name: values[:left] for name, values in part.items()}

    def _begun(self, number: int, part: Block, infos: dict[int, dict[str, Any]]) -> "_Fold":
        if number not in infos:  # it began after we had looked
            infos.update(noted(self._run.path)[0])
        known, info = self._known.get(number), infos.get(number, {})
        model = int(info.get("model", part["model"][0]))
        if info.get("attempt"):
            self._go_on(number, model)
        length = self._run.steps_per_epoch or info.get("steps_per_epoch")
        counted = int(part["epoch"][0]) != NO_EPOCH
        if known is None and not counted and not length:
            self.uncertain = True
        else:
            said = None if counted else Known(0, "said", int(length or 1))
            known = known or Call(number, 0, 0, info, (), "said", said)
        fold = _Fold(number, model, known)
        before = (
            None
            if known is None
            else self._folds.get(
                -1 if known.standing.continues is None else known.standing.continues
            )
        )
        if before is not None:
            fold.go_on(before)
        return fold

    def _go_on(self, number: int, model: int) -> None:
        """Counts a model's updates anew: of those given, a resume may have taken some back."""
        calls = [c for c in self._run.calls if c.model == model and c.number < number]
        found = entries_of(self._run.path, calls, ["updated"])
        self._updates[model] = sum(int(block["updated"].sum()) for _, block in found)

    def _counted(self, part: Block) -> Integers:
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

    def go_on(self, before: "_Fold") -> None:
        """Takes over the epoch in whose middle the call before was cut short."""
        self.running, self.open, self.last = before.running, before.open, before.last
        before.running, before.open, before.last = RunningMeans(), Statements(), None

    def steps(self, part: Block, optimizer_step: Integers) -> Iterator[Piece]:
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

    def _state(self, part: Block, epoch: Integers, begins: Integers) -> None:
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
        if self.known is not None and self.known.driver in OF_EPOCHS:
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
