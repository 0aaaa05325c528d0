"""Keras's own iterators over data, opened and read as `fit` opens and reads them."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from typing import Any

import keras
from keras.src.trainers.data_adapters.array_data_adapter import can_convert_arrays
from keras.src.trainers.epoch_iterator import EpochIterator

_ITERATORS = {
    "jax": "JAXEpochIterator",
    "tensorflow": "TFEpochIterator",
    "torch": "TorchEpochIterator",
}


def distributed(model: Any) -> bool:
    """Whether a strategy of `tf.distribute` shares out the model's batches, be it to one device."""
    return getattr(model, "_distribute_strategy", None) is not None


def opened(model: Any, **arguments: Any) -> Any:
    """Keras's iterator over the data; for arrays on TensorFlow one without its `tf.data` pipeline,
    where no strategy shares them out.

    Args:
        model: The model trained.
        **arguments: What `fit` gives to its iterator.
    """
    arrays = tuple(arguments[name] for name in ("x", "y", "sample_weight"))
    alone = keras.backend.backend() == "tensorflow" and not distributed(model)
    if alone and can_convert_arrays(arrays):
        return EpochIterator(**arguments)
    return epoch_iterator(model, **arguments)


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
        with _zeros_put():
            model._symbolic_build(iterator=iterator, data_batch=batch)
    if iterator is not None:
        iterator.reset()


def batches(iterator: Any) -> Iterator[Any]:
    """The batches of one epoch, read as `fit` reads them."""
    if keras.backend.backend() == "torch":
        for *_, data in iterator:
            yield data[0]
        return
    with iterator.catch_stop_iteration():
        for *_, data in iterator:
            yield next(data)


def _zeros_put() -> AbstractContextManager[None]:
    """Puts an optimizer's zeros on the device, where making them there would cost time."""
    if keras.backend.backend() != "jax":
        return nullcontext()
    from lossledger.loop.jax import zeros_put

    return zeros_put()
