"""How far a line of calls had come when the weights were saved that a resumed call begins with.

A line is a list of calls, the first one first, of which each goes on where the one before ends; how
far it has come is a number of its entries that count. What tells it, the surest first: the weights
themselves, the optimizer's count of its updates, the batches that come next.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from lossledger import shares
from lossledger.entry import OF_EPOCHS
from lossledger.vectors import Ids, Integers

LOOKED_AT = 2**20
"""Steps at the end of the line and the start of the call whose batches are compared."""

_TRIED = 4096


@dataclass
class Stretch:
    """Entries of one epoch that lie side by side in a call.

    Args:
        epoch: The epoch.
        place: Entries of the call before them.
        step: The step of the first of them.
    """

    epoch: int
    place: int
    step: int


@dataclass
class Told:
    """What the entries and the record of a call tell, as far as they tell where it belongs.

    Args:
        number: The call's number.
        model: Its model's.
        steps: How many entries it has.
        info: What is on record of it.
        kept: How many of its entries count.
        reported: The epochs whose end was reported.
        stretches: Its entries, epoch by epoch.
        continues: The number of the call that it goes on from.
    """

    number: int
    model: int
    steps: int
    info: Mapping[str, Any]
    kept: int
    reported: Collection[int] = ()
    stretches: list[Stretch] = field(default_factory=list[Stretch])
    continues: int | None = None

    @property
    def driver(self) -> Any:
        """Who turned the crank."""
        return self.info.get("driver")

    @property
    def counts_epochs(self) -> bool:
        """Whether its driver does: none of them begins in the middle of an epoch."""
        return self.driver in OF_EPOCHS

    @property
    def cut_short(self) -> bool:
        """Whether it never came to its end."""
        return "ended" not in self.info or "failed" in self.info

    @property
    def began_with(self) -> Any:
        """The fingerprint of its initial weights; `None` where they aren't known."""
        return self.info.get("initial_weights")

    @property
    def saved(self) -> Sequence[tuple[int, str]]:
        """After how many of its steps Keras saved the model, and its weights' fingerprints."""
        return self.info.get("saved", ())

    @property
    def updates(self) -> int | None:
        """Updates that the model's optimizer had made before it; `None` where they aren't steps.

        A step of Keras's own makes one. But a loss that is scaled may make none, and at the end of
        a stream TensorFlow counts a step that found no data.
        """
        about = self.info.get("configuration") or {}
        if about.get("custom_train_step") or about.get("loss_scaling"):
            return None
        arguments = self.info.get("arguments")
        data = arguments.get("x") if isinstance(arguments, Mapping) else None
        if self.counts_epochs and not isinstance(data, Mapping):
            return None
        state = (self.info.get("initial_optimizers") or {}).get("optimizer")
        return None if state is None else int(state["iterations"])


Line: TypeAlias = Sequence[Told]


def line_to(call: Told, calls: Sequence[Told]) -> list[Told]:
    """The line that ends with a call, of the calls before the next one."""
    line, by_number = [call], {each.number: each for each in calls}
    while (number := line[0].continues) is not None and number in by_number:
        line.insert(0, by_number[number])
    return line


def length(line: Line) -> int:
    """How many entries of a line count."""
    return sum(each.kept for each in line)


def by_weights(calls: Sequence[Told], call: Told) -> tuple[Told, int] | None:
    """The call before in which a call's first weights were, and after how many entries."""
    began = call.began_with
    if not began:
        return None
    for each in reversed(calls):
        if each.info.get("final_weights") == began and each.kept == each.steps:
            return each, each.kept
        for steps, weights in reversed(each.saved):
            if weights == began and steps <= each.kept:
                return each, steps
        if each.began_with == began:
            return each, 0
    return None


def by_updates(line: Line, call: Told) -> int | None:
    """How far the line had come, by the optimizer; it may be further than what was written."""
    now = call.updates
    before = length(line)
    for each in reversed(line):
        before -= each.kept
        first = each.updates
        if now is None or first is None:
            return None
        if now > first:
            return before + now - first
    return None  # one that was made anew has counted nothing


def by_batches(folder: Path, line: Line, call: Told) -> int | None:
    """The last place of a line from which on its batches are those that a call begins with."""
    new = ids_of(folder, call, 0, min(call.steps, LOOKED_AT))[0]
    parts: list[Ids] = []
    for each in reversed(line):
        parts.insert(0, ids_of(folder, each, max(0, each.kept - LOOKED_AT), each.kept)[0])
        if each.kept > LOOKED_AT:
            break  # what lies before is not looked at
    old = np.concatenate(parts)
    if not old.all() or not new.all():
        return None
    for place in np.flatnonzero(old == new[0])[::-1][:_TRIED].tolist():
        count = min(len(new), len(old) - place)
        if np.array_equal(old[place : place + count], new[:count]):
            return length(line) - len(old) + place
    return None


def ids_of(folder: Path, call: Told, begin: int, end: int) -> tuple[Ids, Integers]:
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
