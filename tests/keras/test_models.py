"""Losses of every kind of model: what the entry says, and what Keras reported of it."""

import keras
import numpy as np
import pytest

from .conftest import BACKEND, RNG, X, Y, batches, network

FIT = {"batch_size": 32, "epochs": 2, "shuffle": False, "verbose": 0}
WEIGHTS = np.array([32, 32, 6.0])


def epoch_means(losses):
    return np.asarray(losses).reshape(-1, 3) @ WEIGHTS / 70


def predictions(model, x):
    return np.asarray(keras.ops.convert_to_numpy(model(x)), np.float64)


def test_penalty_is_the_regularizers_and_add_loss(twins):
    class Adds(keras.layers.Layer):
        def call(self, inputs):
            self.add_loss(keras.ops.sum(inputs) * 0.0 + 0.25)
            return inputs

    kept = []

    def train():
        inputs = keras.Input((3,))
        dense = keras.layers.Dense(4, kernel_regularizer=keras.regularizers.L2(0.3))
        model = keras.Model(inputs, keras.layers.Dense(1)(Adds()(dense(inputs))))
        model.compile(keras.optimizers.SGD(0.0), "mse")
        kept[:] = [dense.kernel, model]
        return model, model.fit(X, Y, **FIT).history

    result = twins(train)
    kernel = np.asarray(keras.ops.convert_to_numpy(kept[0].value), np.float64)
    expected = 0.3 * (kernel**2).sum() + 0.25
    np.testing.assert_allclose(result.column("penalty"), expected, rtol=1e-6)
    errors = (predictions(kept[1], X) - Y) ** 2
    data = [errors[rows].mean() for rows in batches(32)] * 2
    np.testing.assert_allclose(result.run.losses(), np.array(data) + expected, rtol=1e-6)


def test_penalty_is_zero_without_any(twins):
    def train():
        model = network()
        model.compile("adam", "mse")
        return model, model.fit(X, Y, **FIT).history

    assert (twins(train).column("penalty") == 0).all()


def test_activity_regularizer(twins):
    def train():
        model = network(activity_regularizer=keras.regularizers.L1(0.01))
        model.compile(keras.optimizers.SGD(0.0), "mse")
        return model, model.fit(X, Y, **FIT).history

    penalty = twins(train).column("penalty")
    assert (penalty > 0).all()
    assert len(np.unique(penalty)) == 3


def test_several_outputs(twins):
    def train():
        inputs = keras.Input((3,))
        outputs = [keras.layers.Dense(1, name=name)(inputs) for name in "ab"]
        model = keras.Model(inputs, outputs)
        model.compile(keras.optimizers.SGD(0.0), ["mse", "mae"], loss_weights=[1.0, 0.3])
        kept[:] = [model]
        return model, model.fit(X, [Y, Y], **FIT).history

    kept = []
    result = twins(train)
    a, b = (np.asarray(keras.ops.convert_to_numpy(p), np.float64) for p in kept[0](X))
    losses_a = [((a - Y) ** 2)[rows].mean() for rows in batches(32)] * 2
    losses_b = [np.abs(b - Y)[rows].mean() for rows in batches(32)] * 2
    np.testing.assert_allclose(result.column("a_loss"), losses_a, rtol=1e-6)
    np.testing.assert_allclose(result.column("b_loss"), losses_b, rtol=1e-6)
    total = np.array(losses_a) + 0.3 * np.array(losses_b)
    np.testing.assert_allclose(result.run.losses(), total, rtol=1e-6)
    for reported in result.run.reported():
        assert abs(reported.difference) < 1e-6, reported


def test_sample_weights(twins):
    weights = RNG.random(70).astype("float32") * 3

    def train():
        model = network()
        model.compile(keras.optimizers.SGD(0.0), "mse")
        kept[:] = [model]
        return model, model.fit(X, Y, sample_weight=weights, **FIT).history

    kept = []
    result = twins(train)
    errors = ((predictions(kept[0], X) - Y) ** 2)[:, 0] * weights
    expected = [errors[rows].mean() for rows in batches(32)] * 2
    np.testing.assert_allclose(result.run.losses(), expected, rtol=1e-6)
    np.testing.assert_array_equal(result.column("weight"), [32, 32, 6] * 2)


def test_class_weights(twins):
    labels = (Y > 0.5).astype("float32")

    def train():
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, activation="sigmoid")])
        model.compile(keras.optimizers.SGD(0.0), "binary_crossentropy")
        kept[:] = [model]
        return model, model.fit(X, labels, class_weight={0: 1.0, 1: 5.0}, **FIT).history

    kept = []
    result = twins(train)
    p = predictions(kept[0], X)
    errors = -(labels * np.log(p) + (1 - labels) * np.log(1 - p)) * np.where(labels > 0, 5, 1)
    expected = [errors[rows].mean() for rows in batches(32)] * 2
    np.testing.assert_allclose(result.run.losses(), expected, rtol=1e-5)


def test_masked_sequences(twins):
    lengths = np.array([1] * 24 + [3] * 24 + [6] * 22)
    x = RNG.random((70, 6, 3)).astype("float32") + 0.1
    y = RNG.random((70, 6, 1)).astype("float32")
    mask = np.arange(6) < lengths[:, None]
    x[~mask] = 0

    def train():
        inputs = keras.Input((6, 3))
        model = keras.Model(inputs, keras.layers.Dense(1)(keras.layers.Masking()(inputs)))
        model.compile(keras.optimizers.SGD(0.0), "mse")
        kept[:] = [model]
        return model, model.fit(x, y, **FIT).history

    kept = []
    result = twins(train)
    errors = ((predictions(kept[0], x) - y) ** 2)[..., 0] * mask
    expected = [errors[rows].sum() / mask[rows].sum() for rows in batches(32)] * 2
    np.testing.assert_allclose(result.run.losses(), expected, rtol=1e-5)
    np.testing.assert_allclose(result.recorded["loss"], epoch_means(expected), rtol=1e-5)


def test_nan_and_infinity_are_kept(twins):
    targets = Y.copy()
    targets[33] = np.nan
    targets[66] = np.inf

    def train():
        model = network()
        model.compile(keras.optimizers.SGD(0.0), "mse")
        return model, model.fit(X, targets, **FIT).history

    run = twins(train).run
    losses = run.losses()
    assert np.isfinite(losses[0])
    assert np.isnan(losses[1])
    assert np.isinf(losses[2]) or np.isnan(losses[2])
    assert run.epochs(run.calls[0])[0].nonfinite == 2


def convnet():
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Conv2D(8, 3),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(5, kernel_regularizer="l2"),
        ]
    )


def transformer():
    inputs = keras.Input((8, 8 * 3))
    hidden = keras.layers.Dense(16)(inputs)
    attended = keras.layers.MultiHeadAttention(2, 8, dropout=0.1)(hidden, hidden)
    hidden = keras.layers.LayerNormalization()(hidden + attended)
    pooled = keras.layers.GlobalAveragePooling1D()(hidden)
    return keras.Model(inputs, keras.layers.Dense(5)(pooled))


REAL = [(convnet, True), (transformer, True), (convnet, False), (transformer, False)]
if BACKEND == "torch":
    REAL = REAL[2:]
elif BACKEND == "jax":  # without jit each operation is a program of its own: one model shows it
    REAL = REAL[:3]


@pytest.mark.parametrize(("make", "jit"), REAL)
def test_real_models(twins, make, jit):
    x = RNG.random((80, 8, 8, 3)).astype("float32")
    x = x if make is convnet else x.reshape(80, 8, 24)
    y = RNG.integers(0, 5, 80)

    def train():
        model = make()
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        optimizer = keras.optimizers.AdamW(1e-2, clipnorm=1.0)
        model.compile(optimizer, loss, metrics=["accuracy"])
        model.jit_compile = jit
        fitted = model.fit(x, y, batch_size=16, epochs=2, verbose=0, validation_split=0.2)
        batch = [model.train_on_batch(x[:16], y[:16]) for _ in range(3)]
        return model, (fitted.history, batch)

    result = twins(train)
    run = result.run
    assert [call.info["driver"] for call in run.calls] == ["fit", "train_on_batch"]
    history = result.recorded[0]["loss"]
    np.testing.assert_allclose(run.statistic("epoch_mean", call=0), history, rtol=2e-6)
    assert len(run.losses(call=1)) == 3
    assert len(set(result.column("batch_id", call=0).tolist())) >= 4  # TensorFlow repeats the order
