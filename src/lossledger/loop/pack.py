"""Batches put together into chunks, so that one call to the device can train on all of them.

A chunk's arrays have a fixed size, whatever it holds: for another one a loop is compiled anew.
"""

from typing import Any

import numpy as np
from keras import tree

from lossledger.loop.chunk import CAPACITY, Chunk

DEPTH = 32
"""Batches of a chunk at most, where reading one may be felt elsewhere."""

BYTES = 2**26
"""Bytes of a chunk at most, but for a single batch that is larger."""


class Packer:
    """Puts batches of the same shape together.

    Args:
        engine: The engine that will train on them.
        memory: Bytes of data that may be alive at once, about: four chunks.
        steps: Batches of an epoch, where it is known.
    """

    def __init__(self, engine: Any, memory: int, steps: int | None) -> None:
        self.engine = engine
        self.stacked = True
        self.alone = False
        self._bytes = min(BYTES, memory // 4)
        self._most = min(DEPTH, steps or DEPTH)
        self._depth = 1
        self._like: Any = None
        self._order: Any = None
        self._single: list[Chunk] = []
        self._stack: list[np.ndarray | None] = []
        self._rows = self._count = 0

    @property
    def full(self) -> bool:
        """Whether nothing more can be added."""
        return self._count >= self._depth

    def add(self, batch: Any) -> bool:
        """Add a batch; returns whether it goes with what is there, which else is to be taken."""
        chunk = self.engine.batch(batch)
        leaves = self._leaves(chunk)
        together = self.stacked and not self.alone and self._depth > 1 and leaves is not None
        if self._single if together else self._stack:
            return False
        self._count += 1
        if leaves is None or not together:
            self._single.append(chunk)
            return True
        if not self._stack:
            self._rows, self._stack = chunk.rows, [_room(leaf, self._depth) for leaf in leaves]
        place = slice((self._count - 1) * self._rows, self._count * self._rows)
        for room, leaf in zip(self._stack, leaves, strict=True):
            if room is not None:
                room[place] = leaf
        return True

    def take(self) -> list[Chunk]:
        """What was added, as one chunk, or as a chunk each."""
        chunks, stack, count = self._single, self._stack, self._count
        self._single, self._stack, self._count = [], [], 0
        if not stack:
            return chunks
        if self._order is None:
            self._order = _consecutive(self.engine, self._depth, self._rows)
        data = self.engine.put(tree.pack_sequence_as(self._like[0], stack))
        return [Chunk(data, self._order, 0, count, self._rows)]

    def _leaves(self, chunk: Chunk) -> list[np.ndarray | None] | None:
        """A batch's arrays on the host, where they can be put beside those of the first."""
        flat = tree.flatten(chunk.data)
        leaves = [None if each is None else self.engine.host(each) for each in flat]
        shapes = [None if each is None else (each.shape, each.dtype) for each in leaves]
        if self._like is None:
            self._like = (chunk.data, shapes)
            size = sum(each.nbytes for each in leaves if each is not None)
            self._depth = max(1, min(self._most, self._bytes // max(size, 1)))
        if chunk.rows == 0 or shapes != self._like[1]:
            return None
        for here, leaf in zip(flat, leaves, strict=True):
            if here is not None and (leaf is None or leaf.shape[:1] != (chunk.rows,)):
                return None
        return leaves


class Gatherer:
    """Gathers the rows of several batches at once, from arrays on the host.

    Args:
        engine: The engine that will train on them.
        memory: Bytes of data that may be alive at once, about: four chunks.
        gather: Gives the rows of the numbers that it gets.
        width: Bytes of a row.
        rows: Rows of a batch.
        steps: Batches of an epoch.
    """

    def __init__(
        self, engine: Any, memory: int, gather: Any, width: int, rows: int, steps: int
    ) -> None:
        self.engine = engine
        self.stacked = True
        self.alone = False
        self._gather = gather
        self._rows = rows
        fitting = min(BYTES, memory // 4) // max(1, width * rows)
        self._depth = max(1, min(CAPACITY, fitting, steps))
        self._order: Any = None
        self._numbers: list[np.ndarray] = []

    @property
    def full(self) -> bool:
        """See `Packer`."""
        return len(self._numbers) >= self._depth

    def add(self, batch: Any) -> bool:
        """See `Packer`; a batch is the numbers of its rows."""
        if self._numbers and len(batch) != len(self._numbers[0]):
            return False
        self._numbers.append(batch)
        return True

    def take(self) -> list[Chunk]:
        """See `Packer`."""
        numbers, self._numbers = self._numbers, []
        together = self.stacked and not self.alone and self._depth > 1
        if not together or not numbers or len(numbers[0]) != self._rows:
            return [self.engine.batch(self.engine.put(self._gather(each))) for each in numbers]
        if self._order is None:
            self._order = _consecutive(self.engine, self._depth, self._rows)
        # What is missing is filled up with the first row, which no batch takes.
        rows = np.zeros((self._depth, self._rows), numbers[0].dtype)
        rows[: len(numbers)] = numbers
        data = self.engine.put(self._gather(rows.reshape(-1)))
        return [Chunk(data, self._order, 0, len(numbers), self._rows)]


def _consecutive(engine: Any, depth: int, rows: int) -> Any:
    numbers = np.arange(depth * rows, dtype=engine.order_dtype)
    return engine.put_order(numbers.reshape(depth, rows))


def _room(leaf: np.ndarray | None, depth: int) -> np.ndarray | None:
    return None if leaf is None else np.zeros((depth * leaf.shape[0], *leaf.shape[1:]), leaf.dtype)
