"""A change on the way from one number to the other, and how numbers stand in a sentence."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np

from lossledger.reconciliation.fold import Fold
from lossledger.reconciliation.slugs import Kind

SAME = 3e-6
"""How far two float32 losses of one step may be apart, relatively, by rounding alone."""


@dataclass(frozen=True)
class Move:
    """A change of one number alone.

    Args:
        cause: The name of the cause.
        amount: The number after it, less the number before.
        evidence: A sentence with the numbers behind it.
        advice: What removes it.
    """

    cause: str
    amount: float
    evidence: str
    advice: str


@dataclass(frozen=True)
class Change:
    """A change of one fold or of both that brings the two nearer to each other.

    Its amount is what it does to a, less what it does to b: `(a' - a) + (b - b')`.

    Args:
        cause: The name of the cause.
        a: The first fold, after it.
        b: The second one.
        evidence: A sentence with the numbers behind it.
        advice: What removes it.
        kind: How the amount is known.
    """

    cause: str
    a: Fold
    b: Fold
    evidence: str
    advice: str
    kind: Kind = "exact"


def number(value: float) -> str:
    """A loss in a sentence."""
    return f"{value:.6g}"


def signed(value: float) -> str:
    """An amount in a sentence."""
    return f"{value:+.3g}"


def share(part: float, whole: float) -> str:
    """A part in per cent."""
    return f"{100 * part / whole:.3g} %" if whole else "0 %"


def alike(a: np.ndarray, b: np.ndarray, size: "np.ndarray | float" = 0.0) -> np.ndarray:
    """Which losses are equal up to float32 rounding; NaN is like NaN.

    Args:
        a: Losses.
        b: As many.
        size: What they were subtracted from, where they are differences.
    """
    with np.errstate(invalid="ignore"):
        limit = SAME * np.maximum(np.maximum(np.abs(a), np.abs(b)), size)
        return (a == b) | (np.abs(a - b) <= limit) | (np.isnan(a) & np.isnan(b))


def near(a: float, b: float) -> bool:
    """Whether two numbers are equal up to float32 rounding; none that is not finite is."""
    return abs(b - a) <= SAME * max(abs(a), abs(b))


def is_rounding(amount: float, *values: float) -> bool:
    """Whether an amount is nothing but float64's rounding of the values it comes from."""
    size = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    return abs(amount) <= 32 * 2.0**-53 * size


def spans(amounts: Sequence[float], width: int) -> list[range]:
    """Where a picture shows a, each amount from where the one before ended, and b.

    Args:
        amounts: What leads from a to b.
        width: Places of the picture.

    Returns:
        Places for a, the amounts and b, none for an amount of 0; `[]` where there is no picture.
    """
    ends = [0.0, *accumulate(amounts)]
    low, high = min(ends), max(ends)
    if not math.isfinite(high - low) or high == low:
        return []
    places = [round((end - low) / (high - low) * (width - 1)) for end in ends]
    moves = [
        range(min(pair), max(pair) + 1) if amount else range(0)
        for amount, pair in zip(amounts, pairwise(places), strict=True)
    ]
    return [range(places[0], places[0] + 1), *moves, range(places[-1], places[-1] + 1)]
