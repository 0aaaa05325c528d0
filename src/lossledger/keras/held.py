"""Copies of variables, taken while the training waits and read where it doesn't."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np


class Held(NamedTuple):
    """Copies of what variables held at one moment.

    Args:
        copies: Arrays, as they lie on the device or on the host.
        numpy: Makes an array of the host of one of them, for which it waits.
    """

    copies: Sequence[Any]
    numpy: Callable[[Any], np.ndarray] = np.asarray

    @property
    def nbytes(self) -> int:
        """Bytes of the copies."""
        return sum(each.nbytes for each in self.copies)

    def read(self) -> list[np.ndarray]:
        """The copies, as arrays of the host."""
        return [self.numpy(each) for each in self.copies]
