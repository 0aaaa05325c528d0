"""Where two trainings part: their calls read side by side up to the first step that differs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from lossledger import shares
from lossledger.call import Call, entries_of, split
from lossledger.floats import equal
from lossledger.merging import steps_begin
from lossledger.reconciliation.moves import alike
from lossledger.run import Run
from lossledger.statement import Block

_TRIED = 16
"""Steps that are tried as those with which another training begins."""

_COLUMNS = (
    *("epoch", "batch", "loss", "rows", "penalty", "learning_rate", "batch_id", "updated"),
    *("sample_weight", "elements"),
)


@dataclass(frozen=True)
class Parting:
    """The first step at which two calls differ.

    Args:
        step: Steps of both calls before it.
        what: What differs there, the first that does of: `epoch` (the one call begins another
            epoch), `batch`, `rows`, `loss`, `learning_rate`, `updated`.
        a: The first call's entry there, by column.
        b: The second call's.
        before: Steps before it whose losses agree in all but their last bits.
        longer: Whose epoch goes on where the other's ends, where `what` is `epoch`: `a` or `b`.
    """

    step: int
    what: str
    a: dict[str, Any]
    b: dict[str, Any]
    before: int = 0
    longer: str = ""


Training: TypeAlias = tuple[Run, Sequence[Call], int]
"""A run, calls of it that are one training, and how many of its steps to look at."""


def parting(
    a: Training,
    b: Training,
    *,
    whole: bool = True,
    ids: bool = True,
    starts: tuple[int, int] | None = None,
) -> Parting | None:
    """Finds the first step at which two trainings differ, in bounded memory.

    Losses that are equal up to float32 rounding count as equal.

    Args:
        a: The first.
        b: The second.
        whole: Whether both are looked at to the end of an epoch, so that a longer one differs.
        ids: Whether fingerprints of batches may be compared.
        starts: Steps of each that come before those that are compared, of which only these count,
            not their epochs; where the one began within the other.

    Returns:
        The step, or `None` where all steps that both have agree. Epochs that end elsewhere tell
        nothing apart where all steps beyond agree, too.
    """
    if starts is not None:
        return _first(a, b, ids=ids, epochs=False, starts=starts)[0]
    found, last = _first(a, b, ids=ids, epochs=True)
    if found is None:
        return None if last is None or not whole else _goes_on(a, b, last)
    if found.what == "epoch":
        rest, last = _first(a, b, ids=ids, epochs=False)
        if rest is None and last is not None and last.step > found.step + 1:
            return None  # the same steps, cut into other epochs
    return found


def begins_in(a: Training, b: Training, *, ids: bool = True) -> int | None:
    """The step of one training with which another begins, as a resumed one does.

    From there on all steps agree that both have, two at least. Or the first one does, on a batch
    that is known again, and is the only one of all: then the trainings part later.

    Args:
        a: The one.
        b: The other.
        ids: Whether fingerprints of batches may be compared.

    Returns:
        Steps of `a` before it; `None` where there is no such step.
    """
    first = next(_blocks(*b), None)
    if first is None or not np.isfinite(first["loss"][0]):
        return None
    done = 0
    places: list[int] = []
    for block in _blocks(*a):
        differs = _differences(block, _cut(first, slice(1)), ids)
        like = ~(differs["batch"] | differs["rows"] | differs["loss"])
        places += (done + np.flatnonzero(like)).tolist()
        done += len(like)
    only = ids and bool(first["batch_id"][0]) and len(places) == 1
    for place in [place for place in places if place][:_TRIED]:
        found, last = _first(a, b, ids=ids, epochs=False, starts=(place, 0))
        if only if found is not None else last is not None and last.step > 1:
            return place
    return None


def _first(
    a: Training, b: Training, *, ids: bool, epochs: bool, starts: tuple[int, int] = (0, 0)
) -> tuple[Parting | None, Parting | None]:
    """The first step that differs; else the last one that both have, before the next of either."""
    done = bits = 0
    last: tuple[dict[str, Any], dict[str, Any]] | None = None
    for ours, theirs in _side_by_side(_blocks(*a, start=starts[0]), _blocks(*b, start=starts[1])):
        differs = _differences(ours, theirs, ids)
        if not epochs:
            del differs["epoch"]
        found = np.flatnonzero(np.any(list(differs.values()), axis=0))
        end = int(found[0]) if len(found) else len(ours["loss"])
        bits += int(np.sum(~equal(ours["loss"][:end], theirs["loss"][:end])))
        if len(found):
            what = next(name for name, mask in differs.items() if mask[end])
            at = _at(ours, end), _at(theirs, end)
            longer = "a" if at[0]["place"] < at[1]["place"] else "b"
            longer = longer if what == "epoch" else ""
            return Parting(done + end, what, *at, bits, longer), None
        done += end
        last = _at(ours, -1), _at(theirs, -1)
    return None, None if last is None else Parting(done, "", *last, bits)


def _goes_on(a: Training, b: Training, last: Parting) -> Parting | None:
    """Where the one's epoch goes on and the other has no more steps."""
    for longer, training, before in (("a", a, last.a), ("b", b, last.b)):
        for block in _blocks(*training, start=last.step):
            at = _at(block, 0)
            if at["place"] != before["place"]:
                return None
            sides = {"a": last.a, "b": last.b, longer: at}
            return replace(last, what="epoch", longer=longer, **sides)
    return None


def _differences(a: Block, b: Block, ids: bool) -> dict[str, np.ndarray]:
    known = (a["batch_id"] != 0) & (b["batch_id"] != 0) & ids
    rates = np.isfinite(a["learning_rate"]) & np.isfinite(b["learning_rate"])
    return {
        "epoch": a["place"] != b["place"],
        "batch": known & (a["batch_id"] != b["batch_id"]) & (a["rows"] == b["rows"]),
        "rows": (a["rows"] != b["rows"]) & (a["rows"] != 0) & (b["rows"] != 0),
        "loss": ~alike(a["loss"].astype("f8"), b["loss"].astype("f8")),
        "learning_rate": rates & ~alike(a["learning_rate"], b["learning_rate"]),
        "updated": a["updated"] != b["updated"],
    }


def _at(block: Block, place: int) -> dict[str, Any]:
    return {name: column[place].item() for name, column in block.items()}


def _blocks(run: Run, calls: Sequence[Call], steps: int, *, start: int = 0) -> Iterator[Block]:
    """The columns from a step on, with `call`, and `place`: which epoch of the training, from 0."""
    place, last, done = -1, (-1, -1), 0
    for call, block in entries_of(run.path, calls, _COLUMNS):
        part = {name: column[:steps] for name, column in block.items()}
        count = len(part["loss"])
        steps -= count
        if count:
            begins = np.diff(part["epoch"], prepend=part["epoch"][0]) != 0
            begins[0] = (call.line, int(part["epoch"][0])) != last
            part["place"] = place + np.cumsum(begins)
            part["call"] = np.full(count, call.number)
            place, last = int(part["place"][-1]), (call.line, int(part["epoch"][-1]))
            if done + count > start:
                yield _cut(part, slice(max(start - done, 0), None))
            done += count
        if steps <= 0:
            return


def _side_by_side(a: Iterator[Block], b: Iterator[Block]) -> Iterator[tuple[Block, Block]]:
    """Both in pieces of one length, up to the end of the shorter."""
    ours, theirs = next(a, None), next(b, None)
    while ours is not None and theirs is not None:
        length = min(len(ours["loss"]), len(theirs["loss"]))
        yield _cut(ours, slice(length)), _cut(theirs, slice(length))
        ours = _left(ours, length) or next(a, None)
        theirs = _left(theirs, length) or next(b, None)


def _cut(block: Block, part: slice) -> Block:
    return {name: column[part] for name, column in block.items()}


def _left(block: Block, length: int) -> Block | None:
    return _cut(block, slice(length, None)) if len(block["loss"]) > length else None


def first_nonfinite(run: Run, calls: Sequence[Call], steps: int) -> dict[str, Any] | None:
    """The entry of a training's first loss that is not finite; `None` where all are."""
    for block in _blocks(run, calls, steps):
        bad = np.flatnonzero(~np.isfinite(block["loss"]))
        if len(bad):
            return _at(block, int(bad[0]))
    return None


def first_step(run: Run, calls: Sequence[Call], steps: int) -> dict[str, Any] | None:
    """The entry of a training's first step; `None` where it has none."""
    block = next(_blocks(run, calls, min(steps, 1)), None)
    return None if block is None else _at(block, 0)


def epoch_column(run: Run, calls: Sequence[Call], at: Mapping[str, Any], name: str) -> np.ndarray:
    """A column of the epoch that an entry is of, (steps,); of `batch_id`, uint64."""
    (call,) = [each for each in calls if each.number == at["call"]]
    parts: Sequence[np.ndarray] = [
        block[name][block["epoch"] == at["epoch"]]
        for _, block in entries_of(run.path, [call], ["epoch", name])
    ]
    return np.concatenate(parts) if parts else np.empty(0, np.uint64)


def training_ids(run: Run, calls: Sequence[Call], steps: int) -> np.ndarray:
    """The fingerprints of the batches of a training's first steps, uint64 (steps,)."""
    parts = [block["batch_id"] for _, block in entries_of(run.path, calls, ["batch_id"])]
    return np.concatenate([*parts, np.empty(0, np.uint64)])[:steps]


def last_unequal(run: Run, calls: Sequence[Call], steps: int) -> tuple[int, tuple[int, ...]] | None:
    """The last step, of some of a training, that its replicas shared unequally.

    Args:
        run: The run.
        calls: Calls of it that are one training.
        steps: How many of its steps to look at.

    Returns:
        Its place in the training and each replica's rows; `None` where all shares were equal.
    """
    numbers = [call.number for call in calls]
    before = dict(zip(numbers, np.cumsum([0, *(call.steps for call in calls)]), strict=False))
    places = dict.fromkeys(numbers, 0)
    found: tuple[int, tuple[int, ...]] | None = None
    for block in shares.scan(run.path, ["step", "call", "rows"], shares=True):
        for call, part in split(block):
            if call not in before:
                continue
            begins = steps_begin(part)
            least, most = (each.reduceat(part["rows"], begins) for each in (np.minimum, np.maximum))
            place = before[call] + places[call] + np.arange(len(begins))
            places[call] += len(begins)
            unequal = np.flatnonzero((least != most) & (place < steps))
            if len(unequal):
                last = unequal[-1]
                rows = np.split(part["rows"], begins[1:])[last]
                found = max(found or (-1, ()), (int(place[last]), tuple(rows.tolist())))
    return found
