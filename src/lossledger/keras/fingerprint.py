"""A batch's fingerprint: two int32 lanes, the same on every backend and on the host.

A hash of each row by position within it, summed over the rows, so that the order of rows does not
matter and the fingerprints of batches add up to that of their union (each lane mod 2^32). JAX, and
TensorFlow with `steps_per_execution`, hash inside the compiled step; elsewhere the columns that the
fingerprint looks at are kept, and hashed here for many batches together.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

COLUMNS = 64
"""Columns of a batch that its fingerprint looks at, at most, evenly spaced over each row."""


def stride(width: Any) -> slice:
    """The columns of a row of `width` values, number or tensor, that the fingerprint looks at."""
    if isinstance(width, int) and width <= COLUMNS:
        return slice(None)
    step = -(-width // COLUMNS)
    return slice(step // 2, None, step)


def content(data: Any) -> Any:
    """Inputs and targets of a batch, without sample weights."""
    return data[:2] if isinstance(data, tuple) else data


def multipliers(width: int) -> np.ndarray:
    """Odd int32 multipliers of the batch fingerprint, shape `(width + 1, 2)`.

    The last row is what an empty row counts for. A column's number is scrambled by the finalizer
    of MurmurHash3 (public domain, A. Appleby).
    """
    x = np.roll(np.arange(2 * (width + 1), dtype=np.uint32), -2)
    x = x * np.uint32(0x9E3779B1)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        x = (x ^ (x >> np.uint32(shift))) * np.uint32(factor)
    x ^= x >> np.uint32(16)
    return (x | np.uint32(1)).view(np.int32).reshape(-1, 2)


def lanes_of(bits: np.ndarray) -> np.ndarray:
    """The two lanes of each row's hash, int32 of shape `(rows, 2)`; all arithmetic mod 2^32.

    A batch's fingerprint is the sum of its rows' lanes.

    Args:
        bits: int32 of shape `(rows, columns)`: what the fingerprint looks at.
    """
    table = multipliers(bits.shape[1])
    lanes = (bits ^ (bits >> 16)) @ table[:-1] + table[-1]
    lanes ^= lanes >> 15
    return lanes * (lanes | 1)


def of_batches(
    batches: Sequence[Sequence[Any]], stack: Callable[[list[Any]], np.ndarray] = np.stack
) -> np.ndarray:
    """Fingerprints of batches: the bits of two int32 lanes each, as float32 `(batches, 2)`.

    Args:
        batches: For each batch its leaves, as wide as the fingerprint looks at.
        stack: Makes one array of leaves of one shape.
    """
    found = np.zeros((len(batches), 2), "f4")
    alike: dict[tuple[tuple[int, ...], ...], list[int]] = {}
    for place, batch in enumerate(batches):
        alike.setdefault(tuple([leaf.shape for leaf in batch]), []).append(place)
    for shapes, places in alike.items():
        leaves = [stack([batches[place][n] for place in places]) for n in range(len(shapes))]
        found[places] = of_stacked(leaves)
    return found


def of_stacked(leaves: Sequence[np.ndarray]) -> np.ndarray:
    """As `of_batches`, for batches of equal shapes: leaves of shape `(batches, rows, ...)`."""
    count, rows = len(leaves[0]), min(leaf.shape[1] for leaf in leaves)
    if not rows:
        return np.zeros((count, 2), "f4")
    bits = [_bits(leaf[:, :rows].reshape(count * rows, -1)) for leaf in leaves]
    lanes = lanes_of(np.concatenate(bits, axis=1))
    return lanes.reshape(count, rows, 2).sum(1, dtype="i4").view("f4")


def of_rows(leaves: Sequence[np.ndarray]) -> np.ndarray:
    """Fingerprints of the rows of a batch, int64 `(rows,)`: its leaves as `of_batches` has them."""
    rows = min(len(leaf) for leaf in leaves)
    bits = [_bits(leaf[:rows].reshape(rows, -1)) for leaf in leaves]
    lanes = lanes_of(np.concatenate(bits, axis=1))
    return np.ascontiguousarray(lanes).view(np.int64).ravel()


def looked_at(leaf: Any) -> np.ndarray | None:
    """A copy of the columns of a host array that the fingerprint looks at; `None` without any."""
    array = np.asarray(leaf)
    if array.ndim == 2 and 0 < array.shape[1] <= COLUMNS and array.dtype.kind in "fiub":
        return array.copy()
    if not array.ndim or 0 in array.shape[1:] or array.dtype.kind not in "fiub":
        return None
    flat = array.reshape(array.shape[0], -1)
    return flat[:, stride(flat.shape[1])].copy()


def _bits(flat: np.ndarray) -> np.ndarray:
    if flat.dtype.kind == "f":
        return np.ascontiguousarray(flat, "f4").view("i4")
    return flat.astype("i4")
