"""Arrays as a backend's step takes them: whole, or some of their rows."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import tree
from keras.src.trainers.data_adapters import array_slicing


def converted(arrays: Any) -> Any:
    """Arrays as a backend's step takes them, converted by Keras; `None` if some are not dense."""
    backend = keras.backend.backend()
    inputs = array_slicing.convert_to_sliceable(arrays, target_backend=backend)
    if backend == "tensorflow":
        arrays = tree.lists_to_tuples(inputs)
    else:
        everything, convert = slice(None), f"convert_to_{backend}_compatible"
        arrays = tree.map_structure(
            lambda each: None if each is None else getattr(each, convert)(each[everything]), inputs
        )
    return arrays if all(map(_is_dense, tree.flatten(arrays))) else None


def gatherer(arrays: Any) -> Callable[[np.ndarray], Any]:
    """A function of numbers of rows: these rows, converted; `None` if they are not dense.

    The arrays stay as they are: those on disk (`numpy.memmap`) are read where they are asked for.
    """
    sources = tree.map_structure(
        lambda leaf: leaf if _is_plain(leaf) else array_slicing.convert_to_sliceable(leaf), arrays
    )

    def gather(numbers: np.ndarray) -> Any:
        rows = tree.map_structure(
            lambda each: None if each is None else _unwrapped(each[numbers]), sources
        )
        return converted(rows)

    return gather


def size_of(arrays: Any) -> int:
    """Bytes of arrays on the device."""
    return sum(_size(leaf) for leaf in tree.flatten(arrays) if leaf is not None)


def _size(leaf: Any) -> int:
    # A table of pandas has a type a column; TensorFlow's types say `size` for `itemsize`.
    dtype = getattr(leaf, "dtype", None)
    width = getattr(dtype, "itemsize", getattr(dtype, "size", 8))
    wide = "float64" in str(dtype)
    width = np.dtype(keras.config.floatx()).itemsize if wide else width
    return int(np.prod([int(each) for each in leaf.shape])) * width


def _is_plain(leaf: Any) -> bool:
    return leaf is None or isinstance(leaf, np.ndarray)


def _unwrapped(rows: Any) -> Any:
    return np.asarray(rows) if isinstance(rows, np.ndarray) else rows


def _is_dense(leaf: Any) -> bool:
    if isinstance(leaf, np.ndarray):
        return leaf.dtype.kind in "fiub"
    kind = type(leaf).__name__
    return leaf is None or kind in ("EagerTensor", "Tensor", "ArrayImpl")
