"""Shares of a gap: what each swapped factor adds, and how much of it chance alone would.

A *value* is what a set of swapped factors gives, an array of one number a seed. In an order, a
factor's share is the value after its swap minus the value before it; the shares telescope. The
Shapley value is the mean of a factor's shares over all orders (Shapley 1953, "A value for n-person
games"), so these sum to the gap, too.
"""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import NormalDist
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Value: TypeAlias = Callable[[frozenset[str]], Floats]

LEVEL = 0.99
"""Of so many comparisons of things that differ by chance alone, noise covers the amount."""
# Student's t for LEVEL, two-sided, by degrees of freedom from 1 on.
_T = (
    63.657, 9.925, 5.841, 4.604, 4.032, 3.707, 3.499, 3.355, 3.250, 3.169,
    3.106, 3.055, 3.012, 2.977, 2.947, 2.921, 2.898, 2.878, 2.861, 2.845,
    2.831, 2.819, 2.807, 2.797, 2.787, 2.779, 2.771, 2.763, 2.756, 2.750,
)  # fmt: skip


def in_order(factors: Sequence[str], value: Value) -> dict[str, Floats]:
    """The shares of factors that are swapped one after another.

    Args:
        factors: In the order in which they are swapped.
        value: What a set of swapped factors gives: float64 (seeds,).

    Returns:
        Float64 (seeds,) a factor; together they are the value of all minus that of none.
    """
    shares: dict[str, Floats] = {}
    swapped: frozenset[str] = frozenset()
    before = value(swapped)
    for factor in factors:
        swapped = swapped | {factor}
        after = value(swapped)
        shares[factor] = after - before
        before = after
    return shares


def shapley(factors: Sequence[str], value: Value) -> dict[str, Floats]:
    """The mean of the shares over all orders, by one value a set: 2^n of them."""
    count = len(factors)
    shares = {factor: np.zeros_like(value(frozenset())) for factor in factors}
    for factor in factors:
        others = [each for each in factors if each != factor]
        for size in range(count):
            chance = 1 / (count * math.comb(count - 1, size))
            for chosen in combinations(others, size):
                before = frozenset(chosen)
                shares[factor] = shares[factor] + chance * (
                    value(before | {factor}) - value(before)
                )
    return shares


def sampled(factors: Sequence[str], value: Value, orders: int, seed: int = 0) -> dict[str, Floats]:
    """The mean of the shares over some orders, drawn at random, each with its reverse.

    Args:
        factors: The factors.
        value: As in `in_order`.
        orders: How many orders, an even number.
        seed: Of the draw.
    """
    draw = random.Random(seed)
    shares = {factor: np.zeros_like(value(frozenset())) for factor in factors}
    for _ in range(orders // 2):
        order = draw.sample(list(factors), len(factors))
        for one in (order, order[::-1]):
            for factor, share in in_order(one, value).items():
                shares[factor] = shares[factor] + share / orders
    return shares


@dataclass(frozen=True)
class Estimate:
    """An amount over seeds.

    Args:
        mean: The amount.
        spread: Standard deviation between seeds; `None` of one seed.
        error: Standard error of the mean; `None` of one seed.
        noise: What chance alone makes of such a mean, in `LEVEL` of cases; `None` of one seed.
    """

    mean: float
    spread: float | None
    error: float | None
    noise: float | None

    @classmethod
    def of(cls, amounts: Floats, chance: bool = False) -> "Estimate":
        """The estimate from one amount a seed.

        Args:
            amounts: float64 (seeds,).
            chance: Whether what was swapped is a seed: then all of it is noise, whatever its size.
        """
        count = len(amounts)
        with np.errstate(invalid="ignore", over="ignore"):
            mean = float(amounts.mean()) if np.ptp(amounts) else float(amounts[0])
            spread = float(amounts.std(ddof=1)) if count > 1 else None
        if spread is None:
            return cls(mean, None, None, abs(mean) if chance else None)
        error = spread / math.sqrt(count)
        noise = student(count - 1) * error
        return cls(mean, spread, error, max(noise, abs(mean)) if chance else noise)

    @property
    def is_noise(self) -> bool:
        """Whether chance alone makes as much."""
        return self.noise is not None and abs(self.mean) <= self.noise


def student(freedom: int) -> float:
    """Student's t at `LEVEL`, two-sided, for some degrees of freedom.

    Beyond the table by the first terms of its expansion around the normal quantile (Abramowitz and
    Stegun 1964, 26.7.5).
    """
    if freedom <= len(_T):
        return _T[freedom - 1]
    z = NormalDist().inv_cdf(0.5 + LEVEL / 2)
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
