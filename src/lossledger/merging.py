"""The rows of a run's shares merged: those of a step side by side, each step in one block.

A call's steps ascend in each share, but its rows may lie in other blocks there than elsewhere, and
one share may be far ahead of another. A step is given when every share that is still read has gone
beyond it in its call.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from lossledger.vectors import Mask, joined

__all__ = ["WORKER", "Rows", "merged", "steps_begin"]

WORKER = "worker"

Rows = dict[str, np.ndarray]


def merged(shares: Mapping[int, Iterator[Rows]]) -> Iterator[Rows]:
    """Blocks of the rows of all shares, call by call, the steps of a call ascending.

    The share that is furthest behind is read on. Memory holds what the others are ahead.

    Args:
        shares: By worker, its rows block by block: the same columns in all, `call` and `step` among
            them.

    Yields:
        The columns, and `worker`; the rows of a step lie worker by worker.
    """
    reading = dict(shares)
    reached = dict.fromkeys(reading, -1)
    ends: dict[int, dict[int, int]] = {worker: {} for worker in reading}
    waiting: list[_Part] = []
    while reading:
        worker = min(reading, key=lambda each: reached[each])
        rows = next(reading[worker], None)
        if rows is None:
            del reading[worker]
        elif len(rows["step"]):
            part = _Part(rows | {WORKER: np.full(len(rows["step"]), worker, "i4")})
            ends[worker] |= part.ends()
            reached[worker] = max(reached[worker], int(rows["step"].max()))
            waiting.append(part)
        ready, waiting = _parted(waiting, [ends[each] for each in reading])
        if ready:
            yield _in_order(ready)


@dataclass
class _Part:
    """Some rows of one share, with the calls that they are of."""

    rows: Rows
    calls: list[int] = field(init=False)
    place: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        calls, self.place = np.unique(self.rows["call"], return_inverse=True)
        self.calls = calls.tolist()

    def ends(self) -> dict[int, int]:
        """The last step of each call."""
        last = np.zeros(len(self.calls), np.int64)
        np.maximum.at(last, self.place, self.rows["step"])
        return dict(zip(self.calls, last.tolist(), strict=True))

    def whole(self, ends: Sequence[Mapping[int, int]]) -> Mask:
        """Which rows are of steps that no share adds to: its last step may go on in a next block.

        Args:
            ends: Of each share that is still read, the last step read of each call.
        """
        if not ends:
            return np.ones(len(self.place), bool)
        limits = [min(each.get(call, -1) for each in ends) for call in self.calls]
        return self.rows["step"] < np.array(limits)[self.place]


def _parted(
    parts: Sequence[_Part], ends: Sequence[Mapping[int, int]]
) -> tuple[list[Rows], list[_Part]]:
    """The rows of whole steps, and the others."""
    ready: list[Rows] = []
    waiting: list[_Part] = []
    for part in parts:
        whole = part.whole(ends)
        if whole.all():
            ready.append(part.rows)
        elif whole.any():
            ready.append({name: values[whole] for name, values in part.rows.items()})
            waiting.append(_Part({name: values[~whole] for name, values in part.rows.items()}))
        else:
            waiting.append(part)
    return ready, waiting


def _in_order(parts: Sequence[Rows]) -> Rows:
    rows = joined(parts)
    order = np.lexsort((rows[WORKER], rows["step"], rows["call"]))
    return {name: values[order] for name, values in rows.items()}


def steps_begin(rows: Mapping[str, np.ndarray], of: Sequence[str] = ("call", "step")) -> np.ndarray:
    """Where the rows of each step begin, in rows that lie side by side.

    Args:
        rows: The columns.
        of: Names of columns: where any of them changes, another begins.
    """
    begins = np.ones(len(rows["step"]), bool)
    begins[1:] = np.logical_or.reduce([np.diff(rows[name]) != 0 for name in of])
    return np.flatnonzero(begins)
