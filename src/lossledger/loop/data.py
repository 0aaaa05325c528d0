"""Where a loop's batches come from: the same ones, in the same order, as `fit` would take."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras.src.trainers.data_adapters.array_data_adapter import ArrayDataAdapter
from keras.src.trainers.epoch_iterator import EpochIterator

from lossledger.loop.ahead import LEAVING, Ahead, InTurn
from lossledger.loop.arrays import converted, gatherer, size_of
from lossledger.loop.batches import batches, distributed, epoch_iterator
from lossledger.loop.chunk import Chunk
from lossledger.loop.order import Order
from lossledger.loop.pack import Gatherer, Packer
from lossledger.loop.resident import Resident
from lossledger.recorder.trouble import Trouble

MEMORY = 2**30
"""Bytes of data that are on the device at once: arrays that are larger come in chunks."""


class Stream:
    """Batches one by one, or in chunks read ahead, from anything that `fit` takes.

    Args:
        iterator: Keras's iterator over the epochs of the data.
        engine: The engine that will train on them.
        memory: Bytes of data that may be alive at once.
    """

    partial = True
    """Whether batches may differ in their number of rows."""

    def __init__(self, iterator: Any, engine: Any, memory: int) -> None:
        self._iterator = iterator
        self._memory = memory
        self._packer: Any = None
        self._batches: Iterator[Any] = iter(())
        self._ahead: Ahead | InTurn | None = None
        self._taken: list[Chunk] = []
        self._count, self._ended = 0, False
        self.engine = engine

    @property
    def engine(self) -> Any:
        """The engine that will train on the batches."""
        return self._engine

    @engine.setter
    def engine(self, engine: Any) -> None:
        self._engine = engine
        self._packer = None
        engine.know(self._iterator)

    @property
    def steps(self) -> int | None:
        """Batches of an epoch, as far as it is known."""
        return self._iterator.num_batches

    def begin(self) -> None:
        """Begin an epoch."""
        self._count, self._ended = 0, False
        self._batches = self._begun()

    def _begun(self) -> Iterator[Any]:
        return batches(self._iterator)

    def take(self, most: int, *, ahead: int | None = 1, stacked: bool = True) -> Chunk | None:
        """The next batches, all of the same shape; `None` at the epoch's end.

        Args:
            most: How many at most.
            ahead: How many will be taken for certain, so that they may be read before; all that
                are left by default.
            stacked: Whether to put batches together.
        """
        chunk = self._next(ahead, stacked)
        if chunk is None:
            return None
        count = min(most, chunk.count)
        if count < chunk.count:
            rest = chunk._replace(start=chunk.start + count, count=chunk.count - count)
            self._taken.insert(0, rest)
        self._count += count
        return chunk._replace(count=count)

    def _next(self, ahead: int | None, stacked: bool) -> Chunk | None:
        if not self._taken and self._ahead is None:
            limit = self._limit(ahead)
            if limit is not None and limit <= 1:
                return self._one()
            if self._packer is None:
                self._packer = self._new_packer()
            self._ahead = self._reader()(self._batches, self._packer, limit)
        if not self._taken:
            assert self._ahead is not None
            self._taken = self._ahead.take(stacked=stacked)
            if not self._taken:
                self._ahead = None
                return self._one()
        return self._taken.pop(0)

    def _one(self) -> Chunk | None:
        batch = next(self._batches, None)
        self._ended = batch is None
        return None if batch is None else self._alone(batch)

    def _reader(self) -> type[Ahead | InTurn]:
        # On TensorFlow a stream is a pipeline of `tf.data`, whose threads read it already.
        return Ahead if keras.backend.backend() == "tensorflow" else InTurn

    def _new_packer(self) -> Any:
        return Packer(self.engine, self._memory, self.steps)

    def _alone(self, batch: Any) -> Chunk:
        return self.engine.batch(batch)

    def _limit(self, ahead: int | None) -> int | None:
        """How many batches may be read: what comes after an epoch's last is read at its end."""
        left = None if self.steps is None else self.steps - self._count
        known = [each for each in (ahead, left) if each is not None]
        return min(known, default=None)

    def end(self) -> None:
        """End an epoch, wherever it is."""
        self._stop(None)
        if not self._ended and self._count == self.steps:
            self._ended = next(self._batches, None) is None
        self._batches = iter(())
        if not self._ended and self._count:
            self._left()

    def _left(self) -> None:
        """An epoch was left: what Keras does where one ends is done here."""
        self._iterator.data_adapter.on_epoch_end()

    def close(self) -> None:
        """The training has ended, perhaps by Ctrl-C: a source that is stuck is left alone."""
        self._stop(LEAVING)

    def shrink(self, chunk: Chunk) -> None:
        """Give the batches of `chunk`, and all after them, one by one from here on."""
        assert self._packer is not None
        self._packer.alone = True
        again = [chunk]
        if self._taken and self._taken[0].data is chunk.data:
            again.append(self._taken.pop(0))
        self._count -= chunk.count
        self._taken[:0] = [
            self.engine.batch(self.engine.pick(each, each.start + place))
            for each in again
            for place in range(each.count)
        ]

    def _stop(self, timeout: float | None) -> None:
        self._taken = []
        if self._ahead is not None:
            self._ahead.stop(timeout)
            self._ahead = None


class Shared(Stream):
    """Batches one by one, each distributed by Keras over the devices that share it."""

    def _limit(self, ahead: int | None) -> int | None:
        return 1


class Hosted(Stream):
    """Batches of arrays that stay on the host, in an order that is known beforehand.

    Args:
        arrays: The arrays, as the user gave them.
        order: Draws the epochs' orders.
        engine: The engine that will train on them.
        steps: Batches of an epoch.
        memory: Bytes of data that may be on the device at once.
    """

    def __init__(self, arrays: Any, order: Order, engine: Any, steps: int, memory: int) -> None:
        super().__init__(None, engine, memory)
        self._gather = gatherer(arrays)
        self._width = size_of(arrays) // order.rows
        self._order = order
        self._steps = steps
        self.partial = order.partial

    @property
    def steps(self) -> int:
        """See base class."""
        return self._steps

    def _begun(self) -> Iterator[Any]:
        return (numbers for block in self._order.blocks() for numbers in block)

    def resume(self, blocks: Iterator[np.ndarray], left: int) -> None:
        """Go on within an epoch.

        Args:
            blocks: The numbers of the rows that are left.
            left: Batches that are left.
        """
        self._count = self._steps - left
        self._batches = (numbers for block in blocks for numbers in block)

    def _reader(self) -> type[Ahead | InTurn]:
        return Ahead

    def _new_packer(self) -> Any:
        size = (self._width, self._order.size, self._steps)
        return Gatherer(self.engine, self._memory, self._gather, *size)

    def _alone(self, batch: Any) -> Chunk:
        return self.engine.batch(self.engine.put(self._gather(batch)))

    def _limit(self, ahead: int | None) -> int | None:
        # The order is drawn beforehand, and gathering draws nothing.
        return super()._limit(1 if self._order.lazy else None)

    def end(self) -> None:
        """See base class."""
        super().end()
        self._order.end(whole=self._ended)

    def _left(self) -> None:
        """See base class."""


def source(
    model: Any, engine: Any, iterator: Any, arguments: dict[str, Any], memory: int = MEMORY
) -> Any:
    """Where the batches come from: arrays on the device, arrays on the host, or a stream.

    Args:
        model: The model trained.
        engine: Its engine.
        iterator: What `epoch_iterator` returned for the data.
        arguments: `shuffle` and `steps_per_epoch`.
        memory: Bytes of data that may be on the device at once.
    """
    if keras.distribution.distribution() is not None or distributed(model):
        return Shared(iterator, engine, memory)
    adapter = iterator.data_adapter
    if type(adapter) is ArrayDataAdapter:
        order = Order(adapter, arguments, model, engine.order_dtype)
        of_arrays = _of_arrays(adapter, order, engine, iterator.num_batches, memory)
        if of_arrays is not None:
            return of_arrays
    if type(iterator) is EpochIterator:
        iterator = epoch_iterator(model, x=adapter, **arguments)
    return Stream(iterator, engine, memory)


def _of_arrays(adapter: Any, order: Order, engine: Any, steps: int, memory: int) -> Any:
    """Batches of dense arrays; `None` for others."""
    if size_of(adapter._inputs) <= memory:
        arrays = converted(adapter._inputs)
        if arrays is None:
            return None
        try:
            engine.know(None)
            data = engine.put(arrays)
            return Resident(data, adapter._inputs, order, engine, steps)
        except Exception as error:
            if not is_of_memory(error):
                raise
            warn_of_memory(error)
    if gatherer(adapter._inputs)(np.arange(1)) is None:
        return None
    return Hosted(adapter._inputs, order, engine, steps, memory)


def smaller(source: Any, chunk: Chunk) -> Any:
    """The batches from `chunk` on, with less of them on the device: it had no memory for it."""
    if not isinstance(source, Resident):
        source.shrink(chunk)
        return source
    memory = size_of(source.arrays) // 4
    new = Hosted(source.arrays, source.order, source.engine, source.steps, memory)
    new.resume(*source.left(chunk))
    return new


def is_of_memory(error: BaseException) -> bool:
    """Whether an error says that the device, or the host, has no memory left."""
    kind, text = type(error).__name__, str(error)
    named = kind in ("ResourceExhaustedError", "OutOfMemoryError", "MemoryError")
    return named or "RESOURCE_EXHAUSTED" in text or "out of memory" in text.lower()


def warn_of_memory(error: BaseException) -> None:
    """Say that the data stay on the host."""
    what = f"{type(error).__name__}: {error}".partition("\n")[0]
    Trouble().warn(
        "chunk-too-big",
        "no memory on the device for the data, which come in smaller chunks from here on. "
        f"Received: {what}",
    )
