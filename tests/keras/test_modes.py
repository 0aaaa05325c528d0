"""Every way that Keras compiles a step: recording changes nothing, and the entries are exact."""

import gc
import shutil

import keras
import numpy as np
import pytest

import lossledger

from .conftest import BACKEND, X, Y, batches, network, raw_losses

# What `compile` chooses itself is one of these, and what all other tests train by.
MODES = {
    "jit": {"jit_compile": True},
    "no_jit": {"jit_compile": False},
    "eager": {"run_eagerly": True},
    "steps_per_execution": {"steps_per_execution": 4},
}
if BACKEND == "torch":
    del MODES["jit"], MODES["steps_per_execution"]


def sgd_model(**compile_arguments):
    model = network()
    model.compile(keras.optimizers.SGD(0.1), "mse", metrics=["mae"], **compile_arguments)
    return model


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("driver", ["fit", "train_on_batch"])
def test_modes(twins, mode, driver):
    def train():
        model = sgd_model(**MODES[mode])
        if driver == "fit":
            history = model.fit(X, Y, batch_size=32, epochs=3, shuffle=False, verbose=0)
            return model, history.history
        sizes = batches(32)
        if mode == "steps_per_execution":
            sizes = sizes[:1]
        return model, [model.train_on_batch(X[b], Y[b]) for _ in range(3) for b in sizes]

    result = twins(train)
    loss = result.run.losses()
    if driver == "train_on_batch" and mode == "steps_per_execution":
        assert len(loss) == 3
        return
    expected = raw_losses(sgd_model, 32, 3)
    np.testing.assert_allclose(loss, expected, rtol=2e-6)
    np.testing.assert_array_equal(result.column("rows"), [32, 32, 6] * 3)
    np.testing.assert_array_equal(result.column("weight"), [32, 32, 6] * 3)
    np.testing.assert_array_equal(result.column("step"), np.arange(9))
    np.testing.assert_array_equal(result.column("batch")[:3], [0, 1, 2])
    np.testing.assert_allclose(result.column("learning_rate"), 0.1, rtol=1e-6)
    assert result.column("updated").all()
    assert (np.diff(result.column("time")) >= 0).all()
    ids = result.column("batch_id").reshape(3, 3)
    assert (ids == ids[0]).all()
    assert len(set(ids[0])) == 3
    weights = np.array([32, 32, 6.0])
    means = loss.reshape(3, 3) @ weights / 70
    np.testing.assert_allclose(result.run.statistic("epoch_mean"), means, rtol=1e-12)
    if driver == "fit":
        np.testing.assert_allclose(result.recorded["loss"], means, rtol=1e-6)
    else:
        np.testing.assert_allclose(
            result.column("reported"), [value[0] for value in result.recorded], rtol=0
        )


@pytest.mark.skipif(BACKEND == "torch", reason="Keras refuses steps_per_execution > 1 on torch")
@pytest.mark.parametrize("steps", [3, 10, 64])
def test_steps_that_no_callback_sees(twins, steps):
    """70 rows in batches of 7 are 10 steps an epoch, whatever the steps an execution."""

    def train():
        model = sgd_model(steps_per_execution=steps)
        return model, model.fit(X, Y, batch_size=7, epochs=3, shuffle=False, verbose=0).history

    result = twins(train)
    np.testing.assert_allclose(result.run.losses(), raw_losses(sgd_model, 7, 3), rtol=2e-6)
    np.testing.assert_array_equal(result.column("epoch"), np.repeat([0, 1, 2], 10))
    np.testing.assert_array_equal(result.column("batch"), np.tile(np.arange(10), 3))


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision(twins, policy):
    def make():
        keras.config.set_dtype_policy(policy)
        try:
            model = network()
        finally:
            keras.config.set_dtype_policy("float32")
        model.compile(keras.optimizers.SGD(0.1), "mse")
        return model

    def train():
        model = make()
        return model, model.fit(X, Y, batch_size=7, epochs=1, shuffle=False, verbose=0).history

    result = twins(train)
    np.testing.assert_allclose(result.run.losses(), raw_losses(make, 7, 1), rtol=1e-3)
    assert result.column("updated").all()


def test_skipped_updates_of_loss_scaling(twins):
    """A gradient that overflows reports its loss and moves nothing; the entry says so."""
    targets = Y.copy()
    targets[14:21] = np.inf

    def train():
        keras.config.set_dtype_policy("mixed_float16")
        try:
            model = network()
        finally:
            keras.config.set_dtype_policy("float32")
        model.compile(keras.optimizers.SGD(0.01), "mse")
        return model, model.fit(X, targets, batch_size=7, shuffle=False, verbose=0).history

    result = twins(train)
    np.testing.assert_array_equal(result.column("updated"), [True, True, False, *[True] * 7])
    losses = result.run.losses()
    assert not np.isfinite(losses[2])
    assert np.isfinite(np.delete(losses, 2)).all()


def test_gradient_accumulation(twins):
    """70 rows in batches of 7, three to an update: steps 3, 6, 9, ... move the weights."""

    def make():
        model = network()
        optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=3)
        model.compile(optimizer, "mse")
        return model

    def train():
        model = make()
        return model, model.fit(X, Y, batch_size=7, epochs=2, shuffle=False, verbose=0).history

    result = twins(train)
    np.testing.assert_array_equal(result.column("updated"), (np.arange(20) + 1) % 3 == 0)
    np.testing.assert_allclose(result.run.losses(), raw_losses(make, 7, 2), rtol=2e-6)


def test_learning_rate_of_a_schedule(twins):
    def train():
        model = network()
        schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 5, 0.5)
        model.compile(keras.optimizers.Adam(schedule), "mse")
        return model, model.fit(X, Y, batch_size=7, epochs=2, verbose=0).history

    expected = 0.1 * 0.5 ** (np.arange(20) / 5)
    np.testing.assert_allclose(twins(train).column("learning_rate"), expected, rtol=1e-6)


def test_learning_rate_that_a_callback_sets(twins):
    def train():
        model = network()
        model.compile(keras.optimizers.Adam(0.1), "mse")
        schedule = keras.callbacks.LearningRateScheduler(lambda epoch: 0.1 / (epoch + 1))
        history = model.fit(X, Y, batch_size=35, epochs=3, verbose=0, callbacks=[schedule])
        return model, history.history

    expected = np.repeat(0.1 / np.arange(1, 4), 2)
    np.testing.assert_allclose(twins(train).column("learning_rate"), expected, rtol=1e-6)


def test_more_steps_than_the_device_keeps(twins):
    """3,500 steps in one epoch: longer than any buffer on the way out."""
    x = np.tile(X, (50, 1))
    y = np.tile(Y, (50, 1))

    def train():
        model = network()
        model.compile(keras.optimizers.SGD(0.01), "mse")
        return model, model.fit(x, y, batch_size=1, epochs=1, shuffle=False, verbose=0).history

    if BACKEND == "torch":
        x, y = x[:1200], y[:1200]
    result = twins(train)
    np.testing.assert_array_equal(result.column("step"), np.arange(len(x)))
    np.testing.assert_allclose(result.run.losses().mean(), result.recorded["loss"][0], rtol=1e-5)
    ids = result.column("batch_id")
    assert (ids[:70] == ids[70:140]).all()
    assert len(set(ids.tolist())) == 70


@pytest.mark.skipif(BACKEND != "torch", reason="torch.compile is torch's")
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_torch_compile(twins):
    def train():
        inputs = keras.Input((3,))
        dense = [keras.layers.Dense(1, name=name, kernel_regularizer="l2") for name in "ab"]
        model = keras.Model(inputs, [each(inputs) for each in dense])
        losses = ["mse", "mae"]
        model.compile(keras.optimizers.SGD(0.1), losses, loss_weights=[1, 0.3], jit_compile=True)
        return model, model.fit(X, [Y, Y], batch_size=35, epochs=3, verbose=0).history

    result = twins(train)
    losses = result.run.losses()
    assert len(losses) == 6
    parts = result.column("a_loss") + 0.3 * result.column("b_loss") + result.column("penalty")
    np.testing.assert_allclose(losses, parts, rtol=1e-6)
    np.testing.assert_allclose(losses.reshape(3, 2).mean(1), result.recorded["loss"], rtol=1e-6)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="elsewhere no model leaves anything behind")
def test_a_model_that_is_let_go_of_while_another_is_traced(tmp_path):
    class Forgets(keras.Model):
        def train_step(self, data):
            del others[:]
            gc.collect()
            return super().train_step(data)

    first = network()
    first.compile("sgd", "mse")
    with lossledger.record(tmp_path):
        first.fit(X, Y, verbose=0)
    others = [first]
    del first
    with lossledger.record(tmp_path) as run:
        model = network(cls=Forgets)
        model.compile("sgd", "mse", jit_compile=True)  # XLA refuses any operation of a queue
        model.fit(X, Y, batch_size=32, verbose=0)
    opened = lossledger.open(run.path)
    assert not others
    assert [call.steps for call in opened.calls] == [3]
    assert opened.info["warnings"] == []
