"""Training steps and loops of the user's own."""

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

import lossledger

from . import steps
from .conftest import BACKEND, KERAS, X, Y, assert_same, batches, network, once, raw_losses

FIT = {"batch_size": 32, "epochs": 2, "shuffle": False, "verbose": 0}
WEIGHTS = np.array([32, 32, 6.0])


def compiled(cls=None):
    model = network(cls=cls)
    model.compile(keras.optimizers.SGD(0.1), "mse")
    return model


def train_with(cls):
    def train():
        model = compiled(cls)
        return model, model.fit(X, Y, **FIT).history

    return train


EXPECTED = {
    # model: loss_name, weight kind, what History holds of the entries
    "Super": ("loss", "rows", "epoch_mean"),
    "RenamedLog": ("my_loss", "rows", "epoch_mean"),
    "OwnLoss": ("loss", "rows", "epoch_mean"),
    "FromScratch": ("my_loss", "rows", "last"),
    "ComputesLoss": ("loss", "one", "epoch_mean"),
    "OwnTrackers": ("total_loss", "one", "epoch_mean"),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_custom_train_steps(twins, name):
    result = twins(train_with(getattr(steps, name)))
    loss_name, kind, statistic = EXPECTED[name]
    losses = raw_losses(compiled, 32, 2)
    np.testing.assert_allclose(result.run.losses(), losses, rtol=2e-6)
    info = result.run.calls[0].info
    assert (info["loss_name"], info["weight_kind"]) == (loss_name, kind)
    weights = WEIGHTS if kind == "rows" else np.ones(3)
    table = losses.reshape(2, 3)
    stated = table[:, -1] if statistic == "last" else table @ weights / weights.sum()
    np.testing.assert_allclose(result.recorded[loss_name], stated, rtol=2e-6)
    history = [item for item in result.run.reported() if item.place == "history"]
    main = [item for item in history if item.name == loss_name]
    assert [item.statistic for item in main] == [statistic] * 2
    for item in history:
        assert abs(item.difference) < 1e-6, item


def test_means_of_the_user_are_named_losses(twins):
    result = twins(train_with(steps.OwnTrackers))
    np.testing.assert_allclose(result.column("half_loss"), result.run.losses() / 2, rtol=1e-6)


def test_a_step_that_shows_no_loss_trains_and_is_named(tmp_path):
    plain = once(train_with(steps.NoLoss))
    with (
        pytest.warns(lossledger.LossLedgerWarning, match=r"\[no-loss-found\]") as told,
        lossledger.record(tmp_path) as run,
    ):
        recorded = once(train_with(steps.NoLoss))
    (ours,) = [each for each in told if each.category is lossledger.LossLedgerWarning]
    assert Path(ours.filename).parent == Path(__file__).parent  # the line that trains
    assert_same(plain, recorded)
    assert lossledger.open(run.path).entries().num_rows == 0


@pytest.mark.skipif(BACKEND == "jax", reason="a GAN on JAX is a hand-written loop")
def test_gan(twins):
    def train():
        model = steps.Gan()
        model.compile(keras.optimizers.Adam(0.01), keras.optimizers.Adam(0.01))
        history = model.fit(X[:64], batch_size=32, epochs=2, verbose=0, shuffle=False)
        return [model.generator, model.critic], history.history

    result = twins(train)
    for name in ("d_loss", "g_loss"):
        means = result.column(name).reshape(2, 2).mean(1) if name == "g_loss" else None
        means = result.run.losses().reshape(2, 2).mean(1) if means is None else means
        np.testing.assert_allclose(result.recorded[name], means, rtol=1e-6)
    info = result.run.calls[0].info
    assert set(info["configuration"]["optimizers"]) == {"d_optimizer", "g_optimizer"}
    counts = {name: each["iterations"] for name, each in info["final_optimizers"].items()}
    assert (counts["d_optimizer"], counts["g_optimizer"]) == (4, 4)


def test_two_models_in_turn(twins):
    """A GAN by `train_on_batch`: each model has its own series, in the order of training."""

    def train():
        models = [compiled(), compiled()]
        out = [m.train_on_batch(X[b], Y[b]) for _ in range(3) for b in batches(32) for m in models]
        return models, out

    result = twins(train)
    run = result.run
    assert [call.model for call in run.calls] == [0, 1]
    np.testing.assert_array_equal(np.sort(run.entries()["step"].to_numpy()), np.arange(18))
    np.testing.assert_array_equal(result.column("step", model=0), np.arange(0, 18, 2))
    returned = np.array(result.recorded).reshape(-1, 2)
    for model in (0, 1):
        losses = run.losses(model=model)
        if KERAS < (3, 15):  # what was returned was a mean over all batches since the compile
            losses = np.cumsum(losses * np.tile(WEIGHTS, 3)) / np.cumsum(np.tile(WEIGHTS, 3))
        np.testing.assert_allclose(losses, returned[:, model], rtol=1e-6)
        np.testing.assert_array_equal(result.column("reported", model=model), returned[:, model])
        assert run.calls[model].epochs_from == "batch_id"
        assert [e.steps for e in run.epochs(run.calls[model])] == [3, 3, 3]
    with pytest.raises(lossledger.LossLedgerError, match="model="):
        run.losses()


def own_step_tensorflow(model, optimizer):
    import tensorflow as tf

    @tf.function
    def step(x, y):
        with tf.GradientTape() as tape:
            loss = ops.mean((model(x, training=True) - y) ** 2)
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)
        return loss

    return step


def own_step_torch(model, optimizer):
    import torch

    def step(x, y):
        model.zero_grad()
        loss = ops.mean((model(x, training=True) - ops.convert_to_tensor(y)) ** 2)
        loss.backward()
        with torch.no_grad():
            weights = model.trainable_weights
            optimizer.apply([v.value.grad for v in weights], weights)
        return loss

    return step


def own_step_jax(model, optimizer):
    import jax

    state = [[v.value for v in each] for each in (model.trainable_variables, optimizer.variables)]

    def loss_of(tv, x, y):
        y_pred, _ = model.stateless_call(tv, [], x, training=True)
        return ops.mean((y_pred - y) ** 2)

    @jax.jit
    def compiled_step(tv, ov, x, y):
        loss, gradients = jax.value_and_grad(loss_of)(tv, x, y)
        return loss, *optimizer.stateless_apply(ov, gradients, tv)

    def step(x, y):
        loss, *state[:] = compiled_step(*state, x, y)
        return loss

    return step


def loop():
    """The backend's own loop, compiled; yields each step's device scalar and its rows."""
    model = network()
    optimizer = keras.optimizers.SGD(0.1)
    optimizer.build(model.trainable_variables)
    own = {"tensorflow": own_step_tensorflow, "torch": own_step_torch, "jax": own_step_jax}
    step = own[BACKEND](model, optimizer)
    for rows in batches(32):
        x, y = X[rows], Y[rows]
        yield step(x, y), len(x)


def test_a_loop_that_adds_its_entries(tmp_path):
    keras.utils.set_random_seed(7)
    expected = [float(loss) for loss, _ in loop()]
    keras.utils.set_random_seed(7)
    with lossledger.record(tmp_path) as run:
        for _ in range(2):
            run.epoch()
            for loss, rows in loop():
                run.step(loss, rows=rows)
    opened = lossledger.open(run.path)
    np.testing.assert_array_equal(opened.losses(epoch=0), np.float32(expected))
    assert opened.calls[0].info["driver"] == "custom"
    assert opened.calls[0].epochs_from == "said"
    np.testing.assert_array_equal(opened.entries()["rows"].to_numpy(), [32, 32, 6] * 2)
    assert opened.info["warnings"] == opened.info["unseen"] == []


def test_a_loop_that_could_not_be_seen_is_named(tmp_path):
    with (
        pytest.warns(lossledger.LossLedgerWarning, match=r"\[unseen-training\].*test_custom.py"),
        lossledger.record(tmp_path) as run,
    ):
        list(loop())
    assert "nothing recorded" in run.summary()
    assert "test_custom.py" in run.summary()


def test_a_step_takes_one_number(tmp_path):
    with lossledger.record(tmp_path) as run:
        with pytest.raises(lossledger.LossLedgerError, match="one number"):
            run.step(np.zeros(3), rows=3)
        with pytest.raises(lossledger.LossLedgerError, match="counts it"):
            run.step(0.5, batch_id=3)
        run.step(0.5)
    assert lossledger.open(run.path).losses().tolist() == [0.5]


def half_and_half(y, y_pred):
    error = y_pred - ops.convert_to_tensor(y)
    return 0.3 * ops.mean(error**2) + 0.7 * ops.mean(ops.abs(error)) * 0.1


@pytest.mark.parametrize("cls", ["OwnLoss", "FromScratch", "ComputesLoss", "OwnTrackers"])
@pytest.mark.parametrize("driver", ["fit", "train_on_batch"])
def test_arithmetic_of_scalar_losses_stays_as_it_was(twins, monkeypatch, cls, driver):
    """Compilers reorder sums and products of scalars, depending on who else uses them."""
    monkeypatch.setattr(steps, "squared", half_and_half)

    def train():
        model = compiled(getattr(steps, cls))
        if driver == "fit":
            return model, model.fit(X, Y, **{**FIT, "epochs": 5}).history
        return model, [model.train_on_batch(X[b], Y[b]) for _ in range(5) for b in batches(35)]

    twins(train)
