"""Folds of a run's calls over their entries, read block by block: memory stays bounded."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from lossledger.call import Call, entries_of
from lossledger.series import bounds
from lossledger.statement import Block, EpochStatement, Statements, Windows
from lossledger.statistics import Statistic
from lossledger.vectors import Floats, Mask

Choose: TypeAlias = Callable[[np.ndarray], Mask]
"""Which of some epochs, in order, are meant."""


def statements(path: Path, calls: Sequence[Call]) -> dict[int, list[EpochStatement]]:
    """A statement for each epoch of some calls, by call, in one pass over the entries.

    Where a run was resumed in the middle of an epoch, two calls of a line have its steps, and the
    later one has the statement.
    """
    stated: dict[int, list[EpochStatement]] = {call.number: [] for call in calls}
    left = dict.fromkeys((call.line for call in calls), 0)
    for call in calls:
        left[call.line] += call.steps
    folds = {line: Statements() for line in left}
    begins: dict[int, list[tuple[int, int]]] = {line: [] for line in left}
    for call, block in entries_of(path, calls, ["epoch", "loss", "weight", "rows"]):
        line, epochs = call.line, block["epoch"]
        left[line] -= len(epochs)
        if not begins[line] or begins[line][-1][1] != call.number:
            begins[line].append((int(epochs[0]), call.number))
        found = folds[line].feed(block)
        if not left[line]:  # what it holds goes with it: a run may have thousands of calls
            found += folds.pop(line).rest()
        for each in found:
            stated[_ended(begins[line], each.epoch)].append(each)
    return stated


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
            values = values[np.isin(of, np.array(sorted(chosen), np.int64))]
        parts.append(values)
    return np.concatenate(parts)


def _labelled(path: Path, calls: Sequence[Call], columns: Sequence[str]) -> Iterator[Block]:
    """The calls' entries, of which `epoch` also tells the line: line << 32 | epoch."""
    for call, block in entries_of(path, calls, ["epoch", *columns]):
        yield {**block, "epoch": (call.line << 32) + block["epoch"].astype(np.int64)}


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
            mine = np.isin(block["epoch"], kept)
            if not mine.any():
                continue
            block = {name: column[mine] for name, column in block.items()}
        if whole:
            blocks.append(block)
        else:
            yield from (window for window, _ in windows.feed(block))
    if blocks:
        yield {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
    yield from (window for window, _ in windows.rest())
