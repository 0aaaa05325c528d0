"""Where a loop's batches come from: the same ones, in the same order, as `fit` would take.

Keras's own data adapters decide. Arrays are put on the device once; for them an adapter of Keras
runs over the rows' numbers instead, with the same arguments, and so draws the same random numbers.
"""

import warnings
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import keras
import numpy as np
from keras import tree
from keras.src.trainers.data_adapters import array_slicing
from keras.src.trainers.data_adapters.array_data_adapter import ArrayDataAdapter

from lossledger.errors import LossLedgerWarning
from lossledger.loop.chunk import Chunk

RESIDENT = 2**30
"""Bytes of arrays that are put on the device at most; larger ones are read batch by batch."""

_ITERATORS = {
    "jax": "JAXEpochIterator",
    "tensorflow": "TFEpochIterator",
    "torch": "TorchEpochIterator",
}


def epoch_iterator(model: Any, **arguments: Any) -> Any:
    """The iterator over batches that `fit` makes on this backend, from `fit`'s arguments."""
    backend = keras.backend.backend()
    cls = getattr(import_module(f"keras.src.backend.{backend}.trainer"), _ITERATORS[backend])
    if backend == "tensorflow":
        arguments["distribute_strategy"] = model.distribute_strategy
    return cls(**arguments)


def build(model: Any, batch: Any = None, iterator: Any = None) -> None:
    """Build what `fit` builds before it trains, from a batch or, where it needs one, the first."""
    if keras.backend.backend() == "tensorflow":
        model._maybe_symbolic_build(iterator=iterator, data_batch=batch)
    else:
        model._symbolic_build(iterator=iterator, data_batch=batch)
    if iterator is not None:
        iterator.reset()


def batches(iterator: Any) -> Iterator[Any]:
    """The batches of one epoch, read as `fit` reads them."""
    if keras.backend.backend() == "torch":
        for _, _, data in iterator:
            yield data[0]
        return
    with iterator.catch_stop_iteration():
        for _, _, data in iterator:
            yield next(data)


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


class Resident:
    """Batches of arrays that are on the device, picked there by the numbers of their rows.

    Args:
        data: The arrays on the device.
        adapter: Keras's adapter of the same arrays.
        engine: The engine that will train on them.
        arguments: What decides on the order: `shuffle`, `steps_per_epoch`.
        model: The model trained.
    """

    def __init__(
        self, data: Any, adapter: Any, engine: Any, arguments: dict[str, Any], model: Any
    ) -> None:
        self._data = data
        self._adapter = adapter
        self.engine = engine
        self._size = adapter.batch_size
        self.partial = adapter.has_partial_batch
        self._rows = len(next(leaf for leaf in tree.flatten(data) if leaf is not None))
        shuffle = arguments["shuffle"]
        self._whole = arguments["steps_per_epoch"] is None and shuffle != "batch"
        self._fixed = self._whole and not self._draws(shuffle)
        # Without a seed of TensorFlow's any order will do, and numpy's is there at once.
        free = self._whole and bool(shuffle) and keras.backend.backend() == "tensorflow"
        self._own = np.random.default_rng() if free and not self._fixed else None
        size = self._rows if self._whole else self._size
        self._all = np.arange(self._rows, dtype=engine.order_dtype)
        self._iterator = epoch_iterator(model, x=self._all, batch_size=size, **arguments)
        self._steps = adapter.num_batches if self._whole else self._iterator.num_batches
        # PyTorch's dropout draws from the stream that the batches' orders are drawn from.
        self._lazy = not self._whole and keras.backend.backend() == "torch"
        self._drawn: Iterator[np.ndarray] = iter(())
        self._orders: list[tuple[Any, int]] | None = None
        self._left: list[tuple[Any, int, int]] = []
        self._reading: Iterator[Any] = iter(())

    @staticmethod
    def _draws(shuffle: Any) -> bool:
        """Whether an epoch's order has to be drawn anew, or reading it draws random numbers."""
        backend = keras.backend.backend()
        if backend == "tensorflow":
            from tensorflow.python.eager import context

            # With a global seed, `tf.data` begins each epoch's iterator at the same place.
            return bool(shuffle) and context.global_seed() is None
        return bool(shuffle) or backend == "torch"

    @property
    def steps(self) -> int | None:
        """Batches of an epoch."""
        return self._steps

    def begin(self) -> None:
        """Begin an epoch: draw its order."""
        if self._lazy:
            self._drawn = self._read()
            self._left = []
            return
        if self._orders is None or not self._fixed:
            drawn = self._whole_order() if self._whole else self._read()
            orders = [each for numbers in drawn for each in self._split(numbers)]
            self._orders = [(self.engine.put_order(o), len(o)) for o in _stacked(orders)]
        self._left = [(order, 0, count) for order, count in self._orders]

    def _whole_order(self) -> Iterator[np.ndarray]:
        """The numbers of an epoch's rows in order, drawn as one batch of all rows."""
        if self._own is not None:
            yield self._own.permutation(self._rows)
        elif keras.backend.backend() == "jax":
            # Keras's iterator without its conversions.
            adapter = self._iterator.data_adapter
            (numbers,) = adapter._get_iterator(lambda numbers, indices: numbers[indices], self._all)
            yield numbers
        else:
            yield next(self._read())

    def _read(self) -> Iterator[np.ndarray]:
        self._reading = batches(self._iterator)
        return (np.asarray(_numbers(batch)) for batch in self._reading)

    def _split(self, numbers: np.ndarray) -> list[np.ndarray]:
        numbers = numbers.astype(self.engine.order_dtype)
        even = len(numbers) // self._size * self._size
        parts = [numbers[:even].reshape(-1, self._size), numbers[even:].reshape(1, -1)]
        return [part for part in parts if part.size]

    def take(self, most: int) -> Chunk | None:
        """The next batches, `most` at most, all of the same size; `None` at the epoch's end."""
        numbers = None if self._left else next(self._drawn, None)
        if numbers is not None:
            self._left = [(self.engine.put_order(o), 0, 1) for o in self._split(numbers)]
        if not self._left:
            return None
        order, start, count = self._left[0]
        taken = min(most, count - start) if self._data is not None else 1
        if start + taken == count:
            self._left.pop(0)
        else:
            self._left[0] = (order, start + taken, count)
        if self._data is None:
            return self.engine.batch(self._from_host(np.asarray(_numbers(order[start]))))
        return Chunk(self._data, order, start, taken, int(order.shape[1]))

    def shrink(self, chunk: Chunk) -> None:
        """Give the device's memory back; `chunk` comes again, batch by batch from the host."""
        self._data = None
        if self._left and self._left[0][0] is chunk.order:
            self._left.pop(0)
        self._left.insert(0, (chunk.order, chunk.start, len(chunk.order)))

    def _from_host(self, numbers: np.ndarray) -> Any:
        arrays = dense(self._adapter)
        return self.engine.put(
            tree.map_structure(lambda leaf: None if leaf is None else leaf[numbers], arrays)
        )

    def end(self) -> None:
        """End an epoch; where it was whole, Keras's iterator is read to its end, as by `fit`."""
        if not self._left:
            for _ in self._reading:
                pass
        self._reading = iter(())


def _numbers(batch: Any) -> Any:
    batch = batch[0] if isinstance(batch, tuple | list) else batch
    return batch.cpu() if hasattr(batch, "detach") else batch


def _stacked(orders: list[np.ndarray]) -> list[np.ndarray]:
    """Neighbours of the same batch size as one array."""
    groups: list[list[np.ndarray]] = []
    for order in orders:
        if groups and groups[-1][0].shape[1] == order.shape[1]:
            groups[-1].append(order)
        else:
            groups.append([order])
    return [np.concatenate(group) for group in groups]


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
        if arrays is not None and _bytes(arrays) <= RESIDENT:
            try:
                return Resident(engine.put(arrays), adapter, engine, arguments, model)
            except Exception as error:
                if not is_of_memory(error):
                    raise
                warn_of_memory(error)
    return Stream(iterator, engine)


def is_of_memory(error: BaseException) -> bool:
    """Whether an error says that the device, or the host, has no memory left."""
    kind, text = type(error).__name__, str(error)
    named = kind in ("ResourceExhaustedError", "OutOfMemoryError", "MemoryError")
    return named or "RESOURCE_EXHAUSTED" in text or "out of memory" in text.lower()


def warn_of_memory(error: BaseException) -> None:
    """Say that the data stay on the host."""
    what = f"{type(error).__name__}: {error}".partition("\n")[0]
    warnings.warn(
        f"lossledger [chunk-too-big]: no memory on the device for the data; they are read batch "
        f"by batch from here on. Received: {what}",
        LossLedgerWarning,
        stacklevel=2,
    )


def dense(adapter: Any) -> Any:
    """An adapter's arrays as a backend's step takes them, whole; `None` if some are not dense."""
    backend = keras.backend.backend()
    inputs = array_slicing.convert_to_sliceable(adapter._inputs, target_backend=backend)
    if backend == "tensorflow":
        arrays = tree.lists_to_tuples(inputs)
    else:
        everything, convert = slice(0, adapter._num_samples), f"convert_to_{backend}_compatible"
        arrays = tree.map_structure(
            lambda each: None if each is None else getattr(each, convert)(each[everything]), inputs
        )
    return arrays if all(map(_is_dense, tree.flatten(arrays))) else None


def _is_dense(leaf: Any) -> bool:
    if isinstance(leaf, np.ndarray):
        return leaf.dtype.kind in "fiub"
    kind = type(leaf).__name__
    return leaf is None or kind in ("EagerTensor", "Tensor", "ArrayImpl")


def _bytes(arrays: Any) -> int:
    leaves = [leaf for leaf in tree.flatten(arrays) if leaf is not None]
    # TensorFlow's types say `size` for what others call `itemsize`.
    widths = [getattr(leaf.dtype, "itemsize", getattr(leaf.dtype, "size", 8)) for leaf in leaves]
    return sum(int(np.prod(leaf.shape)) * w for leaf, w in zip(leaves, widths, strict=True))
