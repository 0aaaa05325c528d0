"""The steps of a loop on their way to the recorder: rows in windows on the device."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from lossledger.keras.buffer import Buffer
from lossledger.loop.chunk import CAPACITY, Chunk, Window
from lossledger.loop.hashes import Hashes

WAITING = 2**16
"""Steps of a loop that may wait to be collected: a quick one makes them in half a second."""

NUMBERS = 2**23
"""Numbers of rows that may be kept for them, about."""


class Piece(NamedTuple):
    """Steps that lie together: in a window and, if the host has their rows' hashes, in `order`."""

    window: Window
    first: int
    count: int
    hashes: Hashes | None
    order: Any
    start: int

    def goes_on_in(self, other: "Piece") -> bool:
        """Whether the steps of `other` are the next ones, where these lie."""
        together = self.window is other.window and self.order is other.order
        return together and (self.order is None or self.start + self.count == other.start)


class WindowBuffer(Buffer):
    """The steps of a loop: their rows lie in windows, which the loop reads too.

    Args:
        copy: Copies an array on the device.
        to_numpy: Reads one.
    """

    def __init__(
        self, copy: Callable[[Any], Any], to_numpy: Callable[[Any], np.ndarray] = np.asarray
    ) -> None:
        super().__init__()
        self.backlog = WAITING
        self._copy = copy
        self._to_numpy = to_numpy
        self._pieces: list[Piece] = []

    def keep(self, window: Window, chunk: Chunk, start: int, count: int) -> None:
        """The window's last `count` rows are of steps that have just returned.

        Args:
            window: The window.
            chunk: The steps' batches.
            start: Which of its batches was the first.
            count: How many steps.
        """
        order = None if chunk.hashes is None else chunk.order
        piece = Piece(window, window.filled - count, count, chunk.hashes, order, start)
        last = self._pieces[-1] if self._pieces else None
        if last is not None and last.goes_on_in(piece):
            self._pieces[-1] = last._replace(count=last.count + piece.count)
        else:
            self._pieces.append(piece)
            self.backlog = min(WAITING, max(CAPACITY, NUMBERS // max(1, chunk.rows)))
        self.executed_many(count)

    def take(self, count: int) -> Any:
        """See base class; a window that may be filled further is copied on the device."""
        del count
        pieces, self._pieces = self._pieces, []
        windows = {id(piece.window): piece.window for piece in pieces}
        values = {
            key: window.values if window.full else self._copy(window.values)
            for key, window in windows.items()
        }
        return [(values[id(piece.window)], piece) for piece in pieces]

    def parts(self, handle: Any) -> list[np.ndarray]:
        """The steps behind `handle`, as they lie in their windows."""
        arrays = {id(values): self._to_numpy(values) for values, _ in handle}
        return [arrays[id(values)][piece.first :][: piece.count] for values, piece in handle]

    def fetch(self, handle: Any) -> tuple[np.ndarray, Any]:
        """See base class; fingerprints that the steps have not taken are the last columns."""
        rows = np.concatenate([np.zeros((0, len(self.columns)), "f4"), *self.parts(handle)])
        end = 0
        for _, piece in handle:
            begin, end = end, end + piece.count
            if piece.hashes is not None:
                numbers = self._to_numpy(piece.order)[piece.start :][: piece.count]
                rows[begin:end, -2:] = piece.hashes.of_batches(numbers)
        return rows, np.arange(len(rows))
