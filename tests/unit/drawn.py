"""Losses, weights and epochs that hypothesis draws, and how results are compared."""

import math
from fractions import Fraction

import numpy as np
from hypothesis import strategies as st

from lossledger.statistics import STATISTICS

float32s = st.floats(width=32, allow_nan=True, allow_infinity=True)
finite32s = st.floats(width=32, allow_nan=False, allow_infinity=False)
losses32 = st.floats(0, 2**20, width=32)
weights = st.one_of(st.integers(0, 2**20).map(float), st.floats(0, 2**20))
normal_weights = st.one_of(st.integers(0, 2**20).map(float), st.floats(2**-20, 2**20))
entries = st.lists(st.tuples(float32s, weights), max_size=30)
PER_STEP = [name for name, statistic in STATISTICS.items() if statistic.per == "step"]


def same(a, b):
    return a == b or (math.isnan(a) and math.isnan(b))


def columns(pairs):
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def by_rationals(loss, weight):
    """A weighted mean without any rounding but the last."""
    total = sum(Fraction(x) * Fraction(w) for x, w in zip(loss, weight, strict=True))
    over = sum(Fraction(w) for w in weight)
    return float(total / over) if over else 0.0


@st.composite
def series(draw, losses=losses32, least=0):
    """Losses, weights and non-decreasing, gappy epoch labels."""
    count = draw(st.integers(least, 40))
    loss = draw(st.lists(losses, min_size=count, max_size=count))
    weight = draw(st.lists(normal_weights, min_size=count, max_size=count))
    gaps = draw(st.lists(st.sampled_from([0, 0, 0, 1, 3]), min_size=count, max_size=count))
    return np.array(loss), np.array(weight), (np.cumsum(gaps) - 1).astype(np.int32)


def epochs_of(epoch):
    return [np.flatnonzero(epoch == label) for label in np.unique(epoch)]


def assert_close(got, expected, ulps=1):
    """Equal to `ulps` units in the last place, NaN and infinity in the same places."""
    expected = np.asarray(expected, np.float64)
    assert got.dtype == np.float64
    assert got.shape == expected.shape
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(got[~finite], expected[~finite])
    assert (
        np.abs(got[finite] - expected[finite]) <= ulps * np.spacing(abs(expected[finite]))
    ).all()
