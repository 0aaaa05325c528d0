"""Arrays on the device, and the order in which an epoch picks their rows: that of `fit`.

An adapter of Keras runs over the rows' numbers, with the same arguments as over the rows, and so
draws the same random numbers.
"""

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import keras
import numpy as np
from keras import tree
from keras.src.trainers.data_adapters import array_slicing

from lossledger.loop.batches import batches, epoch_iterator
from lossledger.loop.chunk import Chunk

_ORDERS: dict[Any, np.ndarray] = {}


class Resident:
    """Batches of arrays that are on the device, picked there by the numbers of their rows.

    Args:
        data: The arrays on the device.
        adapter: Keras's adapter of the same arrays.
        engine: The engine that will train on them.
        arguments: What decides on the order: `shuffle`, `steps_per_epoch`.
        model: The model trained.
        steps: Batches of an epoch.
    """

    def __init__(
        self,
        data: Any,
        adapter: Any,
        engine: Any,
        arguments: dict[str, Any],
        model: Any,
        steps: int,
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
        self._all = np.arange(self._rows, dtype=engine.order_dtype)
        self._arguments = arguments
        self._model = model
        self._steps = steps
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
            # With a global seed, `tf.data` begins each epoch's iterator at the same place.
            return bool(shuffle) and _tensorflow_seed() is None
        return bool(shuffle) or backend == "torch"

    @property
    def steps(self) -> int | None:
        """Batches of an epoch."""
        return self._steps

    @cached_property
    def _iterator(self) -> Any:
        """Keras's iterator over the numbers of the rows."""
        size = self._rows if self._whole else self._size
        return epoch_iterator(self._model, x=self._all, batch_size=size, **self._arguments)

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
        elif keras.backend.backend() == "torch":
            yield next(self._read())
        elif not self._arguments["shuffle"]:
            yield self._all
        else:
            yield self._seeded_order()

    def _seeded_order(self) -> np.ndarray:
        """The order that `tf.data` draws from TensorFlow's seed: each time the same."""
        key = (self._rows, _tensorflow_seed())
        if key not in _ORDERS:
            if len(_ORDERS) > 3:
                _ORDERS.clear()
            _ORDERS[key] = next(self._read())
        return _ORDERS[key]

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


def _tensorflow_seed() -> int | None:
    from tensorflow.python.eager import context

    return context.global_seed()


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


def size_of(arrays: Any) -> int:
    """Bytes of arrays."""
    leaves = [leaf for leaf in tree.flatten(arrays) if leaf is not None]
    # TensorFlow's types say `size` for what others call `itemsize`.
    widths = [getattr(leaf.dtype, "itemsize", getattr(leaf.dtype, "size", 8)) for leaf in leaves]
    return sum(int(np.prod(leaf.shape)) * w for leaf, w in zip(leaves, widths, strict=True))
