"""Keras's own averages: the progress bar's, and the float32 sums behind History."""

import math

import numpy as np
import pytest
from drawn import (
    epochs_of,
    finite32s,
    same,
    series,
)
from hypothesis import given
from hypothesis import strategies as st

from lossledger.statistics import STATISTICS, Mean, keras_mean


class Bar:
    """The arithmetic of `keras.utils.Progbar.update` for a value that it averages."""

    def __init__(self, replaces):
        self.replaces, self.seen, self.sums = replaces, 0, [0.0, 0]

    def update(self, current, value, finalize=False):
        base = max(current - self.seen, 1)
        if finalize and self.replaces:
            self.sums = [value, 1]
        else:
            self.sums = [self.sums[0] + value * base, self.sums[1] + base]
        self.seen = current
        return self.sums[0] / max(1, self.sums[1])


def drive_bar(means, replaces, per_execution, finalize):
    """What `fit` makes of the bar in one epoch, step by step."""
    bar, shown, count = Bar(replaces), math.nan, len(means)
    lines = []
    for step in range(count):
        begin = step - step % per_execution
        if step == count - 1 or step == begin + per_execution - 1:
            current = begin + per_execution if replaces else begin + 1
            shown = bar.update(current, means[step])
        lines.append(shown)
    if finalize:
        lines[-1] = bar.update(count, means[-1], finalize=True)
    return lines


class TestProgressBar:
    @pytest.mark.parametrize("finalize", ["counted", "replaced", "none"])
    @given(entries=series(), per_execution=st.integers(1, 5))
    def test_is_what_the_bar_computes(self, entries, per_execution, finalize):
        running = STATISTICS["running_mean"](*entries)
        expected = []
        for steps in epochs_of(entries[2]):
            expected += drive_bar(
                running[steps], finalize == "replaced", per_execution, finalize != "none"
            )
        got = STATISTICS["progress_bar"](
            *entries, finalize=finalize, steps_per_execution=per_execution
        )
        np.testing.assert_allclose(got, expected, rtol=1e-12)

    def test_formula_by_hand(self):
        loss, ones, epoch = [4.0, 2.0, 0.0], np.ones(3), np.zeros(3, int)
        bar = STATISTICS["progress_bar"]  # running means 4, 3, 2
        np.testing.assert_allclose(bar(loss, ones, epoch), [4, 3.5, (4 + 3 + 2 + 2) / 4])
        np.testing.assert_allclose(bar(loss, ones, epoch, finalize="none"), [4, 3.5, 3])
        np.testing.assert_allclose(bar(loss, ones, epoch, finalize="replaced"), [4, 3.5, 2])


class TestKerasMean:
    @given(series(losses=finite32s))
    def test_is_a_float32_loop(self, entries):
        loss, weight, epoch = entries
        expected = []
        with np.errstate(all="ignore"):
            for steps in epochs_of(epoch):
                total = count = np.float32(0)
                for step in steps:
                    total = total + np.float32(loss[step]) * np.float32(weight[step])
                    count = count + np.float32(weight[step])
                expected.append(total / count if count else np.float32(0))
        got = keras_mean(*entries)
        assert got.dtype == np.float32
        np.testing.assert_array_equal(got, np.array(expected, np.float32))

    def test_is_sequential_on_long_epochs_too(self):
        loss = np.random.default_rng(1).random(20_000, np.float32)
        total = np.float32(0)
        for value in loss:
            total += value
        got = keras_mean(loss, np.ones(20_000), np.zeros(20_000, int))
        assert got[0] == total / np.float32(20_000)
        assert total != loss.sum()

    def test_drifts_over_a_million_steps_where_float64_does_not(self):
        random = np.random.default_rng(0)
        steps = np.arange(10**6)
        loss = (np.exp(-steps / 4e4) + 0.3 + 0.1 * random.standard_normal(10**6)).astype(np.float32)
        weight, epoch = np.full(10**6, 32.0), np.zeros(10**6, int)
        exact = math.fsum(loss.tolist()) / 10**6
        running = STATISTICS["running_mean"](loss, weight, epoch)
        assert abs(running[-1] - exact) <= np.spacing(exact)
        drift = abs(float(keras_mean(loss, weight, epoch)[0]) - exact) / exact
        assert 1e-8 < drift < 1e-3

    def test_a_float32_count_stops_at_two_to_the_24(self):
        loss, weight = [1.0, 100.0], [2.0**24, 1.0]
        assert keras_mean(loss, weight, [0, 0])[0] == np.float32((2**24 + 100) / 2**24)
        assert STATISTICS["epoch_mean"](loss, weight, [0, 0])[0] == (2**24 + 100) / (2**24 + 1)

    @pytest.mark.parametrize(
        ("loss", "weight", "expected"),
        [([math.nan], [1.0], math.nan), ([math.inf], [1.0], math.inf), ([math.nan], [0.0], 0.0)],
    )
    def test_nonfinite_and_zero_weight(self, loss, weight, expected):
        assert same(float(keras_mean(loss, weight, [0])[0]), expected)
        assert same(STATISTICS["epoch_mean"](loss, weight, [0])[0], expected)
        assert same(Mean.of(loss, weight).result, expected)
