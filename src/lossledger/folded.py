"""Folds of a run's calls over their entries, read block by block: memory stays bounded."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from lossledger.call import Call, entries_of
from lossledger.series import bounds
from lossledger.statement import WINDOW, Block, EpochStatement, Statements, Windows, states
from lossledger.statistics import Statistic
from lossledger.vectors import Floats, Integers, Mask, among, joined

Choose: TypeAlias = Callable[[np.ndarray], Mask]
"""Which of some epochs, in order, are meant."""

SHORT = 4096
"""Steps of a call to which what NumPy takes to begin is more than what it takes for a step."""


def statements(path: Path, calls: Sequence[Call]) -> dict[int, list[EpochStatement]]:
    """A statement for each epoch of some calls, by call, in one pass over the entries.

    Where a run was resumed in the middle of an epoch, two calls of a line have its steps, and the
    later one has the statement.
    """
    stated: dict[int, list[EpochStatement]] = {call.number: [] for call in calls}
    left = dict.fromkeys((call.line for call in calls), 0)
    for call in calls:
        left[call.line] += call.steps
    short = _Short()
    folds: dict[int, Statements] = {}
    begins: dict[int, list[tuple[int, int]]] = {line: [] for line in left}
    for call, block in entries_of(path, calls, ["epoch", "loss", "weight", "rows"]):
        line, epochs = call.line, block["epoch"]
        if not call.before and call.steps == left[line] <= SHORT:
            short.add(call, block)
            continue
        left[line] -= len(epochs)
        if not begins[line] or begins[line][-1][1] != call.number:
            begins[line].append((int(epochs[0]), call.number))
        found = folds.setdefault(line, Statements()).feed(block)
        if not left[line]:  # what it holds goes with it: a run may have thousands of calls
            found += folds.pop(line).rest()
        for each in found:
            stated[_ended(begins[line], each.epoch)].append(each)
    return stated | short.stated()


class _Short:
    """Calls of few steps, each a line of its own: many are stated at once, as each costs."""

    def __init__(self) -> None:
        self._open: dict[int, list[Block]] = {}
        self._whole: list[Block] = []
        self._rows = 0
        self._stated: dict[int, list[EpochStatement]] = {}

    def add(self, call: Call, block: Block) -> None:
        """Takes the next of a call's entries."""
        parts = self._open.setdefault(call.number, [])
        parts.append({**block, "epoch": _of_line(call.number, block["epoch"])})
        if sum(len(part["epoch"]) for part in parts) == call.steps:
            self._whole += self._open.pop(call.number)
            self._rows += call.steps
            if self._rows >= WINDOW:
                self.stated()

    def stated(self) -> dict[int, list[EpochStatement]]:
        """The statements of each call that was taken whole."""
        if self._whole:
            for each in states(joined(self._whole)):
                call, epoch = each.epoch >> 32, each.epoch & (2**32 - 1)
                self._stated.setdefault(call, []).append(replace(each, epoch=epoch))
            self._whole, self._rows = [], 0
        return self._stated


def _of_line(line: int, epoch: np.ndarray) -> Integers:
    """Numbers of epochs that also tell their line, or call: line << 32 | epoch."""
    return (line << 32) + epoch.astype(np.int64)


def _ended(begins: Sequence[tuple[int, int]], epoch: int) -> int:
    """The call in which an epoch ends: the last of a line that begins no later."""
    return next((number for first, number in reversed(begins) if first <= epoch), begins[0][1])


def series(
    path: Path,
    calls: Sequence[Call],
    statistic: Statistic,
    parameters: Mapping[str, Any],
    choose: Choose | None,
) -> Floats:
    """A statistic of some calls, one after another.

    In memory are the answer and an epoch, and what lies before where the statistic looks back.

    Args:
        path: The run's folder.
        calls: The calls.
        statistic: The statistic.
        parameters: Those of it.
        choose: Which epochs are meant; all by default.
    """
    chosen: set[int] | None = None
    if choose is not None:
        labels = _labels(path, calls)
        epochs = np.array([label & (2**32 - 1) for label in labels], np.int64)
        chosen = {labels[place] for place in np.flatnonzero(choose(epochs)).tolist()}
    looks_back = statistic.looks_back(parameters)
    none = np.empty(0, np.int64)
    parts = [statistic(none, none, none, **parameters)]  # refuses what it doesn't take
    for window in _windows(path, calls, None if looks_back else chosen, whole=looks_back):
        label = window["epoch"]
        begins, ends = bounds(label)
        groups = np.repeat(np.arange(len(begins)), ends - begins + 1)
        values = statistic(window["loss"].astype("f8"), window["weight"], groups, **parameters)
        if looks_back and chosen is not None:
            of = label[begins] if statistic.per == "epoch" else label
            values = values[among(of, np.array(sorted(chosen), np.int64))]
        parts.append(values)
    return np.concatenate(parts)


def _labelled(path: Path, calls: Sequence[Call], columns: Sequence[str]) -> Iterator[Block]:
    """The calls' entries, of which `epoch` also tells the line."""
    for call, block in entries_of(path, calls, ["epoch", *columns]):
        yield {**block, "epoch": _of_line(call.line, block["epoch"])}


def _labels(path: Path, calls: Sequence[Call]) -> list[int]:
    """The epochs that there are, in order."""
    found: dict[int, None] = {}
    for block in _labelled(path, calls, ()):
        found |= dict.fromkeys(block["epoch"][bounds(block["epoch"])[0]].tolist())
    return list(found)


def _windows(
    path: Path, calls: Sequence[Call], chosen: set[int] | None, *, whole: bool
) -> Iterator[Block]:
    """Windows of whole epochs of those chosen; all in one, where `whole`."""
    kept = None if chosen is None else np.array(sorted(chosen), np.int64)
    windows, blocks = Windows(limit=None), list[Block]()
    for block in _labelled(path, calls, ("loss", "weight")):
        if kept is not None:
            mine = among(block["epoch"], kept)
            if not mine.any():
                continue
            block = {name: column[mine] for name, column in block.items()}
        if whole:
            blocks.append(block)
        else:
            yield from (window for window, _ in windows.feed(block))
    if blocks:
        yield joined(blocks)
    yield from (window for window, _ in windows.rest())
