"""The arithmetic of replays: shares sum to the gap, chance is told from causes; no Keras here."""

import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lossledger.chance import Estimate, student
from lossledger.errors import LossLedgerError
from lossledger.replay.compare import _players, _sharing
from lossledger.replay.description import FACTORS, UNTRAINED, described, reading
from lossledger.replay.entries import Entries, read
from lossledger.replay.outcome import reconciliation
from lossledger.replay.shares import in_order, sampled, shapley

NAMES = "abcdef"


@st.composite
def games(draw: st.DrawFn):
    """Some factors, and a number for each set of them and seed, drawn anew."""
    factors = list(NAMES[: draw(st.integers(0, 5))])
    seeds = draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scale = draw(st.sampled_from([1e-6, 1.0, 1e6]))
    table: dict[frozenset[str], np.ndarray] = {}

    def value(swapped: frozenset[str]) -> np.ndarray:
        return table.setdefault(swapped, scale * rng.standard_normal(seeds))

    return factors, value


def gap(factors, value) -> np.ndarray:
    return value(frozenset(factors)) - value(frozenset())


@given(games())
@settings(max_examples=60)
def test_shares_sum_to_the_gap_in_every_way(game) -> None:
    factors, value = game
    for shares in (in_order(factors, value), shapley(factors, value), sampled(factors, value, 4)):
        assert sorted(shares) == factors
        size = max((np.abs(each).max() for each in shares.values()), default=1.0)
        total = sum(shares.values()) if shares else np.zeros_like(value(frozenset()))
        np.testing.assert_allclose(total, gap(factors, value), rtol=0, atol=1e-13 * size)


@given(games())
@settings(max_examples=30)
def test_shapley_is_the_mean_over_all_orders(game) -> None:
    factors, value = game
    wanted = {factor: 0.0 for factor in factors}
    orders = list(permutations(factors))
    for order in orders:
        for place, factor in enumerate(order):
            before = frozenset(order[:place])
            wanted[factor] = wanted[factor] + value(before | {factor}) - value(before)
    for factor, share in shapley(factors, value).items():
        np.testing.assert_allclose(share, wanted[factor] / len(orders), rtol=1e-9, atol=1e-12)


def test_a_factor_that_does_nothing_has_no_share_and_alike_ones_have_the_same() -> None:
    def value(swapped: frozenset[str]) -> np.ndarray:
        return np.array([len(swapped & {"a", "b"}) ** 2.0])

    shares = shapley("abc", value)
    assert shares["c"] == 0
    assert shares["a"] == shares["b"] == 2


# Noise


@pytest.mark.parametrize(
    ("freedom", "t"),
    # Fisher and Yates, "Statistical Tables", table III, P = 0.01.
    [(1, 63.657), (4, 4.604), (9, 3.250), (30, 2.750), (40, 2.704), (60, 2.660), (120, 2.617)],
)
def test_students_t(freedom: int, t: float) -> None:
    assert abs(student(freedom) - t) < 1e-3


@pytest.mark.parametrize("seeds", [2, 3, 5, 20])
def test_chance_alone_is_called_noise_99_times_in_100(seeds: int) -> None:
    rng = np.random.default_rng(seeds)
    called = [Estimate.of(rng.standard_normal(seeds)).is_noise for _ in range(4000)]
    assert 0.985 < np.mean(called) < 0.995


def test_an_effect_beyond_the_noise_is_none() -> None:
    amounts = 1.0 + 0.01 * np.random.default_rng(0).standard_normal(5)
    estimate = Estimate.of(amounts)
    assert not estimate.is_noise
    assert estimate.mean == pytest.approx(amounts.mean(), rel=1e-15)
    assert estimate.spread == pytest.approx(amounts.std(ddof=1))
    assert estimate.error == pytest.approx(amounts.std(ddof=1) / math.sqrt(5))
    assert estimate.noise == pytest.approx(4.604 * estimate.error)


def test_a_swap_of_seeds_is_noise_however_large() -> None:
    assert Estimate.of(np.array([1.0, 1.0, 1.0]), chance=True).is_noise
    assert Estimate.of(np.array([1.0]), chance=True).is_noise
    assert Estimate.of(np.array([1.0])).noise is None


# Descriptions


def test_defaults_are_those_of_the_driver() -> None:
    fit, loop = described("a", {}), described("b", {"driver": "train_on_batch"})
    assert (fit["shuffle"], fit["statistic"]) == (True, "epoch_mean")
    assert (loop["shuffle"], loop["statistic"]) == (False, "batch_mean")
    assert fit["batch_size"] == loop["batch_size"] == 32


@pytest.mark.parametrize(
    ("said", "received"),
    [
        ({"batchsize": 32}, "the key 'batchsize'"),
        ({"driver": "loop"}, "driver='loop'"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"epochs": 2.5}, "epochs=2.5"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": True}, "seed=True"),
        ({"remainder": True}, "remainder=True"),
        ({"initial_weights": "ones"}, "initial_weights='ones'"),
        ({"statistic": "evaluate"}, "statistic='evaluate'"),
        ({"shuffle": np.ones(3)}, "shuffle="),
    ],
)
def test_what_cannot_be_replayed_is_one_error(said: dict, received: str) -> None:
    with pytest.raises(LossLedgerError) as error:
        described("b", said)
    assert error.value.slug == "description"
    assert received in str(error.value)
    assert "description b" in str(error.value)


def players(a: dict, b: dict) -> list[str]:
    return _players(described("a", a), described("b", b))


def test_the_swaps_are_what_differs_in_the_stated_order() -> None:
    assert players({}, {}) == []
    assert players({"initial_weights": [np.ones(2)]}, {"initial_weights": [np.ones(2)]}) == []
    loop = {"driver": "train_on_batch", "remainder": "drop", "reset_metrics": False}
    assert players({}, loop) == [
        "shuffle", "driver", "statistic", "remainder", UNTRAINED, "reset_metrics",
    ]  # fmt: skip
    assert players(loop, {}) == players({}, loop)


def test_an_order_names_what_differs() -> None:
    _, how = _sharing(["batch_size", "epochs"], ["epochs", "batch_size"])
    assert "asked for" in how
    for order in ("shapely", ["epochs"], ["epochs", "batch_size", "seed"]):
        with pytest.raises(LossLedgerError, match="batch_size, epochs"):
            _sharing(["batch_size", "epochs"], order)


def test_shapley_says_when_it_samples() -> None:
    many = [factor.name for factor in FACTORS if factor.kind == "replayed"]
    assert "all 24 orders" in _sharing(many[:4], "shapley")[1]
    assert "16 of 3,628,800 orders" in _sharing(many[:10], "shapley")[1]


# Reading a number off entries


def entries(epochs: int = 3, rows: int = 70, size: int = 32) -> Entries:
    rng = np.random.default_rng(0)
    one = np.full(-(-rows // size), size)
    one[-1] = rows - size * (len(one) - 1)
    weight = np.tile(one, epochs)
    loss = rng.random(len(weight)).astype("f4").astype("f8")
    return Entries(loss, weight.astype("f8"), weight, np.repeat(np.arange(epochs), len(one)))


def number(of: Entries, **said) -> float:
    return read(of, reading(described("a", said)), 32)


def test_numbers_are_those_of_numpy() -> None:
    of = entries()
    last = of.epoch == 2
    loss, weight = of.loss[last], of.weight[last]
    assert number(of, epochs=3) == pytest.approx(np.average(loss, weights=weight), rel=1e-15)
    second = of.loss[of.epoch == 1]
    assert number(of, epochs=2, statistic="batch_mean") == pytest.approx(second.mean(), rel=1e-15)
    dropped = number(of, epochs=3, statistic="batch_mean", remainder="drop")
    assert dropped == pytest.approx(loss[:2].mean(), rel=1e-15)
    running = np.cumsum(of.loss * of.weight) / np.cumsum(of.weight)
    kept = number(of, epochs=3, statistic="batch_mean", reset_metrics=False)
    assert kept == pytest.approx(running[last].mean(), rel=1e-14)
    left = number(of, epochs=3, statistic="batch_mean", reset_metrics=False, remainder="drop")
    assert left == pytest.approx(running[last][:2].mean(), rel=1e-14)
    assert number(of, epochs=3, statistic="window_mean:n=4") == pytest.approx(of.loss[-4:].mean())
    assert number(of, epochs=3, statistic="raw") == of.loss[-1]


# The answer


def answer(shares: dict[str, list[float]], a: dict, b: dict, start: float = 1.0):
    amounts = {name: np.array(each) for name, each in shares.items()}
    first = np.full(len(next(iter(amounts.values()), [0.0])), start)
    ends = first, first + sum(amounts.values())
    return reconciliation((described("a", a), described("b", b)), amounts, ends, "in order")


def test_the_answer_sums_and_names_noise_and_causes() -> None:
    shares = {"batch_size": [0.5, 0.5001, 0.4999], "driver": [1e-3, -1e-3, 2e-3]}
    sides = {"batch_size": 32}, {"batch_size": 64, "driver": "train_on_batch", "shuffle": True}
    found = answer(shares, *sides)
    assert [(cause.cause, cause.is_noise) for cause in found.causes] == [
        ("hyperparameters", False),
        ("driver", True),
    ]
    total = math.fsum((*(cause.amount for cause in found.causes), found.unexplained))
    assert total == pytest.approx(found.gap, rel=1e-14)
    assert "Causes: batch_size 32 -> 64" in found.verdict
    assert "Noise, no cause: driver fit -> train_on_batch" in found.verdict
    assert [each.name for each in found.differences] == ["batch_size", "driver"]
    assert {"causes", "noise", "verdict"} <= set(found.to_dict())


def test_the_same_descriptions_have_gap_0() -> None:
    found = answer({}, {}, {})
    assert (found.gap, found.causes, found.unexplained) == (0.0, (), 0.0)
    assert "the same: gap 0" in found.verdict


def test_one_training_read_twice_has_no_noise_in_its_gap() -> None:
    """It moves between seeds by more than it is: yet it is what bookkeeping says, each time."""
    found = answer({"epochs": [0.1, -0.2, 0.3]}, {"epochs": 3}, {"epochs": 5})
    assert "is no chance" in found.verdict
    assert "within the noise" not in found.verdict
    assert "Causes: the last of epochs 3 -> 5" in found.verdict


def test_a_gap_of_seeds_is_noise() -> None:
    found = answer({"seed": [0.1, 0.11, 0.12]}, {"seed": 1}, {"seed": 2})
    assert "is noise" in found.verdict
    assert all(cause.is_noise for cause in found.causes)
    assert abs(found.gap) <= found.noise


def test_a_training_that_breaks_is_no_crash() -> None:
    for bad in (math.nan, math.inf):
        found = answer({"learning_rate": [0.1, bad]}, {}, {"learning_rate": 1e9})
        assert not math.isfinite(found.gap)
        assert found.to_json()
