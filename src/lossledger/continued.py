"""A run that was resumed: which call goes on where another was cut short, and what counts twice.

A crash throws away the steps since the last checkpoint, and the resumed training trains them
again. Nothing is rewritten for it: the later entries stand in the place of the earlier ones, and
which these are is derived here from what both calls say. Since a call's entries lie in the order of
training, those that were trained again are always the end of a call.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from lossledger import shares
from lossledger.entry import NO_EPOCH
from lossledger.restored import (
    Line,
    Stretch,
    Told,
    by_batches,
    by_updates,
    by_weights,
    length,
    line_to,
    other_data,
    window,
)
from lossledger.series import bounds


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
        unwritten: Steps that those weights had seen, behind the last entry that was written. 0 also
            where nothing tells it.
        guessed: Whether its batches alone say where it goes on, and might say it of other places.
        open_epoch: The epoch before it, whose end may never have been written; `None` without one.
    """

    steps: int
    superseded: int = 0
    since: int | None = None
    continues: int | None = None
    again: int | None = 0
    seen: int = 0
    unwritten: int = 0
    guessed: bool = False
    open_epoch: int | None = None


@dataclass(frozen=True)
class _Join:
    """Where a call goes on: after so many entries of a line, of which the others count no more.

    It is `inside` where that is in the middle of an epoch that both say, and `said` where the epoch
    alone says it.
    """

    line: Line
    place: int | None
    seen: int = 0
    unwritten: int = 0
    guessed: bool = False
    inside: bool = False
    said: bool = False


def standings_of(
    folder: Path,
    infos: Mapping[int, Mapping[str, Any]],
    steps: Mapping[int, tuple[int, int]],
    reported: Mapping[int, Set[int]] = MappingProxyType({}),
) -> dict[int, Standing]:
    """Where each call of a resumed run stands.

    The first call of a model after a resume goes on where the weights had come that it begins with
    (`lossledger.restored`), in the call that they are of; else in the last call of its driver, one
    that was cut short, and that none goes on from yet, before another. But `fit` and `Loop` train
    whole epochs: where they begin one anew that the weights had seen a part of, they go on at its
    beginning.

    All entries of the model behind that place were trained again.

    Args:
        folder: The run's folder.
        infos: What `calls.jsonl` says of each call, by number.
        steps: Model and number of entries of each call that has any.
        reported: The epochs of each call whose end was reported.
    """
    calls = {
        number: Told(number, model, count, infos.get(number, {}), count, reported.get(number, ()))
        for number, (model, count) in sorted(steps.items())
    }
    _look(folder, calls)
    standings = {number: Standing(count) for number, (_, count) in steps.items()}
    before: dict[int, list[Told]] = {}
    attempts: dict[int, int] = {}
    for call in calls.values():
        earlier = before.setdefault(call.model, [])
        attempt = int(call.info.get("attempt") or 0)
        if earlier and attempt != attempts.get(call.model, 0):
            _stand(folder, earlier, call, standings)
        attempts[call.model] = attempt
        earlier.append(call)
    return standings


def _look(folder: Path, calls: Mapping[int, Told]) -> None:
    seen = dict.fromkeys(calls, 0)
    for block in shares.scan(folder, ["call", "epoch", "step"]):
        begins, ends = bounds((block["call"].astype(np.int64) << 32) + block["epoch"])
        for begin, end in zip(begins.tolist(), (ends + 1).tolist(), strict=True):
            number, epoch = int(block["call"][begin]), int(block["epoch"][begin])
            call = calls.get(number)
            if call is None:
                continue  # begun since the calls were looked at
            if not call.stretches or call.stretches[-1].epoch != epoch:
                call.stretches.append(Stretch(epoch, seen[number], int(block["step"][begin])))
            seen[number] += end - begin


def _stand(
    folder: Path, before: Sequence[Told], call: Told, standings: dict[int, Standing]
) -> None:
    """Finds where a call goes on, and cuts what lies behind."""
    counting = [each for each in before if each.kept]
    join = _join(folder, counting, call)
    if join is None:
        return
    again = None
    if join.place is not None:
        last = counting.index(join.line[-1])
        again = _cut(folder, join.line, counting[last + 1 :], join.place, standings)
    goes_on = join.inside or _goes_on(join.line, call.stretches[0].epoch)
    if join.line[-1].driver == call.driver and goes_on:
        call.continues = next((each.number for each in reversed(join.line) if each.kept), None)
    standings[call.number] = replace(
        standings[call.number],
        continues=call.continues,
        again=again,
        seen=join.seen,
        unwritten=join.unwritten,
        guessed=join.guessed,
        open_epoch=_open_epoch(join, call) if again == 0 else None,
    )


def _open_epoch(join: _Join, call: Told) -> int | None:
    """The last epoch before a call, where nothing says that all of it was written."""
    epoch = call.stretches[0].epoch
    last = max((reached for reached, _ in _stretches(join.line)), default=epoch)
    return last if join.said and last < epoch and not _came_past(join.line, last) else None


def _goes_on(line: Line, epoch: int) -> bool:
    """Whether a call counts a line's epochs on; one that counts from 0 may begin where it ended."""
    last = max((reached for reached, _ in _stretches(line)), default=epoch)
    return epoch == NO_EPOCH or epoch >= max(last, 1)


def _cut(
    folder: Path,
    line: Line,
    behind: Sequence[Told],
    place: int,
    standings: dict[int, Standing],
) -> int:
    """Lets only so many entries of a line count, and none behind it; how many stop counting."""
    lost = 0
    for each in (*line, *behind):
        keeps = max(0, min(each.kept, place))
        place = 0 if each is line[-1] else place - each.kept
        if keeps < each.kept:
            lost += each.kept - keeps
            each.kept = keeps
            standings[each.number] = replace(
                standings[each.number],
                steps=keeps,
                superseded=each.steps - keeps,
                since=_step_at(folder, each, keeps),
            )
    return lost


def _step_at(folder: Path, call: Told, place: int) -> int:
    for each in call.stretches:
        if each.place == place:
            return each.step
    return int(window(folder, call, place, place + 1, "step")[0][0])


def _join(folder: Path, counting: Sequence[Told], call: Told) -> _Join | None:
    """Where a call goes on; `None` where there is nothing that it could go on in."""
    found = by_weights(counting, call)
    if found is not None:
        line = line_to(found[0], counting)
        place = length(line[:-1]) + found[1]
        if not place and not found[0].cut_short and other_data(folder, found[0], call):
            return _Join(line, None)  # a model like it, from the same seed, as in cross-validation
        return _at_epoch(line, place, call, sure=True) if call.counts_epochs else _Join(line, place)
    own = [each for each in counting if each.driver == call.driver]
    if not own:
        return None
    gone_on = {each.continues for each in counting}
    open_ends = [each for each in own if each.cut_short and each.number not in gone_on]
    last = (open_ends or own)[-1]
    line = line_to(last, counting)
    place, epoch = by_updates(line, call), call.stretches[0].epoch
    if call.counts_epochs and (place is not None or epoch > 0 or not _came_past(line, 0)):
        return _at_epoch(line, place, call, sure=False)
    if place is not None:
        whole = length(line)
        return _Join(line, min(place, whole), unwritten=max(0, place - whole))
    place, guessed = by_batches(folder, line, call)
    # A `fit` may begin with epoch 0 though weights of a later one were loaded.
    if epoch == NO_EPOCH or call.counts_epochs:
        return _Join(line, place, guessed=guessed)
    # A loop may say its epoch, and go on in the middle of it.
    begin, end = _begin(line, epoch), _begin(line, epoch + 1)
    inside = place is not None and not guessed and begin < place < end
    return _Join(line, place if inside else begin, inside=inside, said=not inside)


def _at_epoch(line: Line, place: int | None, call: Told, *, sure: bool) -> _Join:
    """Where a call goes on that begins an epoch.

    Args:
        line: The line that it goes on in.
        place: How far its weights had come; `None` where nothing tells it.
        call: The call.
        sure: Whether the weights tell it, and not the optimizer's count.
    """
    epoch, whole = call.stretches[0].epoch, length(line)
    begin, end = _begin(line, epoch), _begin(line, epoch + 1)
    if place is None:
        return _Join(line, begin, said=True)
    # Behind a whole epoch 0 another `fit` counts from 0 again.
    another = epoch == 0 and place == end and _came_past(line, 0)
    if begin <= place <= end and not another:
        return _Join(line, begin, seen=place - begin)
    if sure or epoch == 0:
        return _Join(line, min(place, whole), unwritten=max(0, place - whole))
    return _Join(line, begin, unwritten=max(0, place - whole) if begin == whole else 0)


def _came_past(line: Line, epoch: int) -> bool:
    """Whether a line came to the end of an epoch, as far as it says."""
    return _begin(line, epoch + 1) < length(line) or any(epoch in each.reported for each in line)


def _begin(line: Line, epoch: int) -> int:
    """How many entries of a line lie before an epoch; all where it never came so far."""
    return next((place for each, place in _stretches(line) if each >= epoch), length(line))


def _stretches(line: Line) -> list[tuple[int, int]]:
    """The epochs of a line's entries that count, each with how many of them lie before."""
    found: list[tuple[int, int]] = []
    before = 0
    for each in line:
        found += [
            (part.epoch, before + part.place) for part in each.stretches if part.place < each.kept
        ]
        before += each.kept
    return found
