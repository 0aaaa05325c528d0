"""Shares of a gap: what each swapped factor adds.

A *value* is what a set of swapped factors gives, an array of one number a seed. In an order, a
factor's share is the value after its swap minus the value before it; the shares telescope. The
Shapley value is the mean of a factor's shares over all orders (Shapley 1953, "A value for n-person
games"), so these sum to the gap, too.
"""

import math
import random
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import TypeAlias

import numpy as np

from lossledger.vectors import Floats

Value: TypeAlias = Callable[[frozenset[str]], Floats]


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
