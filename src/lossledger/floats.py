"""How losses are compared: NaN is equal to NaN, and so is an infinity to itself."""

import math

import numpy as np

from lossledger.vectors import Mask


def same(a: float, b: float) -> bool:
    """Whether two numbers are equal."""
    return a == b or (math.isnan(a) and math.isnan(b))


def equal(a: np.ndarray, b: np.ndarray) -> Mask:
    """Which numbers of two arrays are equal."""
    return (a == b) | (np.isnan(a) & np.isnan(b))


def gap_of(a: float, b: float) -> float:
    """`b - a`; 0.0 where they are the same, as two NaN or two infinities are."""
    return 0.0 if same(a, b) else b - a
