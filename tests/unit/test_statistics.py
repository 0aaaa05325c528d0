"""The folds against exact rational arithmetic and plain loops."""

import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from drawn import (
    PER_STEP,
    assert_close,
    by_rationals,
    columns,
    entries,
    epochs_of,
    finite32s,
    float32s,
    same,
    series,
    weights,
)
from hypothesis import given
from hypothesis import strategies as st

from lossledger.errors import LossLedgerError
from lossledger.statistics import STATISTICS, Mean, Summary, named


class TestMean:
    @given(entries, entries, entries)
    def test_merge_is_associative_and_commutative_to_the_last_bit(self, a, b, c):
        a, b, c = (Mean.of(*columns(pairs)) for pairs in (a, b, c))
        assert a.merge(b).merge(c) == a.merge(b.merge(c))
        assert a.merge(b) == b.merge(a)

    @given(entries)
    def test_empty_is_the_identity(self, pairs):
        mean = Mean.of(*columns(pairs))
        assert mean.merge(Mean.empty()) == mean == Mean.empty().merge(mean)

    @given(entries, st.lists(st.integers(0, 30), max_size=4))
    def test_chunks_fold_to_the_same_bits_as_the_whole(self, pairs, cuts):
        bounds = [0, *sorted(cuts), len(pairs)]
        merged = Mean.empty()
        for start, end in pairwise(bounds):
            merged = merged.merge(Mean.of(*columns(pairs[start:end])))
        assert merged == Mean.of(*columns(pairs))

    @given(st.lists(st.tuples(finite32s, weights), min_size=1))
    def test_is_the_rational_mean_rounded_once(self, pairs):
        mean = Mean.of(*columns(pairs))
        assert mean.result == by_rationals(*columns(pairs))

    @given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
    def test_any_float64_losses_sum_exactly(self, loss):
        mean = Mean.of(loss)
        assert mean.total == sum(map(Fraction, loss))
        assert mean.weight == len(loss)

    @given(entries)
    def test_nonfinite_entries_are_counted_and_left_out_of_the_sums(self, pairs):
        mean = Mean.of(*columns(pairs))
        kept = [(Fraction(x), Fraction(w)) for x, w in pairs if math.isfinite(x)]
        assert (mean.count, mean.nonfinite) == (len(pairs), len(pairs) - len(kept))
        assert mean.total == sum(x * w for x, w in kept)
        assert mean.weight == sum(w for _, w in kept)

    @given(entries)
    def test_result_is_what_an_accumulator_reports(self, pairs):
        if any(not math.isfinite(x) for x, _ in pairs):
            total = over = 0.0
            for x, w in pairs:
                total += x * w
                over += w
            assert same(Mean.of(*columns(pairs)).result, total / over if over else 0.0)

    @pytest.mark.parametrize(
        ("loss", "weight", "expected"),
        [
            ([], [], math.nan),
            ([2.5], [3.0], 2.5),
            ([2.5], [0.0], 0.0),
            ([math.nan], [0.0], 0.0),
            ([math.nan, 1.0], [1.0, 1.0], math.nan),
            ([math.inf, 1.0], [1.0, 1.0], math.inf),
            ([math.inf, 1.0], [0.0, 1.0], math.nan),
            ([math.inf, 1.0], [1.0, -3.0], -math.inf),
            ([math.inf, -math.inf], [1.0, 1.0], math.nan),
            ([-math.inf, 1.0], [2.0, 1.0], -math.inf),
            ([1.0, 1.0], [math.nan, 1.0], math.nan),
            ([1.0, 1.0], [math.inf, 1.0], math.nan),
            ([1e308, 1e308], [1e308, 1e308], 1e308),
            ([5e-324, 5e-324], [5e-324, 5e-324], 5e-324),
        ],
    )
    def test_edges(self, loss, weight, expected):
        assert same(Mean.of(loss, weight).result, expected)

    def test_no_digit_is_lost_where_float64_sums_lose_all(self):
        loss = [1e16, 1.0, -1e16]
        assert sum(loss) == 0.0
        assert Mean.of(loss).result == 1 / 3

    def test_unequal_columns_are_refused(self):
        with pytest.raises(LossLedgerError, match=r"shapes \(2,\) and \(3,\)") as error:
            Mean.of([1.0, 2.0], [1.0, 1.0, 1.0])
        assert error.value.slug == "unequal-columns"

    def test_a_million_entries_fold_exactly(self):
        loss = np.random.default_rng(0).random(10**6, np.float32)
        weight = np.full(10**6, 32.0)
        mean = Mean.of(loss, weight)
        assert mean.result == math.fsum(loss.tolist()) / 10**6


class TestSummary:
    lists = st.lists(float32s, max_size=30)

    @given(lists, lists, lists)
    def test_merge_is_associative_to_the_last_bit(self, a, b, c):
        a, b, c = (Summary.of(loss, [3] * len(loss)) for loss in (a, b, c))
        assert a.merge(b).merge(c) == a.merge(b.merge(c))

    @given(lists, lists)
    def test_parts_merge_to_the_whole_and_empty_is_the_identity(self, a, b):
        whole = Summary.of(a + b)
        assert Summary.of(a).merge(Summary.of(b)) == whole
        assert whole.merge(Summary.empty()) == whole == Summary.empty().merge(whole)

    @given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1), st.integers(0, 3))
    def test_says_what_numpy_says_of_the_finite_entries(self, loss, lost):
        summary = Summary.of(
            [math.nan] * lost + loss + [math.inf] * lost, range(len(loss) + 2 * lost)
        )
        assert (summary.steps, summary.nonfinite) == (len(loss) + 2 * lost, 2 * lost)
        assert summary.rows == sum(range(summary.steps))
        assert (summary.first, summary.last) == (loss[0], loss[-1])
        assert (summary.min, summary.max) == (min(loss), max(loss))
        assert summary.std == pytest.approx(np.std(loss), rel=1e-9, abs=1e-9)

    def test_deviation_survives_a_large_mean(self):
        assert Summary.of([1e9, 1e9 + 1]).std == 0.5
        assert Summary.of([0.1, 0.1, 0.1]).std == 0.0

    def test_without_a_finite_entry_nothing_is_said(self):
        for summary in (Summary.empty(), Summary.of([]), Summary.of([math.nan])):
            values = (summary.first, summary.last, summary.min, summary.max, summary.std)
            assert all(math.isnan(value) for value in values)
        assert Summary.of([math.nan]).nonfinite == 1


class TestSeries:
    @given(series())
    def test_raw_and_last(self, entries):
        loss, _, epoch = entries
        np.testing.assert_array_equal(STATISTICS["raw"](*entries), loss)
        expected = [loss[steps[-1]] for steps in epochs_of(epoch)]
        np.testing.assert_array_equal(STATISTICS["last"](*entries), expected)

    @given(series())
    def test_running_epoch_and_cumulative_mean(self, entries):
        loss, weight, epoch = entries
        running, ends = [], []
        for steps in epochs_of(epoch):
            for k in range(1, len(steps) + 1):
                running.append(by_rationals(loss[steps[:k]], weight[steps[:k]]))
            ends.append(running[-1])
        assert_close(STATISTICS["running_mean"](*entries), running)
        assert_close(STATISTICS["epoch_mean"](*entries), ends)
        cumulative = [by_rationals(loss[:k], weight[:k]) for k in range(1, len(loss) + 1)]
        assert_close(STATISTICS["cumulative_mean"](*entries), cumulative)

    @given(series(least=1))
    def test_epoch_mean_is_the_last_running_mean_and_agrees_with_mean(self, entries):
        loss, weight, epoch = entries
        epoch_mean = STATISTICS["epoch_mean"](*entries)
        running = STATISTICS["running_mean"](*entries)
        for value, steps in zip(epoch_mean, epochs_of(epoch), strict=True):
            assert value == running[steps[-1]]
            mean = Mean.of(loss[steps], weight[steps]).result
            assert abs(value - mean) <= np.spacing(mean)

    @given(series())
    def test_batch_mean_ignores_weights(self, entries):
        loss, _, epoch = entries
        expected = [by_rationals(loss[s], np.ones(len(s))) for s in epochs_of(epoch)]
        assert_close(STATISTICS["batch_mean"](*entries), expected)

    @given(series(losses=float32s))
    def test_nonfinite_losses_spread_as_in_an_accumulator(self, entries):
        loss, weight, epoch = entries
        got = STATISTICS["running_mean"](*entries)
        for steps in epochs_of(epoch):
            total = over = 0.0
            for step in steps:
                with np.errstate(invalid="ignore"):
                    total += loss[step] * weight[step]
                over += weight[step]
                expected = total / over if over else 0.0
                if not math.isfinite(expected):
                    assert same(got[step], expected)
                else:
                    assert math.isfinite(got[step])

    @given(series(), st.integers(1, 50))
    def test_window_mean(self, entries, n):
        loss = entries[0]
        expected = [math.fsum(loss[max(0, k - n) : k]) / min(n, k) for k in range(1, len(loss) + 1)]
        assert_close(STATISTICS["window_mean"](*entries, n=n), expected, ulps=n)

    def test_a_nan_leaves_the_window_with_its_step(self):
        loss = [1.0, math.nan, 3.0, 4.0, 5.0]
        got = STATISTICS["window_mean"](loss, np.ones(5), np.zeros(5, int), n=2)
        np.testing.assert_array_equal(got, [1.0, math.nan, math.nan, 3.5, 4.5])

    @given(series(), st.floats(0, 0.999), st.booleans(), st.booleans())
    def test_ema(self, entries, beta, debias, reset):
        loss, _, epoch = entries
        groups = epochs_of(epoch) if reset else [np.arange(len(loss))]
        expected = []
        for steps in groups:
            value, power = 0.0, 1.0
            for place, step in enumerate(steps):
                first = place == 0 and not debias
                value = loss[step] if first else beta * value + (1 - beta) * loss[step]
                power *= beta
                expected.append(value / (1 - power) if debias else value)
        got = STATISTICS["ema"](*entries, beta=beta, debias=debias, reset=reset)
        np.testing.assert_allclose(got, expected, rtol=1e-9)

    def test_an_epoch_of_huge_losses_costs_the_next_no_digit(self):
        loss = np.concatenate((np.full(50, 3e38), np.full(50, 0.1)))
        got = STATISTICS["epoch_mean"](loss, np.full(100, 0.3), np.arange(100) // 50)
        np.testing.assert_array_equal(got, [3e38, 0.1])

    @pytest.mark.parametrize("size", [1, 7, 1000])
    def test_long_series_agree_with_the_exact_mean_of_each_epoch(self, size):
        random = np.random.default_rng(size)
        loss, weight = random.random(10_007, np.float32), random.random(10_007)
        epoch = np.arange(10_007) // size
        expected = [Mean.of(loss[s], weight[s]).result for s in epochs_of(epoch)]
        np.testing.assert_array_equal(STATISTICS["epoch_mean"](loss, weight, epoch), expected)

    def test_debiased_ema_of_a_constant_is_the_constant(self):
        got = STATISTICS["ema"](np.full(100, 0.7), np.ones(100), np.zeros(100, int))
        np.testing.assert_allclose(got, 0.7, rtol=1e-13)


class TestTable:
    def test_names(self):
        assert set(STATISTICS) == {
            *("raw", "running_mean", "epoch_mean", "batch_mean", "cumulative_mean"),
            *("progress_bar", "window_mean", "ema", "last"),
        }
        assert named("ema") is STATISTICS["ema"]

    @pytest.mark.parametrize("name", STATISTICS)
    def test_shapes_of_nothing_and_of_one(self, name):
        statistic = STATISTICS[name]
        assert statistic.name == name
        empty = statistic([], [], [])
        assert (empty.shape, empty.dtype) == ((0,), np.float64)
        np.testing.assert_array_equal(statistic(np.float32([0.5]), [7], [9]), [0.5])

    @pytest.mark.parametrize("name", STATISTICS)
    def test_one_number_a_step_or_an_epoch_and_arguments_left_alone(self, name):
        loss, weight = np.array([3.0, 1.0, 2.0, 5.0]), np.array([1.0, 2.0, 3.0, 4.0])
        epoch = np.array([-1, -1, 4, 4])
        kept = loss.copy(), weight.copy(), epoch.copy()
        got = STATISTICS[name](loss, weight, epoch)
        assert len(got) == (4 if name in PER_STEP else 2)
        got[:] = 0
        for now, before in zip((loss, weight, epoch), kept, strict=True):
            np.testing.assert_array_equal(now, before)

    @pytest.mark.parametrize(
        "name", sorted({*STATISTICS} - {"window_mean", "ema", "cumulative_mean"})
    )
    def test_a_nan_stays_in_its_epoch(self, name):
        loss = np.array([1.0, math.nan, 2.0, 3.0])
        epoch = np.array([0, 0, 1, 1])
        alone = STATISTICS[name](loss[2:], np.ones(2), epoch[2:])
        got = STATISTICS[name](loss, np.ones(4), epoch)
        np.testing.assert_array_equal(got[-len(alone) :], alone)
        assert np.isnan(got[: -len(alone)]).any()

    def test_weights_of_zero(self):
        loss, zeros, epoch = [3.0, 4.0, 5.0], [0.0, 0.0, 2.0], [0, 0, 0]
        np.testing.assert_array_equal(STATISTICS["running_mean"](loss, zeros, epoch), [0, 0, 5])

    def test_epochs_that_go_back_are_refused(self):
        with pytest.raises(LossLedgerError, match="epoch 1 followed") as error:
            STATISTICS["epoch_mean"]([1.0, 1.0], [1, 1], [1, 0])
        assert error.value.slug == "epochs-go-back"

    @pytest.mark.parametrize(
        ("name", "parameters"),
        [
            ("window_mean", {"n": 0}),
            ("window_mean", {"n": 2.5}),
            ("window_mean", {"n": True}),
            ("window_mean", {"beta": 0.5}),
            ("ema", {"beta": 1.0}),
            ("ema", {"beta": -0.1}),
            ("ema", {"beta": math.nan}),
            ("ema", {"debias": 1}),
            ("progress_bar", {"finalize": "yes"}),
            ("progress_bar", {"steps_per_execution": -1}),
            ("raw", {"n": 3}),
        ],
    )
    def test_parameters_are_checked(self, name, parameters):
        with pytest.raises(LossLedgerError, match="Received") as error:
            STATISTICS[name]([1.0], [1.0], [0], **parameters)
        assert (error.value.slug, error.value.exit_code) == ("statistic-parameter", 2)

    def test_a_window_longer_than_the_series_is_the_mean_so_far(self):
        got = STATISTICS["window_mean"]([1.0, 2.0], [1, 1], [0, 0], n=10**15)
        np.testing.assert_array_equal(got, [1.0, 1.5])

    def test_unknown_name_lists_the_known(self):
        with pytest.raises(LossLedgerError, match=r"'mean'.*running_mean"):
            named("mean")
