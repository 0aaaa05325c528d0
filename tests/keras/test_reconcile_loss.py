"""Pairs of trainings whose losses differ for a known reason: what a step's loss is made of.

Amounts are reckoned apart, from plain Keras (the losses of `train_on_batch` with the metrics
reset, of forward passes, of weights as they are) and float64 numpy.
"""

import functools

import keras
import numpy as np
import pytest

import lossledger

from .conftest import X, Y, batches, model_of, network
from .reconciled import ROWS, WEIGHTS, assert_causes, per_row, raw, summed

RNG = np.random.default_rng(5)


@pytest.mark.one_backend
def test_a_regularizer(fit):
    def regular():
        make = lambda units: network(units, kernel_regularizer=keras.regularizers.L2(0.05))  # noqa: E731
        return model_of(make=make)

    class Kernels(keras.callbacks.Callback):
        sizes: list[float] = []  # noqa: RUF012

        def on_train_batch_begin(self, batch, logs=None):
            kernel = keras.ops.convert_to_numpy(self.model.layers[1].kernel)
            self.sizes.append(0.05 * float((kernel.astype(np.float64) ** 2).sum()))

    kernels = Kernels()
    run = fit(model=regular(), callbacks=[kernels])
    own = np.dot(ROWS, kernels.sizes) / 70
    found, _ = summed(run, f"{run}@loss=data")
    assert_causes(found, {("penalty", "exact"): -own})
    found, result = summed(fit(), run)
    assert found["penalty", "exact"] == pytest.approx(own, rel=2e-6)
    assert result.divergence.cause == "penalty"


def test_a_loss_that_a_model_scales(fit):
    class Quarter(keras.Model):
        def compute_loss(self, *arguments, **named):
            return super().compute_loss(*arguments, **named) / 4

    make = functools.partial(network, cls=Quarter)
    # A rate four times as large, of gradients a quarter as large.
    found, _ = summed(fit(), fit(model=model_of(0.4, make=make)))
    mean = np.dot(ROWS, raw()) / 70
    assert_causes(found, {("accumulation_scaling", "exact"): -0.75 * mean})


@pytest.mark.parametrize(
    "reduction", ["mean_with_sample_weight", pytest.param("sum", marks=pytest.mark.one_backend)]
)
def test_sample_weights_and_reductions(fit, reduction):
    rows = per_row(model_of())
    parts = batches(32)
    plain = np.dot(ROWS, [(WEIGHTS[p] * rows[p]).sum() / len(rows[p]) for p in parts]) / 70
    divisors = [1.0 if reduction == "sum" else WEIGHTS[p].sum(dtype="f8") for p in parts]
    totals = [(WEIGHTS[p].astype("f8") * rows[p]).sum() for p in parts]
    reduced = np.dot(ROWS, np.divide(totals, divisors)) / 70
    loss = keras.losses.MeanSquaredError(reduction=reduction)
    one = fit(model=model_of(0.0), sample_weight=WEIGHTS)
    other = fit(model=model_of(0.0, loss), sample_weight=WEIGHTS)
    found, _ = summed(fit(model=model_of(0.0)), one)
    assert_causes(found, {("sample_weight", "exact"): plain - rows.mean()})
    if reduction == "sum" or "sample_weight" in lossledger.open(one).entries().column_names:
        found, _ = summed(one, other)
        assert_causes(found, {("reduction", "exact"): reduced - plain}, 10)


@pytest.mark.one_backend
def test_class_weights(fit):
    labels = (X[:, :1] > 0.5).astype("float32")
    rows = per_row(model_of(), X, labels)
    weights = np.where(labels[:, 0] > 0.5, 3.0, 1.0)
    one = fit(y=labels, model=model_of(0.0))
    other = fit(y=labels, model=model_of(0.0), class_weight={0: 1.0, 1: 3.0})
    found, _ = summed(one, other)
    assert_causes(found, {("class_weight", "exact"): (weights * rows).mean() - rows.mean()})


@pytest.mark.one_backend
def test_a_sum_depends_on_the_batches(fit):
    loss = keras.losses.MeanSquaredError(reduction="sum")
    rows = per_row(model_of())

    def mean(size):
        parts = batches(size)
        return np.dot([len(rows[p]) for p in parts], [rows[p].sum() for p in parts]) / 70

    found, _ = summed(*(fit(model=model_of(0.0, loss), batch_size=size) for size in (10, 32)))
    assert_causes(found, {("reduction", "exact"): mean(32) - mean(10)}, 10)
    found, _ = summed(*(fit(model=model_of(0.0), batch_size=size) for size in (10, 32)))
    assert found == {}


@pytest.mark.one_backend
def test_what_other_batches_change_at_weights_that_stand_still(fit):
    """A mean by sample weights, and a sum that a layer adds, depend on how the rows are cut."""
    rows, parts = per_row(model_of()), {size: batches(size) for size in (10, 32)}

    def by_rows(size, batch):
        return np.dot([len(rows[p]) for p in parts[size]], [batch(p) for p in parts[size]]) / 70

    def weighed(part):
        return (WEIGHTS[part].astype("f8") * rows[part]).sum() / WEIGHTS[part].sum(dtype="f8")

    loss = keras.losses.MeanSquaredError(reduction="mean_with_sample_weight")
    runs = [fit(model=model_of(0.0, loss), sample_weight=WEIGHTS, batch_size=n) for n in parts]
    if "sample_weight" in lossledger.open(runs[0]).entries().column_names:
        found, _ = summed(*runs)
        assert_causes(found, {("weighting", "exact"): by_rows(32, weighed) - by_rows(10, weighed)})
        found, _ = summed(fit(model=model_of(0.0)), runs[0])
        wanted = {("sample_weight", "exact"): (WEIGHTS * rows).mean() - rows.mean()}
        wanted["reduction", "exact"] = by_rows(10, weighed) - (WEIGHTS * rows).mean()
        assert_causes(found, wanted)

    class Adds(keras.layers.Layer):
        def call(self, inputs):
            self.add_loss(0.1 * keras.ops.sum(inputs))
            return inputs

    def adding(units):
        inputs = keras.Input((3,))
        hidden = keras.layers.Dense(units, activation="relu")(Adds()(inputs))
        return keras.Model(inputs, keras.layers.Dense(1)(hidden))

    runs = [fit(model=model_of(0.0, make=adding), batch_size=size) for size in parts]
    sums = [by_rows(size, lambda part: 0.1 * X[part].sum(dtype="f8")) for size in parts]
    found, _ = summed(*runs)
    assert_causes(found, {("penalty", "exact"): sums[1] - sums[0]}, 10)


@pytest.mark.one_backend
def test_weights_of_outputs(fit):
    def two(units):
        inputs = keras.Input((3,))
        outputs = [keras.layers.Dense(1, name=name)(inputs) for name in ("a", "b")]
        return keras.Model(inputs, outputs)

    def model(weights):
        return model_of(0.0, ["mse", "mae"], two, loss_weights=weights)

    b = np.asarray(keras.ops.convert_to_numpy(model([1.0, 1.0])(X)[1]), np.float64)
    mean = np.abs(b - Y).mean()
    one, other = (fit(y=[Y, Y], model=model([1.0, weight])) for weight in (0.3, 1.0))
    found, _ = summed(one, other)
    assert_causes(found, {("loss_weights", "exact"): 0.7 * mean}, 1)
    found, _ = summed(one, f"{one}@loss=a_loss+b_loss")
    assert_causes(found, {("loss_weights", "exact"): 0.7 * mean}, 1)
    shown = lossledger.open(one).calls[0].reported
    shown = {item["name"]: item["value"] for item in shown}
    found, result = summed(f"{one}:a_loss", f"{one}:loss")
    assert (result.a.value, result.b.value) == (shown["a_loss"], shown["loss"])
    assert_causes(found, {("loss_weights", "exact"): 0.3 * mean}, 1)


@pytest.mark.one_backend
@pytest.mark.parametrize("form", [list, dict])
def test_reductions_of_several_outputs(fit, form):
    """One reduction of each output's own loss, of rows of five losses; in another order, too."""
    x = RNG.random((40, 5, 2)).astype("float32")
    y = {"a": x.sum(-1, keepdims=True), "b": x.mean(-1, keepdims=True)}

    def model(reduction, rate):
        keras.utils.set_random_seed(1)
        inputs = keras.Input((5, 2))
        outputs = {name: keras.layers.Dense(1, name=name)(inputs) for name in y}
        made = keras.Model(inputs, given(outputs))
        losses = {name: keras.losses.MeanSquaredError(reduction=reduction) for name in y}
        made.compile(keras.optimizers.SGD(rate), given(losses))
        return made

    def given(table):
        return table if form is dict else list(table.values())

    def run(reduction, rate, order):
        targets = given({name: each[order] for name, each in y.items()})
        return fit(x[order], targets, model=model(reduction, rate), batch_size=10)

    order, other = np.arange(40), RNG.permutation(40)
    outputs = model("sum", 0.0)(x)
    pairs = zip(outputs.values() if form is dict else outputs, y.values(), strict=True)
    mean = sum(float(((np.asarray(out, "f8") - target) ** 2).mean()) for out, target in pairs)
    found, _ = summed(run("sum_over_batch_size", 0.0, order), run("sum", 0.0, other))
    assert_causes(found, {("reduction", "exact"): 49 * mean}, 50)
    found, result = summed(run("sum_over_batch_size", 0.01, order), run("sum", 0.01, order))
    assert set(found) == {("reduction", "exact"), ("reduction", "replayed")}
    assert found["reduction", "exact"] == pytest.approx(result.b.value * 49 / 50, rel=1e-5)


def test_masked_targets(fit):
    """The mean over valid targets, of each batch; the epoch's weighs batches by rows."""
    lengths = np.repeat([1, 3, 6], 8)
    valid = np.arange(6) < lengths[:, None]
    x = (RNG.random((24, 6, 3)) + 0.1).astype("float32") * valid[..., None]
    y = RNG.random((24, 6, 1)).astype("float32")

    def model(masks):
        def make(units):
            inputs = keras.Input((6, 3))
            hidden = keras.layers.Masking(0.0)(inputs) if masks else inputs
            return keras.Model(inputs, keras.layers.Dense(1)(hidden))

        return model_of(0.0, make=make)

    losses = per_row(model(False), x, y)
    by_target = losses[valid].mean()
    by_batch = np.mean([losses[p][valid[p]].mean() for p in batches(8, 24)])
    whole, small = (fit(x, y, model=model(True), batch_size=size) for size in (24, 8))
    found, _ = summed(whole, fit(x, y, model=model(False), batch_size=24))
    assert_causes(found, {("mask", "exact"): losses.mean() - by_target})
    if "elements" in lossledger.open(small).entries().column_names:
        found, _ = summed(small, whole)
        assert_causes(found, {("weighting", "exact"): by_target - by_batch})
        found, _ = summed(small, f"{small}:epoch_mean:weight=elements")
        assert_causes(found, {("weighting", "exact"): by_target - by_batch})


@pytest.mark.one_backend
def test_losses_of_other_functions_are_not_compared(fit):
    result = lossledger.reconcile(fit(), fit(model=model_of(loss="mae")))
    assert not result.comparable
    assert not result.causes
    alike = fit(model=model_of(loss=keras.losses.MeanSquaredError()))
    wider = fit(model=model_of(make=lambda units: network(units + 1)))
    assert "structure" in lossledger.reconcile(alike, wider).reasons[0]
