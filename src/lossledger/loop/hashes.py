"""The hashes of rows that are on the device, taken once: a batch's fingerprint is their sum."""

import math
import threading
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from lossledger.keras import fingerprint

BLOCK = 2**24
"""Values of rows that are read and hashed at once, about."""


class Hashes:
    """Hashes of the rows of arrays on the device, taken when first asked for.

    The recorder's thread asks: no step waits for them, and no training's beginning.

    Args:
        leaves: The arrays, each of as many rows. They must stay as they are.
        host: Reads one, or a slice of it.
    """

    def __init__(self, leaves: Sequence[Any], host: Callable[[Any], Any]) -> None:
        self._leaves = leaves
        self._host = host
        self._rows: np.ndarray | None = None
        self._lock = threading.Lock()

    @classmethod
    def of(cls, data: Any, host: Callable[[Any], Any]) -> "Hashes | None":
        """Those of a structure of arrays, as `train_step` takes them.

        Returns:
            `None` where there are none, or where only the device can read the arrays' type.
        """
        flat = keras.tree.flatten(fingerprint.content(data))
        leaves = [leaf for leaf in flat if leaf is not None and 0 not in leaf.shape[1:]]
        return cls(leaves, host) if leaves and all(map(_is_plain, leaves)) else None

    def settle(self) -> np.ndarray:
        """Take them, if they have not been: int64 of shape `(rows,)`. The arrays are let go of."""
        with self._lock:
            if self._rows is None:
                rows = int(self._leaves[0].shape[0])
                size = max(1, BLOCK // sum(math.prod(leaf.shape[1:]) for leaf in self._leaves))
                blocks = [self._block(first, first + size, rows) for first in range(0, rows, size)]
                self._rows, self._leaves = np.concatenate(blocks), ()
            return self._rows

    def _block(self, first: int, last: int, rows: int) -> np.ndarray:
        leaves = (
            self._leaves if last - first >= rows else [leaf[first:last] for leaf in self._leaves]
        )
        return fingerprint.of_rows([fingerprint.looked_at(self._host(leaf)) for leaf in leaves])

    def of_batches(self, numbers: np.ndarray) -> np.ndarray:
        """Fingerprints of batches: the bits of two int32 lanes each, as float32 `(batches, 2)`.

        Args:
            numbers: Numbers of the batches' rows, of shape `(batches, rows)`.
        """
        # Sums over the first axis are those that NumPy is quick at.
        found = self.settle().take(numbers.T).view("i4").reshape(numbers.shape[1], -1)
        return found.sum(0, dtype="i4").view("f4").reshape(-1, 2)


def _is_plain(leaf: Any) -> bool:
    """Whether NumPy itself has an array's type."""
    try:
        return np.dtype(keras.backend.standardize_dtype(leaf.dtype)).kind in "fiub"
    except (TypeError, ValueError):
        return False
