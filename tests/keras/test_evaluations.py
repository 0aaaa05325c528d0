"""Scripts that only evaluate, and evaluations before a training: recorded, and told apart.

Amounts are reckoned apart, from forward passes and float64 numpy.
"""

import keras
import numpy as np
import pytest

import lossledger

from .conftest import FLAT, KERAS, X, Y, batches, network
from .reconciled import assert_causes, per_row, summed


def compiled(model, **choices):
    model.compile(keras.optimizers.SGD(0.1), keras.losses.MeanSquaredError(**choices))
    return model


def evaluate(model, x=X, y=Y, **arguments):
    return model.evaluate(x, y, verbose=0, **arguments)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """A run without a training, and the model of its calls 0 (a mean) and 1 (a sum)."""
    keras.utils.set_random_seed(7)
    model = network()
    with lossledger.record(tmp_path_factory.mktemp("runs")) as run:
        for choices in ({}, {"reduction": "sum"}):
            compiled(model, **choices)
            for size in (10, 32):
                evaluate(model, batch_size=size)
        evaluate(model, X[:30], Y[:30])
    return run.path, model


def test_a_script_that_only_evaluates_is_a_run(evaluated):
    path, model = evaluated
    run = lossledger.open(path)
    assert [(call.driver, call.steps) for call in run.calls] == [("evaluate", 0)] * 2
    assert run.statistic("evaluate", call=0) == pytest.approx([per_row(model).mean()] * 2, rel=1e-6)
    assert run.info["summary"]["steps"] == 0
    assert len(run.entries()) == 0


def test_a_sum_depends_on_the_evaluated_batches(evaluated):
    """The epoch's value is `sum(n_k S_k) / N`, S the sum over a batch of n rows."""
    path, model = evaluated
    rows = per_row(model)
    by = {b: sum(len(rows[p]) * rows[p].sum() for p in batches(b)) / 70 for b in (10, 32)}
    found, _ = summed(f"{path}@1:evaluate:n=0", f"{path}@1:evaluate:n=1")
    assert_causes(found, {("reduction", "measured"): by[32] - by[10]}, by[32])
    found, _ = summed(f"{path}@0:evaluate:n=0", f"{path}@0:evaluate:n=1")
    assert not found
    found, result = summed(f"{path}@0", f"{path}@1:evaluate:n=1")
    assert_causes(found, {("reduction", "replayed"): by[32] - rows.mean()}, by[32])
    both = lossledger.reconcile(f"{path}@1:evaluate:n=1", f"{path}@1:evaluate:n=2")
    assert not both.causes
    assert "reduction, unseen_rows" in both.verdict
    with pytest.raises(lossledger.LossLedgerError, match="n=3 of 3"):
        lossledger.reconcile(f"{path}@1:evaluate:n=3", f"{path}@1")
    assert result.comparable


@pytest.mark.one_backend
def test_a_mask_depends_on_the_evaluated_batches(tmp_path):
    """Within a batch the mean is over valid steps, over batches by rows; without it over all."""
    rng = np.random.default_rng(0)
    x, y = rng.random((24, 6, 3)).astype("f4") + 0.1, rng.random((24, 6, 1)).astype("f4")
    valid = np.arange(6) < np.repeat([1, 3, 6], 8)[:, None]
    x[~valid] = 0

    def of(*layers):
        inputs = hidden = keras.Input((6, 3))
        for layer in layers:
            hidden = layer(hidden)
        return compiled(keras.Model(inputs, keras.layers.Dense(1)(hidden)))

    masked, plain = of(keras.layers.Masking(0.0)), of()
    plain.set_weights(masked.get_weights())
    with lossledger.record(tmp_path) as run:
        evaluate(masked, x, y, batch_size=8)
        evaluate(masked, x, y, batch_size=24)
        evaluate(plain, x, y, batch_size=24)
    losses = per_row(plain, x, y)
    tokens = losses[valid].mean()
    means = [losses[p][valid[p]].mean() for p in batches(8, 24)]
    found, _ = summed(f"{run.path}@0:evaluate:n=0", f"{run.path}@0")
    assert_causes(found, {("weighting", "measured"): tokens - np.mean(means)})
    found, _ = summed(f"{run.path}@0", f"{run.path}@1")
    assert_causes(found, {("mask", "replayed"): losses.mean() - tokens})
    both = lossledger.reconcile(f"{run.path}@0:evaluate:n=0", f"{run.path}@1")
    assert not both.causes
    assert "mask, weighting" in both.verdict


def test_an_evaluation_before_a_training(tmp_path):
    """It changes nothing of what is said of a training, nor its numbers; its weights are others."""
    keras.utils.set_random_seed(7)
    model, teacher = compiled(network()), compiled(network(units=2))
    with lossledger.record(tmp_path) as run:
        before, _ = evaluate(model), evaluate(teacher)
        history = model.fit(X, Y, **FLAT).history["loss"]
        after, part = evaluate(model), evaluate(model, X[:30], Y[:30])
    opened = lossledger.open(run.path)
    assert [call.driver for call in opened.calls] == ["fit", "evaluate", "evaluate"]
    assert [call.model for call in opened.calls] == [0, 0, 1]
    assert opened.statistic("epoch_mean") == pytest.approx(history, rel=1e-6)
    assert opened.statistic("evaluate") == pytest.approx([after, part])
    result = lossledger.reconcile(f"{run.path}@1:evaluate", f"{run.path}@0:evaluate:n=0")
    assert (result.a.value, result.b.value) == (before, after)
    assert not result.causes
    assert "not the same" in result.verdict
    found, result = summed(f"{run.path}@1", run.path)
    assert_causes(found, {("moving_weights", "measured"): history[-1] - before})
    assert "the weights that the training began with" in result.causes[0].evidence
    found, result = summed(run.path, f"{run.path}:evaluate:n=0")
    assert found == {("moving_weights", "measured"): result.gap}
    found, _ = summed(f"{run.path}:evaluate:n=0", f"{run.path}:evaluate")
    assert_causes(found, {("unseen_rows", "measured"): part - after})


def test_an_evaluation_before_a_training_alone_is_what_evaluate_means(tmp_path):
    with lossledger.record(tmp_path) as run:
        model = compiled(network())
        before = evaluate(model)
        first = model.fit(X, Y, **FLAT).history["loss"][0]
    found, _ = summed((run.path, "@epoch=0:epoch_mean"), (run.path, "evaluate"))
    assert_causes(found, {("moving_weights", "measured"): before - first})
    with pytest.raises(lossledger.LossLedgerError) as caught:
        lossledger.reconcile(run.path, (run.path, "@call=0:evaluate"))
    assert caught.value.slug == "not-reported"


def test_a_batch_that_is_tested_after_a_training(tmp_path):
    """`test_on_batch` is a measurement as `evaluate` is; within an epoch of `fit` it isn't one."""

    class Tests(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.test_on_batch(X[:5], Y[:5])

    keras.utils.set_random_seed(7)
    model = compiled(network())
    with lossledger.record(tmp_path) as run:
        model.fit(X, Y, **FLAT, callbacks=[Tests()])
        model.reset_metrics()
        tested = float(np.ravel(model.test_on_batch(X, Y))[0])
        model.reset_metrics()
        model.test_on_batch(X[:30], Y[:30])
        rows = per_row(model)
        for part in batches(32):
            model.train_on_batch(X[part], Y[part])
        for _ in range(70):  # of which the first 64 are kept
            model.test_on_batch(X, Y)
    assert tested == pytest.approx(rows.mean(), rel=1e-6)
    found, result = summed(f"{run.path}@0", f"{run.path}@0:tested:n=0")
    assert found == {("moving_weights", "measured"): result.gap}
    assert result.b.value == tested
    found, _ = summed(f"{run.path}@0:tested:n=0", f"{run.path}@0:tested")
    assert_causes(found, {("unseen_rows", "measured"): rows[:30].mean() - rows.mean()})
    counts = [
        sum(i["place"] == "tested" for i in c.reported) for c in lossledger.open(run.path).calls
    ]
    assert counts == [2, 64]


@pytest.mark.one_backend
def test_frozen_dropout_against_a_tested_batch(tmp_path):
    inputs = keras.Input((3,))
    hidden = keras.layers.Dropout(0.5, seed=1)(keras.layers.Dense(8, activation="relu")(inputs))
    model = keras.Model(inputs, keras.layers.Dense(1)(hidden))
    model.compile(keras.optimizers.SGD(0.0), "mse")
    with lossledger.record(tmp_path) as run:
        trained = [float(model.train_on_batch(X, Y)) for _ in range(4)]  # each is an epoch
        tested = float(model.test_on_batch(X, Y))
    if KERAS >= (3, 15):  # before, both numbers hold earlier batches
        found, _ = summed(f"{run.path}:batch_mean", f"{run.path}:tested")
        assert_causes(found, {("inference_mode", "measured"): tested - trained[-1]})
