"""Where a loop's batches come from: the same ones, in the same order, as `fit` would take."""

from collections.abc import Iterator
from typing import Any

from keras.src.trainers.data_adapters.array_data_adapter import ArrayDataAdapter
from keras.src.trainers.epoch_iterator import EpochIterator

from lossledger.loop.batches import batches, epoch_iterator
from lossledger.loop.chunk import Chunk
from lossledger.loop.resident import Resident, dense, size_of
from lossledger.recorder.trouble import Trouble

RESIDENT = 2**30
"""Bytes of arrays that are put on the device at most; larger ones are read batch by batch."""


class Stream:
    """Batches one by one, from anything that `fit` takes.

    Args:
        iterator: Keras's iterator over the epochs of the data.
        engine: The engine that will train on them.
    """

    def __init__(self, iterator: Any, engine: Any) -> None:
        self._iterator = iterator
        self.engine = engine
        self._batches: Iterator[Any] | None = None

    partial = True
    """Whether batches may differ in their number of rows."""

    @property
    def steps(self) -> int | None:
        """Batches of an epoch, as far as it is known."""
        return self._iterator.num_batches

    def begin(self) -> None:
        """Begin an epoch."""
        self._batches = batches(self._iterator)

    def take(self, most: int) -> Chunk | None:
        """The next batch; `None` at the epoch's end."""
        assert self._batches is not None
        for batch in self._batches:
            return self.engine.batch(batch)
        return None

    def end(self) -> None:
        """End an epoch, wherever it is."""
        self._batches = None


def source(model: Any, engine: Any, iterator: Any, arguments: dict[str, Any]) -> Any:
    """Where the batches come from: arrays on the device, or a stream.

    Args:
        model: The model trained.
        engine: Its engine.
        iterator: What `epoch_iterator` returned for the data.
        arguments: `shuffle` and `steps_per_epoch`.
    """
    adapter = iterator.data_adapter
    if type(adapter) is ArrayDataAdapter:
        arrays = dense(adapter)
        if arrays is not None and size_of(arrays) <= RESIDENT:
            try:
                data, steps = engine.put(arrays), iterator.num_batches
                return Resident(data, adapter, engine, arguments, model, steps)
            except Exception as error:
                if not is_of_memory(error):
                    raise
                warn_of_memory(error)
    if type(iterator) is EpochIterator:
        iterator = epoch_iterator(model, x=adapter, **arguments)
    return Stream(iterator, engine)


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
        "no memory on the device for the data, which are read batch by batch from here on. "
        f"Received: {what}",
    )
