"""Arrays that are on the device, whole; an epoch's batches are picked there."""

from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np

from lossledger.loop.chunk import Chunk
from lossledger.loop.hashes import Hashes
from lossledger.loop.order import Order


class Resident:
    """Batches of arrays that are on the device, picked there by the numbers of their rows.

    Args:
        data: The arrays on the device.
        arrays: The same on the host, as the user gave them.
        order: Draws the epochs' orders.
        engine: The engine that will train on them.
        steps: Batches of an epoch.
    """

    def __init__(self, data: Any, arrays: Any, order: Order, engine: Any, steps: int) -> None:
        self._data = data
        self.arrays = arrays
        self.order = order
        self.engine = engine
        self.steps = steps
        self.partial = order.partial
        self._hashes = Hashes.of(data, engine.host) if engine.full and engine.hashes_apart else None
        self._orders: list[tuple[Any, int]] | None = None
        self._left: list[tuple[Any, int, int]] = []
        self._drawn: Iterator[np.ndarray] = iter(())

    def begin(self) -> None:
        """Begin an epoch: draw its order."""
        self._left = []
        if self.order.lazy:
            self._drawn = self.order.blocks()
            return
        if self._orders is None or not self.order.fixed:
            put = self.engine.put_order
            self._orders = [(put(block), len(block)) for block in self.order.blocks()]
        self._left = [(order, 0, count) for order, count in self._orders]

    def take(self, most: int, **_: Any) -> Chunk | None:
        """The next batches, `most` at most, all of the same size; `None` at the epoch's end."""
        numbers = None if self._left else next(self._drawn, None)
        if numbers is not None:
            self._left = [(self.engine.put_order(numbers), 0, len(numbers))]
        if not self._left:
            return None
        order, start, count = self._left[0]
        taken = min(most, count - start)
        if start + taken == count:
            self._left.pop(0)
        else:
            self._left[0] = (order, start + taken, count)
        return Chunk(self._data, order, start, taken, int(order.shape[1]), self._hashes)

    def left(self, chunk: Chunk) -> tuple[Iterator[np.ndarray], int]:
        """Gives the device's memory back.

        Returns:
            The numbers of an epoch's rows from `chunk` on, and how many batches there are of them.
        """
        if self._left and self._left[0][0] is chunk.order:
            self._left.pop(0)
        orders = [(chunk.order, chunk.start), *((order, start) for order, start, _ in self._left)]
        if self._hashes is not None:
            self._hashes.settle()
        self._data, self._left, self._orders = None, [], None
        blocks = [self.engine.host(order)[start:] for order, start in orders]
        return chain(blocks, self._drawn), sum(map(len, blocks))

    def end(self) -> None:
        """End an epoch."""
        self.order.end(whole=not self._left and not self.order.lazy)

    def close(self) -> None:
        """The training has ended."""
