"""A run that was resumed: which call goes on where another was cut short, and what counts twice.

A crash throws away the steps since the last checkpoint, and the resumed training trains them
again. Nothing is rewritten for it: the later entries stand in the place of the earlier ones, and
which these are is derived here from what both calls say. Since a call's entries lie in the order of
training, those that were trained again are always the end of a call.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from lossledger import shares
from lossledger.entry import NO_EPOCH
from lossledger.series import bounds
from lossledger.vectors import Ids, Integers

LOOKED_AT = 2**20
"""Steps at the end of the one call and the start of the other whose batches are compared."""

_TRIED = 4096


@dataclass(frozen=True)
class Standing:
    """What of a call counts, and what it goes on from.

    Args:
        steps: How many of its entries count: the first ones.
        superseded: How many after them were trained again.
        since: Column `step` of the first of those; `None` without any.
        continues: The number of the call that it goes on from, where it counts the same epochs on.
        again: Earlier entries that it trained again; `None` where that can't be told.
        seen: How many of those the weights that it began with had seen: a checkpoint from within
            an epoch, whose batches then train once more. 0 also where nothing tells it.
    """

    steps: int
    superseded: int = 0
    since: int | None = None
    continues: int | None = None
    again: int | None = 0
    seen: int = 0


@dataclass
class _Call:
    """What the entries and the record of a call tell, as far as they tell where it belongs."""

    number: int
    model: int
    steps: int
    info: Mapping[str, Any]
    # Of each stretch of one epoch: the epoch, its first entry's place in the call, its step.
    epochs: list[int] = field(default_factory=list[int])
    places: list[int] = field(default_factory=list[int])
    firsts: list[int] = field(default_factory=list[int])
    since: int | None = None
    continues: int | None = None
    again: int | None = 0
    seen: int = 0
    kept: int = 0

    @property
    def driver(self) -> Any:
        return self.info.get("driver")

    @property
    def cut_short(self) -> bool:
        return "ended" not in self.info or "failed" in self.info

    def weights(self, which: str) -> Any:
        return self.info.get(f"{which}_weights")

    def cut(self, place: int, step: int) -> int:
        """Lets only the first `place` entries count; how many stop counting."""
        if place >= self.kept:
            return 0
        lost, self.kept, self.since = self.kept - place, place, step
        return lost


_Cut: TypeAlias = tuple[_Call, int, int]
"""A call, after how many entries it is cut, and the step of the first that is cut off."""


def standings_of(
    folder: Path, infos: Mapping[int, Mapping[str, Any]], steps: Mapping[int, tuple[int, int]]
) -> dict[int, Standing]:
    """Where each call of a resumed run stands.

    The first call of a model after a resume goes on

    1. after the call whose final weights it began with, or at the start of the one whose initial
       weights it began with, if its own epochs begin at 0;
    2. else in the last call of its driver, one that was cut short before one that was not: at the
       epoch that it begins with, or, where the driver has none, at the last place from which the
       batches of both agree.

    All entries of the model behind that place were trained again.

    Args:
        folder: The run's folder.
        infos: What `calls.jsonl` says of each call, by number.
        steps: Model and number of entries of each call that has any.
    """
    calls = {
        number: _Call(number, model, count, infos.get(number, {}), kept=count)
        for number, (model, count) in sorted(steps.items())
    }
    _look(folder, calls)
    line: dict[int, list[_Call]] = {}
    attempts: dict[int, int] = {}
    for call in calls.values():
        before = line.setdefault(call.model, [])
        attempt = int(call.info.get("attempt") or 0)
        if before and attempt != attempts.get(call.model, 0):
            _join(folder, before, call)
        attempts[call.model] = attempt
        before.append(call)
    return {
        number: Standing(
            call.kept, call.steps - call.kept, call.since, call.continues, call.again, call.seen
        )
        for number, call in calls.items()
    }


def _look(folder: Path, calls: Mapping[int, _Call]) -> None:
    seen = dict.fromkeys(calls, 0)
    for block in shares.scan(folder, ["call", "epoch", "step"]):
        begins, ends = bounds((block["call"].astype(np.int64) << 32) + block["epoch"])
        for begin, end in zip(begins.tolist(), (ends + 1).tolist(), strict=True):
            number, epoch = int(block["call"][begin]), int(block["epoch"][begin])
            call = calls.get(number)
            if call is None:
                continue  # begun since the calls were looked at
            if not call.epochs or call.epochs[-1] != epoch:
                call.epochs.append(epoch)
                call.places.append(seen[number])
                call.firsts.append(int(block["step"][begin]))
            seen[number] += end - begin


def _join(folder: Path, before: Sequence[_Call], call: _Call) -> None:
    """Finds where a call goes on, and cuts what lies behind."""
    counting = [each for each in before if each.kept]
    target, cuts = _target(folder, counting, call)
    if target is None:
        return
    first = call.epochs[0]
    if cuts is None:
        call.again = None
    else:
        behind = counting[counting.index(target) + 1 :]
        cuts += [(later, 0, later.firsts[0]) for later in behind]
        call.again = sum(each.cut(place, step) for each, place, step in cuts)
        call.seen = _seen(target, call)
    # A fit that counts from 0 is another one; it may begin where this one ended.
    if target.driver == call.driver and (first == NO_EPOCH or first > 0):
        line = [target, *_led(target, before)]
        call.continues = next((each.number for each in line if each.kept), None)


def _seen(target: _Call, call: _Call) -> int:
    """Steps cut off of a call that the next one's weights had seen, by the optimizer's count.

    Only of arrays: at the end of a stream TensorFlow counts a step that found no data.
    """
    first, now = _updates(target), _updates(call)
    arguments = call.info.get("arguments")
    data = arguments.get("x") if isinstance(arguments, Mapping) else None
    if first is None or now is None or not isinstance(data, Mapping):
        return 0
    seen = now - first - target.kept
    return seen if 0 < seen <= target.steps - target.kept else 0


def _updates(call: _Call) -> int | None:
    """How many updates the model's optimizer had made before the call."""
    optimizers = call.info.get("initial_optimizers") or {}
    state = optimizers.get("optimizer")
    return None if state is None else int(state["iterations"])


def _led(target: _Call, before: Sequence[_Call]) -> list[_Call]:
    """The calls of a call's line before it, the last first."""
    found: list[_Call] = []
    number = target.continues
    while number is not None:
        found.append(next(each for each in before if each.number == number))
        number = found[-1].continues
    return found


def _target(
    folder: Path, counting: Sequence[_Call], call: _Call
) -> tuple[_Call | None, list[_Cut] | None]:
    """The call that another goes on in, and what to cut of its line; `None` if it can't be told."""
    began = call.weights("initial")
    for each in reversed(counting if began else ()):
        if each.weights("final") == began:
            return each, []
        if each.weights("initial") == began and call.epochs[0] <= 0:
            return each, [(each, 0, each.firsts[0])]
    own = [each for each in counting if each.driver == call.driver]
    if not own:
        return None, []
    target = next((each for each in reversed(own) if each.cut_short), own[-1])
    line = [target, *_led(target, counting)]
    if call.epochs[0] == NO_EPOCH:
        return target, _overlap(folder, line, call)
    cuts: list[_Cut] = []
    for each in line:
        stretches = zip(each.epochs, each.places, each.firsts, strict=True)
        cuts += [(each, place, step) for epoch, place, step in stretches if epoch >= call.epochs[0]]
    return target, cuts


def _overlap(folder: Path, line: Sequence[_Call], call: _Call) -> list[_Cut] | None:
    """Cuts a line at the last place from which on its batches are those that a call begins with."""
    new = _ids(folder, call, 0, min(call.steps, LOOKED_AT))[0]
    parts: list[tuple[Ids, Integers]] = []
    for each in line:
        parts.append(_ids(folder, each, max(0, each.kept - LOOKED_AT), each.kept))
        if each.kept > LOOKED_AT:
            break  # what lies before is not looked at
    old = np.concatenate([ids for ids, _ in reversed(parts)])
    if not old.all() or not new.all():
        return None
    for place in np.flatnonzero(old == new[0])[::-1][:_TRIED].tolist():
        length = min(len(new), len(old) - place)
        if np.array_equal(old[place : place + length], new[:length]):
            lost, cuts = len(old) - place, list[_Cut]()
            for each, (ids, steps) in zip(line, parts, strict=False):
                if lost > 0:
                    left = max(len(ids) - lost, 0)
                    cuts.append((each, each.kept - len(ids) + left, int(steps[left])))
                    lost -= len(ids)
            return cuts
    return []


def _ids(folder: Path, call: _Call, begin: int, end: int) -> tuple[Ids, Integers]:
    """Fingerprints of a call's batches and its steps, from one place to another."""
    parts = [np.empty(0, np.uint64)]
    numbers = [np.empty(0, np.int64)]
    done = 0
    for block in shares.scan(folder, ["call", "batch_id", "step"]):
        mine = block["call"] == call.number
        count = int(mine.sum())
        window = slice(max(begin - done, 0), max(end - done, 0))
        if window.start < min(window.stop, count):
            parts.append(block["batch_id"][mine][window].copy())
            numbers.append(block["step"][mine][window].copy())
        done += count
    return np.concatenate(parts), np.concatenate(numbers)
