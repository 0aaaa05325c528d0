"""Exact sums: how the folds add float64 numbers without losing a bit.

Two ways, for two questions:

* `exact_sum` gives one sum as a rational number. Every finite float64 is an integer times a
  power of two, so a sum of them, or of products of two of them, is one too: integers add
  associatively, and no order, grouping, segment or worker can change the result.
* `running_mean` gives all partial means at once. It keeps each partial sum as an unevaluated
  pair of float64 `(high, low)`, about 106 bits (Dekker 1971, "A floating-point technique for
  extending the available precision"; Knuth's TwoSum, TAOCP 2, 4.2.2), so that a mean over
  millions of steps is still good to the last place of a float64.
"""

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import TypeAlias

import numpy as np

from lossledger.vectors import Floats, Integers, Mask

Pair: TypeAlias = tuple[Floats, Floats]

_HALF = 27
_LOW = np.int64(2**_HALF - 1)
_SPLITTER = float(2**_HALF + 1)
# A bin adds numbers below 2^27: so many of them stay exact in a float64.
_CHUNK = 2**20


def to_float(number: Fraction) -> float:
    """The float64 nearest to an exact number; infinite where it is out of range."""
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf


def exact_sum(values: Floats, factors: Floats | None = None) -> Fraction:
    """The exact sum of `values`, or of `values * factors`.

    Each number is split into an integer mantissa and an exponent; mantissas (their halves, so
    that products fit an int64) are added by exponent, and the few bins are put together as one
    Python integer.

    Args:
        values: float64 (n,), finite.
        factors: float64 (n,), finite; all 1 if `None`.
    """
    total = Fraction(0)
    for start in range(0, len(values), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        total += _chunk_sum(values[chunk], None if factors is None else factors[chunk])
    return total


def _chunk_sum(values: Floats, factors: Floats | None) -> Fraction:
    mantissas, exponents = _decompose(values)
    ours: tuple[tuple[Integers | np.int64, int], ...] = ((np.int64(1), 0),)
    if factors is not None:
        others, other_exponents = _decompose(factors)
        exponents = exponents + other_exponents
        ours = tuple(_halves(others))
    lowest = int(exponents.min())
    bins = exponents - lowest
    units = 0
    for mine, shift in _halves(mantissas):
        for theirs, other_shift in ours:
            units += _add_by_bin(mine * theirs, bins) << (shift + other_shift)
    return Fraction(units) * Fraction(2) ** lowest


def _decompose(values: Floats) -> tuple[Integers, Integers]:
    """Integer mantissas (53 bits) and exponents with `value = mantissa * 2**exponent`."""
    mantissas, exponents = np.frexp(values)
    return np.ldexp(mantissas, 53).astype(np.int64), exponents.astype(np.int64) - 53


def _halves(mantissas: Integers) -> Iterator[tuple[Integers, int]]:
    """The high and low halves with their shifts; low is 0 in all float32 and small integers."""
    yield mantissas >> _HALF, _HALF
    low = mantissas & _LOW
    if low.any():
        yield low, 0


def _add_by_bin(integers: Integers, bins: Integers) -> int:
    """The sum of `integers[i] << bins[i]`."""
    total = 0
    for part, shift in _halves(integers):
        for place, amount in enumerate(np.bincount(bins, weights=part).tolist()):
            if amount:
                total += int(amount) << (place + shift)
    return total


def running_mean(values: Floats, weights: Floats, first: Integers) -> Floats:
    """The weighted mean of each group so far, at every entry.

    Non-finite values follow IEEE 754, from where they stand to the end of their group, as in an
    accumulator that adds `value * weight`. Where the weights add to zero the mean is 0.0, as
    Keras's `divide_no_nan` has it.

    Args:
        values: float64 (n,).
        weights: float64 (n,).
        first: int64 (n,), index of the first entry of each entry's group; groups are contiguous.

    Returns:
        float64 (n,), within one unit in the last place of the exact quotient as long as the
        sums of a group don't cancel by more than 2^50 and no product leaves float64's range.
    """
    if not len(values):
        return np.empty(0)
    with np.errstate(all="ignore"):
        finite = np.isfinite(values) & np.isfinite(weights)
        factors = np.where(finite, weights, 0.0)
        total = _group_sums(_two_product(np.where(finite, values, 0.0), factors), first)
        heard = np.isfinite(weights)
        weight = _weight_sums(np.where(heard, weights, 0.0), first)
        mean = _divide(total, weight)
        if not finite.all():
            poison = _poison(values * weights, finite, first)
            mean = np.where(poison == 0.0, mean, poison / weight[0])
        mean = np.where(weight[0] == 0.0, 0.0, mean)
        return mean if heard.all() else np.where(_since(~heard, first), np.nan, mean)


def _poison(products: Floats, finite: Mask, first: Integers) -> Floats:
    """What the non-finite products of the group so far add up to; 0.0 without any."""
    up = _since(products == np.inf, first)
    down = _since(products == -np.inf, first)
    undefined = _since(np.isnan(products) & ~finite, first) | (up & down)
    return np.select([undefined, up, down], [np.nan, np.inf, -np.inf], 0.0)


def _since(marks: Mask, first: Integers) -> Mask:
    """Whether a mark stands between the group's first entry and this one."""
    counts = np.concatenate(([0], np.cumsum(marks)))
    return counts[1:] > counts[first]


def _weight_sums(weights: Floats, first: Integers) -> Pair:
    """As `_group_sums`; rows and elements are integers, which a float64 adds exactly to 2^53."""
    zeros = np.zeros(len(weights))
    if (weights == np.rint(weights)).all() and np.abs(weights).sum() < 2**53:
        sums = np.cumsum(weights)
        return sums - np.concatenate(([0.0], sums))[first], zeros
    return _group_sums((weights, zeros), first)


def _group_sums(addends: Pair, first: Integers) -> Pair:
    """All partial sums within groups, as pairs.

    The entries are laid out as lanes (about as many as each is long), which are summed side by
    side; then what is left of a lane's last group is carried into the next lane.
    """
    count = len(first)
    width = math.isqrt(count - 1) + 1
    rows = -(-count // width)
    sizes = (count, rows, width)
    begins = _lanes((first == np.arange(count)).astype(np.float64), *sizes)
    high, low = (_lanes(part, *sizes) for part in addends)
    for column in range(1, width):
        keep = 1.0 - begins[column]
        before = (high[column - 1] * keep, low[column - 1] * keep)
        high[column], low[column] = _add(before, (high[column], low[column]))
    carries = np.zeros((2, rows))
    begun = begins.sum(axis=0)
    for row in range(1, rows):
        total = high[-1, row - 1], low[-1, row - 1]
        before = carries[0, row - 1], carries[1, row - 1]
        carries[:, row] = total if begun[row - 1] else _add(before, total)
    goes_on = np.cumsum(begins, axis=0) == 0
    high, low = _add((high, low), (carries[0] * goes_on, carries[1] * goes_on))
    return high.T.ravel()[:count], low.T.ravel()[:count]


def _lanes(column: Floats, count: int, rows: int, width: int) -> Floats:
    """A column laid out as (width, rows), down the lanes first; padded with 0."""
    padded = np.zeros(rows * width)
    padded[:count] = column
    return np.ascontiguousarray(padded.reshape(rows, width).T)


def _two_sum(a: Floats, b: Floats) -> Pair:
    """`a + b` and what rounding lost (Knuth): together exact."""
    total = a + b
    ours = total - a
    return total, (a - (total - ours)) + (b - ours)


def _two_product(a: Floats, b: Floats) -> Pair:
    """`a * b` and what rounding lost (Veltkamp's split, Dekker's product): together exact."""
    product = a * b
    a_high = (wide := a * _SPLITTER) - (wide - a)
    b_high = (wide := b * _SPLITTER) - (wide - b)
    a_low, b_low = a - a_high, b - b_high
    lost = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low
    return product, lost


def _add(a: Pair, b: Pair) -> Pair:
    total, lost = _two_sum(a[0], b[0])
    lost += a[1] + b[1]
    high = total + lost
    return high, lost - (high - total)


def _divide(numerator: Pair, denominator: Pair) -> Floats:
    quotient = numerator[0] / denominator[0]
    product, lost = _two_product(quotient, denominator[0])
    left = ((numerator[0] - product) - lost) + numerator[1] - quotient * denominator[1]
    return quotient + left / denominator[0]
