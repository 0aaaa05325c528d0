"""Pairs of trainings whose losses differ for a known reason: which steps, and of which training.

Amounts are reckoned apart, from plain Keras (the losses of `train_on_batch` with the metrics
reset, of forward passes, of weights as they are) and float64 numpy.
"""

import keras
import numpy as np
import pytest

import lossledger

from .conftest import BACKEND, FLAT, KERAS, X, Y, batches, model_of, network
from .reconciled import ROWS, WEIGHTS, assert_causes, per_row, raw, summed


@pytest.mark.one_backend
def test_batch_logs_against_raw_losses(fit):
    run, losses = fit(), raw()
    for batch in (1, 2):
        mean = np.dot(ROWS[: batch + 1], losses[: batch + 1]) / ROWS[: batch + 1].sum()
        at = f"{run}@batch={batch}"
        found, _ = summed(f"{at}:running_mean", f"{at}:raw")
        assert_causes(found, {("convention", "exact"): losses[batch] - mean})
    found, _ = summed(f"{run}:reported", f"{run}:running_mean")
    assert found == {}


@pytest.mark.one_backend
def test_identical_trainings(fit):
    result = lossledger.reconcile(fit(), fit())
    assert result.gap == result.unexplained == 0
    assert not result.causes
    assert "identical" in result.verdict


@pytest.mark.one_backend
def test_returned_values_of_a_loop(record):
    def train(model):
        model.fit(X, Y, **FLAT)
        for part in batches(10):
            model.train_on_batch(X[part], Y[part])

    run, _ = record(train, model_of())
    losses = raw()
    model = model_of()
    model.fit(X, Y, **FLAT)
    own = []
    for part in batches(10):
        model.reset_metrics()
        own.append(float(np.ravel(model.train_on_batch(X[part], Y[part]))[0]))
    # Before 3.15 the metric still holds the epoch of fit.
    held = np.dot(ROWS, losses) + np.cumsum(own) * 10
    shown = own if KERAS >= (3, 15) else held / (70 + 10 * np.arange(1, 8))
    found, _ = summed(f"{run}@1:reported", f"{run}@1:batch_mean")
    wanted = (
        {} if KERAS >= (3, 15) else {("state_not_reset", "exact"): np.mean(own) - np.mean(shown)}
    )
    assert_causes(found, wanted)


@pytest.mark.parametrize("rate", [0.0, 0.1])
@pytest.mark.one_backend
def test_a_dropped_remainder(record, fit, rate):
    def train(model):
        for _ in range(2):
            for part in batches(32)[:2]:
                model.train_on_batch(X[part], Y[part])

    whole, (loop, _) = fit(model=model_of(rate), epochs=2), record(train, model_of(rate))
    losses = raw(rate=rate)
    found, _ = summed(f"{whole}:epoch_mean", f"{loop}:batch_mean", epoch=0)
    wanted = {("unseen_rows", "exact"): 6 / 70 * (losses[:2].mean() - losses[2])}
    assert_causes(found, wanted)
    found, _ = summed(whole, loop)
    assert set(found) == {*wanted} | ({("unseen_rows", "replayed")} if rate else set())


def test_a_loop_that_goes_back_to_restored_weights(record):
    def train(model):
        for epoch in range(3):
            before = model.get_weights()
            for part in batches(32)[: 2 * (epoch == 1)]:
                model.train_on_batch(X[part], Y[part])
            model.set_weights(before)
            for part in batches(32):
                model.train_on_batch(X[part], Y[part])
        model.set_weights([weight * 0 for weight in before])
        model.evaluate(X, Y, verbose=0)

    def straight(model):
        for part in batches(32) * 3:
            model.train_on_batch(X[part], Y[part])

    losses = raw(epochs=3)
    one, (other, _) = record(straight, model_of())[0], record(train, model_of())
    found, result = summed(one, other, epoch=1)
    twice = losses[[3, 4, 3, 4, 5]].mean() - losses[3:6].mean()
    assert_causes(found, {("double_count", "exact"): twice})
    assert "b counts 2 of 5 steps twice: 64 of 134 rows" in result.causes[0].evidence
    for epoch in (0, 2):
        result = lossledger.reconcile(one, other, epoch=epoch)
        assert result.a.value == pytest.approx(losses[3 * epoch : 3 * epoch + 3].mean(), rel=2e-6)
        assert (result.gap, result.causes) == (0, ())
    # What the series came to is not what was loaded after it, and evaluated.
    calls = [lossledger.open(run).calls[0] for run in (one, other)]
    assert calls[1].loads == [5, 8, 11]
    assert calls[0].info["final_weights"] == calls[1].info["final_weights"]
    result = lossledger.reconcile(f"{other}:epoch_mean", f"{other}:evaluate")
    assert not result.causes
    assert "the evaluated weights are not those" in result.verdict


def test_a_metric_of_the_losss_name(record):
    metrics = [keras.metrics.MeanAbsoluteError(name="loss")]
    kept = []

    def train(model):
        history = model.fit(X, Y, validation_data=(X, Y), **FLAT).history
        kept.extend((history["loss"][0], model.train_on_batch(X, Y)))

    told = r"\[reported-not-read\] The metric MeanAbsoluteError is named 'loss', as the loss is"
    with pytest.warns(lossledger.LossLedgerWarning, match=told):
        path, _ = record(train, model_of(metrics=metrics))
    run, mean = lossledger.open(path), np.dot(ROWS, raw()) / 70
    assert run.statistic("epoch_mean", call=0)[0] == pytest.approx(mean, rel=2e-6)
    assert abs(kept[0] - mean) > 0.01 * mean  # what Keras reports is the metric's
    assert not run.reported()
    for name in ("reported", "val_loss"):
        with pytest.raises(lossledger.LossLedgerError):
            lossledger.reconcile(f"{path}@0:{name}", f"{path}@0")


@pytest.mark.parametrize("rate", [0.0, 0.2])
@pytest.mark.one_backend
def test_another_order(fit, rate):
    order = np.random.default_rng(1).permutation(70)
    one = fit(model=model_of(rate))
    other = fit(X[order], Y[order], model=model_of(rate))
    found, result = summed(one, other)
    assert found == ({} if not rate else {("order", "replayed"): result.gap})
    assert result.divergence.cause == "order"
    assert "other batches" in result.divergence.evidence


def test_an_optimizer_that_forgot(record, fit):
    """Compiled again between two calls, and resumed from weights alone; on each backend."""

    def adam():
        model = model_of()
        model.compile(keras.optimizers.Adam(0.01), "mse")
        return model

    def halves(model, again):
        model.fit(X, Y, epochs=2, **FLAT)
        seam.append(model.get_weights())
        if again:
            model.compile(keras.optimizers.Adam(0.01), "mse")
        model.fit(X, Y, epochs=2, **FLAT)

    seam = []
    whole = fit(model=adam(), epochs=4)
    again, _ = record(lambda model: halves(model, True), adam())
    kept, _ = record(lambda model: halves(model, False), adam())
    resumed = adam()
    resumed.set_weights(seam[0])
    resumed = fit(model=resumed, epochs=2)
    calls = lossledger.open(again).calls
    states = [call.info[f"{which}_optimizers"] for call in calls for which in ("initial", "final")]
    assert [each["optimizer"]["iterations"] for each in states] == [0, 6, 0, 6]
    assert states[1]["optimizer"]["variables"] != states[3]["optimizer"]["variables"]
    for other in (again, resumed):
        found, result = summed(whole, other)
        assert found == {("optimizer_state", "replayed"): result.gap}
        assert result.divergence.step == 7
    found, _ = summed(whole, kept)
    assert found == {}
    found, _ = summed(again, resumed, epoch=-1)
    assert found == {}


def test_seeds_are_no_cause(fit):
    def seeded(seed):
        keras.utils.set_random_seed(seed)
        model = network(units=8)
        model.compile("sgd", "mse")
        return model

    result = lossledger.reconcile(fit(model=seeded(1)), fit(model=seeded(2)))
    assert not result.causes
    assert result.divergence.cause == "initial_weights"
    one, other = fit(model=model_of(), shuffle=True), fit(model=model_of(), shuffle=True)
    if BACKEND == "torch":  # draws its order from a generator that the seed doesn't reset
        one, other = other, one
    result = lossledger.reconcile(one, other)
    assert not result.causes


@pytest.mark.skipif(BACKEND == "torch", reason="this backend refuses steps_per_execution")
def test_steps_per_execution_hides_steps(fit):
    run = fit(model=model_of(steps_per_execution=3), batch_size=7)
    losses = raw(7)
    found, _ = summed(fit(batch_size=7), run)
    assert found == {}
    found, _ = summed(f"{run}@every=3:batch_mean", f"{run}:batch_mean")
    shown = losses[[2, 5, 8, 9]].mean()
    assert_causes(found, {("hidden_steps", "exact"): losses.mean() - shown})


@pytest.mark.one_backend
def test_epochs_of_other_rows(fit):
    def generator():
        while True:
            for part in batches(10):
                yield X[part], Y[part]

    rows = per_row(model_of())
    means = np.array([rows[p].mean() for p in batches(10)])
    run = fit(generator(), None, model=model_of(0.0), steps_per_epoch=5, epochs=3, batch_size=None)
    whole = fit(model=model_of(0.0), batch_size=10)
    seen = [means[[(5 * epoch + n) % 7 for n in range(5)]].mean() for epoch in range(3)]
    for epoch in range(3):
        found, _ = summed(f"{run}@epoch={epoch}", whole)
        assert_causes(found, {("unseen_rows", "exact"): means.mean() - seen[epoch]})
    # A number of steps ends its epochs: they are pieces of the same data.
    found, _ = summed(f"{run}@epoch=0", f"{run}@epoch=1")
    assert_causes(found, {("unseen_rows", "exact"): seen[1] - seen[0]})


@pytest.mark.one_backend
def test_history_of_a_custom_step_is_its_last(record):
    class Custom(keras.Model):
        def train_step(self, *arguments):
            found = super().train_step(*arguments)
            if BACKEND == "jax":
                return {"my_loss": found[0]["loss"]}, found[1]
            return {"my_loss": found["loss"]}

    model = model_of(make=lambda units: network(units, cls=Custom))
    run, _ = record(lambda model: model.fit(X, Y, **FLAT), model)
    reported = lossledger.open(run).calls[0].reported[0]
    found, result = summed(f"{run}:reported", f"{run}:epoch_mean")
    losses = raw()
    assert result.a.value == pytest.approx(float(reported["value"]))
    mean = np.dot(ROWS, losses) / 70
    assert result.gap == pytest.approx(mean - result.a.value, abs=2e-7)
    assert {cause for cause, _ in found} <= {"convention"}


@pytest.mark.parametrize(
    ("optimizer", "arguments", "cause"),
    [
        ({"gradient_accumulation_steps": 2}, {}, "hyperparameters"),
        ({}, {"sample_weight": WEIGHTS}, "sample_weight"),
    ],
)
@pytest.mark.one_backend
def test_one_thing_changed_is_a_replay(fit, optimizer, arguments, cause):
    model = model_of()
    model.compile(keras.optimizers.SGD(0.1, **optimizer), "mse")
    found, result = summed(fit(epochs=2), fit(model=model, epochs=2, **arguments))
    assert set(found) == {(cause, "replayed")}
    assert result.divergence.cause == cause


@pytest.mark.skipif(BACKEND != "tensorflow", reason="needs tf.data")
def test_tf_data_tells_whether_it_shuffles(fit):
    """Of one that does, against one that doesn't, the order is a cause; of two that do, chance."""
    import tensorflow as tf

    data = tf.data.Dataset.from_tensor_slices((X, Y))
    plain, *drawn = (
        fit(each.batch(32), None, model=model_of(), batch_size=None, shuffle=True)
        for each in (data, data.shuffle(70, seed=1), data.shuffle(70, seed=2))
    )
    found, result = summed(plain, drawn[0])
    assert found == {("order", "replayed"): result.gap}
    assert not lossledger.reconcile(*drawn).causes


@pytest.mark.skipif(BACKEND != "tensorflow", reason="needs tf.data")
def test_tf_data_drops_a_remainder(fit):
    import tensorflow as tf

    data = tf.data.Dataset.from_tensor_slices((X, Y))
    runs = [
        fit(data.batch(32, drop_remainder=drop), None, model=model_of(0.0), batch_size=None)
        for drop in (False, True)
    ]
    rows = per_row(model_of())
    found, _ = summed(*runs)
    assert_causes(found, {("unseen_rows", "exact"): rows[:64].mean() - rows.mean()})
    weighted = tf.data.Dataset.from_tensor_slices((X, Y, WEIGHTS)).batch(32)
    moved = [fit(each, None, batch_size=None) for each in (data.batch(32), weighted)]
    found, result = summed(*moved)
    assert found == {("sample_weight", "replayed"): result.gap}
