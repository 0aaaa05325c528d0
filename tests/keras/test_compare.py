"""Gaps priced by training again, against the same trainings written out with plain Keras."""

import math

import keras
import numpy as np
import pytest

import lossledger
from lossledger.errors import LossLedgerError

from .conftest import network

RNG = np.random.default_rng(0)
ROWS, BATCH, EPOCHS = 200, 32, 3
X = RNG.random((ROWS, 3)).astype("float32")
Y = (X.sum(1, keepdims=True) > 1.5).astype("float32")
FIRST, SEED = 1, 2
TOLERANCE = 1e-6


def build():
    model = network(units=8)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
    return model


def noisy():
    inputs = keras.Input((3,))
    hidden = keras.layers.Dropout(0.5)(keras.layers.Dense(8, activation="relu")(inputs))
    hidden = keras.layers.BatchNormalization()(hidden)
    model = keras.Model(inputs, keras.layers.Dense(1)(hidden))
    model.compile("adam", "mse")
    return model


def fresh():
    keras.utils.set_random_seed(FIRST)
    model = build()
    keras.utils.set_random_seed(SEED)
    return model


def by_fit(shuffle: bool) -> float:
    """`fit`'s own History; shuffled, one `fit` an epoch on rows in the order that is documented."""
    model = fresh()
    for epoch in range(EPOCHS):
        draw = np.random.default_rng((SEED, epoch))
        order = draw.permutation(ROWS) if shuffle else np.arange(ROWS)
        about = {"batch_size": BATCH, "shuffle": False, "verbose": 0}
        history = model.fit(X[order], Y[order], **about).history
    return history["loss"][-1]


def by_loop(rows: int) -> np.ndarray:
    """The raw losses of `train_on_batch`, float64 (epochs, batches)."""
    model = fresh()
    losses = []
    for _ in range(EPOCHS):
        for begin in range(0, rows, BATCH):
            model.reset_metrics()
            chosen = slice(begin, min(begin + BATCH, rows))
            losses.append(float(np.ravel(model.train_on_batch(X[chosen], Y[chosen]))[0]))
    return np.array(losses).reshape(EPOCHS, -1)


def compare(a: dict, b: dict, make=build, **arguments):
    about = {"epochs": EPOCHS, "batch_size": BATCH, "initial_weights": FIRST, "seed": SEED}
    found = lossledger.compare(make, (X, Y), {**about, **a}, {**about, **b}, **arguments)
    total = math.fsum((*(cause.amount for cause in found.causes), found.unexplained))
    assert abs(total - found.gap) < 1e-12
    assert abs(found.unexplained) < 1e-12
    return found


def test_from_fit_to_a_loop_of_whole_batches() -> None:
    """Shuffle, weighting, the remainder left out of the mean, and never trained on."""
    whole = ROWS - ROWS % BATCH
    weights = np.r_[np.full(ROWS // BATCH, float(BATCH)), ROWS % BATCH]
    every, fewer = by_loop(ROWS)[-1], by_loop(whole)[-1]
    chain = [
        by_fit(True),
        by_fit(False),
        np.average(every, weights=weights),
        every.mean(),
        every[:-1].mean(),
        fewer.mean(),
    ]
    found = compare({}, {"driver": "train_on_batch", "remainder": "drop"}, repeat=1)
    assert found.a.value == pytest.approx(chain[0], abs=TOLERANCE)
    assert found.b.value == pytest.approx(chain[-1], abs=TOLERANCE)
    names = [(cause.cause, cause.kind) for cause in found.causes]
    assert names == [
        ("order", "replayed"),
        # fit without shuffling trains the same batches as the loop: no cause.
        ("weighting", "exact"),
        ("unseen_rows", "exact"),
        ("unseen_rows", "replayed"),
    ]
    amounts = [cause.amount for cause in found.causes]
    wanted = np.diff([chain[0], *chain[2:]])
    assert abs(chain[1] - chain[2]) < TOLERANCE
    np.testing.assert_allclose(amounts, wanted, atol=TOLERANCE)
    assert found.noise is None


def test_shuffled_drivers_train_the_same_batches() -> None:
    found = compare(
        {"statistic": "last"},
        {"driver": "train_on_batch", "shuffle": True, "statistic": "last"},
        repeat=2,
    )
    assert abs(found.gap) < TOLERANCE


@pytest.mark.one_backend
def test_a_mean_never_reset() -> None:
    raw = by_loop(ROWS).ravel()
    weights = np.tile(np.r_[np.full(ROWS // BATCH, float(BATCH)), ROWS % BATCH], EPOCHS)
    running = np.cumsum(raw * weights) / np.cumsum(weights)
    last = slice(len(raw) - len(raw) // EPOCHS, None)
    side = {"driver": "train_on_batch"}
    found = compare(side, {**side, "reset_metrics": False}, repeat=1)
    (cause,) = found.causes
    assert (cause.cause, cause.kind) == ("state_not_reset", "exact")
    assert cause.amount == pytest.approx(running[last].mean() - raw[last].mean(), abs=TOLERANCE)


@pytest.mark.one_backend
def test_descriptions_that_differ_by_nothing_have_gap_0() -> None:
    found = compare({}, {}, noisy, repeat=2)
    assert (found.gap, found.causes, found.unexplained) == (0.0, (), 0.0)
    assert "gap 0" in found.verdict


@pytest.mark.one_backend
def test_a_seed_alone_is_noise() -> None:
    found = compare({"seed": 3}, {"seed": 4}, noisy, repeat=3)
    assert found.gap != 0
    assert "noise" in found.verdict
    assert abs(found.gap) <= found.noise
    assert all(cause.is_noise for cause in found.causes)


def test_nothing_is_left_of_the_trainings_before() -> None:
    """Momentum, moving averages, dropout's streams: whatever was trained first."""
    a = {"shuffle": False, "driver": "train_on_batch"}
    b = {**a, "batch_size": 64}
    there, back = compare(a, b, noisy, repeat=2), compare(b, a, noisy, repeat=2)
    assert there.a.value == back.b.value
    assert there.b.value == back.a.value
    assert there.gap != 0


def test_averaged_weights_stay_aside_until_the_training_ends() -> None:
    """A shuffled replay is several loops; the end of each isn't the end of the training."""
    optimizer = keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.9)
    a = {"optimizer": optimizer, "statistic": "last"}
    found = compare(a, {**a, "driver": "train_on_batch", "shuffle": True}, repeat=1)
    assert abs(found.gap) < TOLERANCE


@pytest.mark.one_backend
def test_a_real_cause_is_told_from_noise() -> None:
    weights = fresh().get_weights()
    about = {"initial_weights": weights}
    b = {**about, "learning_rate": 1e-5, "seed": 5}
    found = compare({**about, "learning_rate": 0.1}, b, repeat=4)
    (rate,) = (cause for cause in found.causes if not cause.is_noise)
    assert "learning_rate 0.1 -> 1e-05" in rate.evidence
    assert any(cause.is_noise for cause in found.causes)


@pytest.mark.one_backend
def test_shapley_shares_sum_and_do_not_depend_on_the_way() -> None:
    a, b = {"learning_rate": 0.1}, {"learning_rate": 0.05, "batch_size": 64}
    there = compare(a, b, repeat=2, order="shapley")
    back = compare(b, a, repeat=2, order="shapley")
    assert len(there.causes) == 2
    for cause, other in zip(there.causes, back.causes, strict=True):
        assert cause.amount == pytest.approx(-other.amount, rel=1e-9, abs=1e-12)
    assert "all 2 orders" in there.verdict


def test_optimizers_weights_and_precision() -> None:
    weights = [np.full_like(each, 0.1) for each in build().get_weights()]
    b = {"initial_weights": weights, "optimizer": {"class_name": "Adam", "config": {}}}
    b |= {"dtype": "mixed_bfloat16", "shuffle": False}
    found = compare({"shuffle": False}, b, repeat=1)
    named = [cause.evidence.split()[0] for cause in found.causes]
    assert named == ["initial_weights", "dtype", "optimizer"]
    assert keras.config.dtype_policy().name == "float32"
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = build()
    finally:
        keras.config.set_dtype_policy("float32")
    model.set_weights(weights)
    model.compile(keras.optimizers.Adam(), "mse")
    arguments = {"batch_size": BATCH, "epochs": EPOCHS, "shuffle": False, "verbose": 0}
    plain = model.fit(X, Y, **arguments).history["loss"][-1]
    assert found.b.value == pytest.approx(plain, rel=1e-6)


@pytest.mark.one_backend
def test_dropout_is_switched_off() -> None:
    found = compare({"dropout": True}, {"dropout": False}, noisy, repeat=1)
    assert [cause.cause for cause in found.causes] == ["randomness"]


@pytest.mark.one_backend
def test_what_cannot_be_compared_is_one_error() -> None:
    for arguments, slug in [
        ((build, (X, Y[:3]), {}, {}), "replay-data"),
        ((lambda: network(), (X, Y), {}, {"seed": 1}), "replay-build"),
        ((build, (X, Y), {}, {"batch_size": 500, "remainder": "drop"}), "replay-data"),
        ((build, (X, Y), {}, {"batchsize": 1}), "description"),
    ]:
        with pytest.raises(LossLedgerError) as error:
            lossledger.compare(*arguments)
        assert error.value.slug == slug
    with pytest.raises(LossLedgerError, match="repeat=0"):
        lossledger.compare(build, (X, Y), {}, {}, repeat=0)
