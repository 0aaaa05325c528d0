"""Trainings whose reported loss surprises people: stated from the entries, reckoned apart.

Each builds the arithmetic that explains a report from plain numpy and demands that the run's own
statement, and what it says of the reported number, agree with it.
"""

import keras
import numpy as np
import pytest

import lossledger

from .conftest import BACKEND, KERAS, X, Y, batches, network, raw_losses

RNG = np.random.default_rng(5)
FLAT = {"shuffle": False, "verbose": 0}


def sgd(rate=0.1, **compile_arguments):
    model = network(units=8)
    model.compile(keras.optimizers.SGD(rate), "mse", **compile_arguments)
    return model


def recorded(tmp_path, train):
    keras.backend.clear_session()
    keras.utils.set_random_seed(7)
    with lossledger.record(tmp_path) as run:
        outcome = train()
    return outcome, lossledger.open(run.path)


def per_row(model, x, y):
    y_pred = np.asarray(keras.ops.convert_to_numpy(model(x)), np.float64)
    return ((y_pred - y) ** 2).mean(1)


@pytest.mark.one_backend
def test_batch_logs_are_running_means(tmp_path):
    class Logs(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.seen = []

        def on_train_batch_end(self, batch, logs=None):
            self.seen.append(float(logs["loss"]))

    logs = Logs()
    _, run = recorded(tmp_path, lambda: sgd().fit(X, Y, batch_size=32, callbacks=[logs], **FLAT))
    raw, rows = raw_losses(sgd, 32, 1), np.array([32, 32, 6.0])
    np.testing.assert_allclose(logs.seen, np.cumsum(raw * rows) / np.cumsum(rows), rtol=1e-6)
    np.testing.assert_allclose(run.statistic("running_mean"), logs.seen, rtol=1e-6)


@pytest.mark.one_backend
def test_returned_values_by_version(tmp_path):
    """Raw from Keras 3.15 on; before, a mean over all batches since the model was compiled."""

    def train():
        model = sgd()
        return [float(model.train_on_batch(X[b], Y[b])) for b in batches(10)]

    returned, run = recorded(tmp_path, train)
    raw = raw_losses(sgd, 10, 1)
    expected = raw if KERAS >= (3, 15) else np.cumsum(raw) / np.arange(1, 8)
    np.testing.assert_allclose(returned, expected, rtol=2e-6)
    np.testing.assert_allclose(run.losses(), raw, rtol=2e-6)
    (item,) = [item for item in run.reported() if item.place == "returned"]
    assert item.statistic == ("raw" if KERAS >= (3, 15) else "cumulative_mean")
    assert abs(item.difference) < 1e-6


@pytest.mark.one_backend
def test_a_dropped_remainder(tmp_path):
    """1,000 rows in batches of 32: 32 steps of `fit`; 31 of a loop over `len(x) // 32`."""
    x = RNG.random((1000, 3)).astype("float32")
    y = RNG.random((1000, 1)).astype("float32")

    def train():
        model = sgd(0.0)
        history = model.fit(x, y, batch_size=32, **FLAT).history["loss"]
        for k in range(1000 // 32):
            model.train_on_batch(x[32 * k : 32 * k + 32], y[32 * k : 32 * k + 32])
        return history[0], per_row(model, x, y)

    (reported, errors), run = recorded(tmp_path, train)
    assert reported == pytest.approx(errors.mean(), rel=1e-6)
    assert run.statistic("epoch_mean", call=0)[0] == pytest.approx(errors.mean(), rel=1e-6)
    assert run.statistic("batch_mean", call=1)[0] == pytest.approx(errors[:992].mean(), rel=1e-6)
    whole, dropped = run.entries(call=0), run.entries(call=1)
    assert (whole["rows"].to_numpy().sum(), dropped["rows"].to_numpy().sum()) == (1000, 992)
    assert whole["batch_id"].to_pylist()[:31] == dropped["batch_id"].to_pylist()


@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "mean_with_sample_weight", "sum"])
def test_sample_weights_and_reductions(tmp_path, reduction):
    weights = RNG.random(70).astype("float32") * 3

    def train():
        model = network()
        loss = keras.losses.MeanSquaredError(reduction=reduction)
        model.compile(keras.optimizers.SGD(0.0), loss)
        history = model.fit(X, Y, sample_weight=weights, batch_size=32, **FLAT).history["loss"]
        return history[0], per_row(model, X, Y)

    (reported, errors), run = recorded(tmp_path, train)
    sums = np.array([(weights[b] * errors[b]).sum() for b in batches(32)])
    rows = np.array([32, 32, 6.0])
    over = {"sum_over_batch_size": rows, "sum": np.ones(3)}
    over["mean_with_sample_weight"] = np.array([weights[b].sum(dtype="f8") for b in batches(32)])
    losses = sums / over[reduction]
    np.testing.assert_allclose(run.losses(), losses, rtol=1e-5)
    assert reported == pytest.approx((losses * rows).sum() / 70, rel=1e-5)
    assert run.statistic("epoch_mean")[0] == pytest.approx((losses * rows).sum() / 70, rel=1e-5)
    assert run.calls[0].mean_of_rows is (reduction != "sum")


@pytest.mark.one_backend
def test_epochs_that_drift_over_the_data(tmp_path):
    """`steps_per_epoch` that does not divide the data: each epoch is over other rows."""
    slices = batches(10)

    def forever():
        while True:
            for rows in slices:
                yield X[rows], Y[rows]

    def train():
        model = sgd(0.0)
        history = model.fit(forever(), steps_per_epoch=5, epochs=3, verbose=0).history["loss"]
        return history, per_row(model, X, Y)

    (reported, errors), run = recorded(tmp_path, train)
    means = np.array([errors[b].mean() for b in slices])
    expected = [np.mean([means[(5 * e + k) % 7] for k in range(5)]) for e in range(3)]
    np.testing.assert_allclose(reported, expected, rtol=1e-6)
    np.testing.assert_allclose(run.statistic("epoch_mean"), expected, rtol=1e-6)


@pytest.mark.one_backend
def test_the_epoch_mean_is_of_weights_that_move(tmp_path):
    def train():
        model = sgd(0.2)
        history = model.fit(X, Y, batch_size=10, **FLAT).history["loss"]
        return history[0], model.evaluate(X, Y, verbose=0), per_row(model, X, Y).mean()

    (reported, evaluated, final), run = recorded(tmp_path, train)
    assert run.statistic("epoch_mean")[0] == pytest.approx(reported, rel=1e-6)
    assert evaluated == pytest.approx(final, rel=1e-5)
    (item,) = [item for item in run.reported() if item.place == "evaluate"]
    assert item.value == evaluated
    assert item.stated is None


@pytest.mark.skipif(BACKEND == "torch", reason="Keras refuses steps_per_execution > 1 on torch")
def test_steps_that_logs_hide(tmp_path):
    seen = []

    class Logs(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(batch)

    def train():
        return sgd(steps_per_execution=4).fit(X, Y, batch_size=7, callbacks=[Logs()], **FLAT)

    _, run = recorded(tmp_path, train)
    assert len(seen) == 3
    np.testing.assert_allclose(run.losses(), raw_losses(sgd, 7, 1), rtol=2e-6)


@pytest.mark.one_backend
def test_epochs_of_a_shuffled_loop_are_found(tmp_path):
    """Every epoch in another order, in other batches: the epochs' fingerprints are equal."""
    rng = np.random.default_rng(3)

    def train():
        model = sgd()
        for _ in range(4):
            order = rng.permutation(70)
            for rows in batches(32):
                model.train_on_batch(X[order[rows]], Y[order[rows]])

    _, run = recorded(tmp_path, train)
    assert run.calls[0].epochs_from == "batch_id"
    assert [statement.steps for statement in run.epochs(run.calls[0])] == [3] * 4
    assert [statement.rows for statement in run.epochs(run.calls[0])] == [70] * 4


@pytest.mark.skipif(BACKEND != "tensorflow", reason="tf.distribute is TensorFlow's")
def test_replicas_that_are_not_recorded_train_as_if_we_were_not_there(tmp_path):
    import tensorflow as tf

    class Two:
        num_replicas_in_sync = 2

    model = sgd(jit_compile=True)
    strategy, model._distribute_strategy = model._distribute_strategy, Two()
    with lossledger.record(tmp_path) as run:
        with pytest.warns(lossledger.LossLedgerWarning, match=r"\[not-tapped\] 2 replicas"):
            assert not run.wants(model)
        model._distribute_strategy = strategy
        history = model.fit(tf.constant(X), tf.constant(Y), batch_size=32, **FLAT)
    assert len(history.history["loss"]) == 1
