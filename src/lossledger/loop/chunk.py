"""What passes between a loop's parts: a chunk of batches in, a window of rows out."""

from typing import Any, NamedTuple

from lossledger.loop.hashes import Hashes

CAPACITY = 1024
"""Steps whose rows one window holds."""


class Chunk(NamedTuple):
    """Batches that are ready to be trained on, all of the same shape.

    Args:
        data: A structure of arrays on the device, as `train_step` takes it. Their first axis is
            that of the rows which `order` picks from; without an `order`, it is one batch.
        order: int32 array of shape `(batches, rows)` on the device, or `None`.
        start: The first batch to take.
        count: How many batches to take.
        rows: Rows of each batch.
        hashes: The hashes of all rows of `data`, where a step need not take those of its batch.
    """

    data: Any
    order: Any
    start: int
    count: int
    rows: int
    hashes: Hashes | None = None


class Window:
    """Rows of consecutive steps, on the device.

    Args:
        values: float32 of shape `(capacity, columns)`, or the backend's own container of rows.
        capacity: Steps that fit in.
    """

    __slots__ = ("capacity", "filled", "values")

    def __init__(self, values: Any, capacity: int) -> None:
        self.values = values
        self.capacity = capacity
        self.filled = 0

    @property
    def full(self) -> bool:
        """Whether its values stay as they are: there is no space left."""
        return self.filled >= self.capacity

    def close(self) -> None:
        """Leave no space: the epoch is over."""
        self.capacity = self.filled
