"""The order in which an epoch takes the rows of arrays: that of `fit`.

An adapter of Keras runs over the rows' numbers, with the same arguments as over the rows, and so
draws the same random numbers.
"""

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import keras
import numpy as np

from lossledger.loop.batches import batches, epoch_iterator

_ORDERS: dict[Any, np.ndarray] = {}


class Order:
    """The numbers of the rows of each epoch's batches.

    Args:
        adapter: Keras's adapter of the arrays.
        arguments: What decides on the order: `shuffle`, `steps_per_epoch`.
        model: The model trained.
        dtype: Type of the numbers.
    """

    def __init__(self, adapter: Any, arguments: dict[str, Any], model: Any, dtype: str) -> None:
        self.rows, self.size = adapter._num_samples, adapter.batch_size
        self.partial = adapter.has_partial_batch
        shuffle = arguments["shuffle"]
        self._whole = arguments["steps_per_epoch"] is None and shuffle != "batch"
        self.fixed = self._whole and not _draws(shuffle)
        # Without a seed of TensorFlow's any order will do, and numpy's is there at once.
        free = self._whole and bool(shuffle) and keras.backend.backend() == "tensorflow"
        self._own = np.random.default_rng() if free and not self.fixed else None
        self._all = np.arange(self.rows, dtype=dtype)
        self._arguments = arguments
        self._model = model
        # PyTorch's dropout draws from the stream that the batches' orders are drawn from.
        self.lazy = not self._whole and keras.backend.backend() == "torch"
        self._reading: Iterator[Any] = iter(())

    @cached_property
    def _iterator(self) -> Any:
        """Keras's iterator over the numbers of the rows."""
        size = self.rows if self._whole else self.size
        return epoch_iterator(self._model, x=self._all, batch_size=size, **self._arguments)

    def blocks(self) -> Iterator[np.ndarray]:
        """An epoch's numbers, of shape `(batches, rows)`: those of the same batch size as one.

        Where it is `lazy`, a batch at a time, drawn when it is asked for.
        """
        if self.lazy:
            return (each for numbers in self._read() for each in self._split(numbers))
        drawn = self._whole_order() if self._whole else self._read()
        return iter(_stacked([each for numbers in drawn for each in self._split(numbers)]))

    def end(self, *, whole: bool) -> None:
        """End an epoch; where it was whole, Keras's iterator is read to its end, as by `fit`."""
        if whole:
            for _ in self._reading:
                pass
        self._reading = iter(())

    def _whole_order(self) -> Iterator[np.ndarray]:
        """The numbers of an epoch's rows in order, drawn as one batch of all rows."""
        if self._own is not None:
            yield self._own.permutation(self.rows)
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
        key = (self.rows, _tensorflow_seed())
        if key not in _ORDERS:
            if len(_ORDERS) > 3:
                _ORDERS.clear()
            _ORDERS[key] = next(self._read())
        return _ORDERS[key]

    def _read(self) -> Iterator[np.ndarray]:
        self._reading = batches(self._iterator)
        return (np.asarray(_numbers(batch)) for batch in self._reading)

    def _split(self, numbers: np.ndarray) -> list[np.ndarray]:
        numbers = numbers.astype(self._all.dtype)
        even = len(numbers) // self.size * self.size
        parts = [numbers[:even].reshape(-1, self.size), numbers[even:].reshape(1, -1)]
        return [part for part in parts if part.size]


def _draws(shuffle: Any) -> bool:
    """Whether an epoch's order has to be drawn anew, or reading it draws random numbers."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        # With a global seed, `tf.data` begins each epoch's iterator at the same place.
        return bool(shuffle) and _tensorflow_seed() is None
    return bool(shuffle) or backend == "torch"


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
