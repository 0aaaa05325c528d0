"""The arrays of one axis that modules hand to each other: their names, and how to count them."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.int64]
Mask: TypeAlias = NDArray[np.bool_]
Ids: TypeAlias = NDArray[np.uint64]
"""Fingerprints of batches."""


def distinct(numbers: np.ndarray) -> int:
    """How many different numbers there are; equal ones lie side by side."""
    return int(np.count_nonzero(numbers[1:] != numbers[:-1])) + len(numbers[:1])


def joined(blocks: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Blocks of the same columns, one after another: one at least."""
    if len(blocks) == 1:
        return dict(blocks[0])
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def among(numbers: np.ndarray, known: Integers) -> Mask:
    """Which of some numbers are among others that ascend, of which there may be very many."""
    if not len(known):
        return np.zeros(len(numbers), bool)
    return known[np.minimum(np.searchsorted(known, numbers), len(known) - 1)] == numbers
