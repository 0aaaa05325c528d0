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
from lossledger.entry import OF_EPOCHS, dtype_of
from lossledger.vectors import Ids, Mask

LOOKED_AT = 2**20
"""Steps at the end of the line and the start of the call whose batches are compared."""

_TRIED = 4096
_NEAR = 1e-5
"""How much a loss may differ, of itself, that the same weights give of the same batch."""


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

    @property
    def draws(self) -> bool:
        """Whether its model may draw random numbers, so that no loss comes again; or not known."""
        layers = (self.info.get("configuration") or {}).get("layers")
        if not isinstance(layers, list) or not layers:
            return True
        return any(isinstance(each, Mapping) and draws(each) for each in layers)


def draws(layer: Mapping[str, Any]) -> bool:
    """Whether a layer acts otherwise in training, and doesn't normalize: it draws at random."""
    return bool(layer.get("training")) and "momentum" not in layer


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


def other_data(folder: Path, before: Told, call: Told) -> bool:
    """Whether two calls are known to begin with different batches."""
    ids = [int(window(folder, each, 0, 1, "batch_id")[0][0]) for each in (before, call)]
    return all(ids) and ids[0] != ids[1]


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


def by_batches(folder: Path, line: Line, call: Told) -> tuple[int | None, bool]:
    """A place of a line from which on its batches are those that a call begins with.

    Epochs in one order have many. From the same weights the same batches have the same losses, to
    the last bit or nearly; so these choose among them.

    Returns:
        The place, the last one of several; `None` where none fits. Where no losses agree it is one
        that only the batches fit, but `None` if nothing in the model draws random numbers, or if
        they would go on so behind the line's end, too. And whether it is a guess: there are
        several, or no losses that agree.
    """
    new, losses = window(folder, call, 0, min(call.steps, LOOKED_AT), "batch_id", "loss")
    parts: list[list[np.ndarray]] = []
    for each in reversed(line):
        begin = max(0, each.kept - LOOKED_AT)
        parts.insert(0, window(folder, each, begin, each.kept, "batch_id", "loss"))
        if begin:
            break  # what lies before is not looked at
    old, earlier = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    if not old.all() or not new.all():
        return None, False
    fits = [place for place in _last(old == new[0]) if _same(old[place:], new)]
    near = [place for place in fits if np.isclose(earlier[place], losses[0], _NEAR, 0)]
    equal = [place for place in near if _same(earlier[place:], losses)]
    found = equal or near
    if not found and call.draws and not _goes_round(old, new[0]):
        found = fits
    if not found:
        return None, False
    return length(line) - len(old) + found[0], found is fits or len(found) > 1


def _last(places: Mask) -> list[int]:
    """The last places that are meant, the very last one first."""
    return np.flatnonzero(places)[::-1][:_TRIED].tolist()


def _same(old: np.ndarray, new: np.ndarray) -> bool:
    """Whether two series agree as far as both go."""
    count = min(len(old), len(new))
    return np.array_equal(old[:count], new[:count])


def _goes_round(ids: Ids, following: np.uint64) -> bool:
    """Whether a batch comes next in a series of epochs in one order."""
    before = _last(ids[:-1] == ids[-1])
    return ids[before[0] + 1 if before else 0] == following


def window(folder: Path, call: Told, begin: int, end: int, *names: str) -> list[np.ndarray]:
    """Columns of a call's entries, from one place to another."""
    parts: list[list[np.ndarray]] = [[np.empty(0, dtype_of(name)) for name in names]]
    done = 0
    for block in shares.scan(folder, ["call", *names]):
        mine = block["call"] == call.number
        count = int(mine.sum())
        part = slice(max(begin - done, 0), max(end - done, 0))
        if part.start < min(part.stop, count):
            parts.append([block[name][mine][part].copy() for name in names])
        done += count
    return [np.concatenate(columns) for columns in zip(*parts, strict=True)]
