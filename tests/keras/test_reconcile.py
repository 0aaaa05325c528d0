"""Pairs of trainings whose losses differ for a known reason: the right cause, to 1e-6 of the loss.

Amounts are reckoned apart, from plain Keras (the losses of `train_on_batch` with the metrics
reset, of forward passes, of weights as they are) and float64 numpy.
"""

import functools

import keras
import numpy as np
import pytest

import lossledger

from .conftest import BACKEND, KERAS, X, Y, batches, network, raw_losses

RNG = np.random.default_rng(5)
WEIGHTS = (RNG.random(70) * 3).astype("float32")
ROWS = np.array([32, 32, 6.0])
FLAT = {"shuffle": False, "verbose": 0, "batch_size": 32}


def model_of(rate=0.1, loss="mse", make=network, **compile_arguments):
    keras.backend.clear_session()
    keras.utils.set_random_seed(7)
    model = make(units=8)
    model.compile(keras.optimizers.SGD(rate), loss, **compile_arguments)
    return model


@pytest.fixture
def record(tmp_path):
    """Records what a function trains; gives the run's path and the model."""

    def recorded(train, model):
        with lossledger.record(tmp_path) as run:
            train(model)
        assert run.path is not None
        return run.path, model

    return recorded


@pytest.fixture
def fit(record):
    """Records a `fit` of a fresh model on X and Y; gives the run's path."""

    def fitted(x=X, y=Y, model=None, after=None, **arguments):
        def train(model):
            model.fit(x, y, **{**FLAT, **arguments})
            if after is not None:
                after(model)

        return record(train, model or model_of())[0]

    return fitted


def per_row(model, x=X, y=Y):
    y_pred = np.asarray(keras.ops.convert_to_numpy(model(x)), np.float64)
    return ((y_pred - y) ** 2).mean(-1)


def summed(*numbers, **choices):
    """Amounts by cause and kind; all that is left is rounding."""
    result = lossledger.reconcile(*numbers, **choices)
    assert abs(result.unexplained) <= 1e-6 * max(abs(result.a.value), abs(result.b.value))
    found = {(each.cause, each.kind): each.amount for each in result.causes}
    size = 1e-6 * max(abs(result.a.value), abs(result.b.value))
    return {key: amount for key, amount in found.items() if abs(amount) > size}, result


def assert_causes(found, wanted, size=0.1):
    assert set(found) == set(wanted)
    assert found == pytest.approx(wanted, rel=2e-6, abs=2e-6 * size)


@functools.cache
def raw(size=32, epochs=1, **choices):
    return raw_losses(functools.partial(model_of, **choices), size, epochs).astype(np.float64)


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
    mean = np.dot(ROWS, losses) / 70
    found, result = summed(f"{whole}:epoch_mean", f"{loop}:batch_mean", epoch=0)
    wanted = {
        ("weighting", "exact"): losses.mean() - mean,
        ("unseen_rows", "exact"): losses[:2].mean() - losses.mean(),
    }
    assert_causes(found, wanted)
    assert result.gap == pytest.approx(6 / 70 * (losses[:2].mean() - losses[2]), abs=1e-7)
    kinds = {("weighting", "exact"), ("unseen_rows", "exact")}
    found, _ = summed(whole, loop)
    assert set(found) == kinds | ({("unseen_rows", "replayed")} if rate else set())


def test_a_loop_that_goes_back_to_restored_weights(record):
    def train(model):
        for epoch in range(3):
            before = model.get_weights()
            for part in batches(32)[: 2 * (epoch == 1)]:
                model.train_on_batch(X[part], Y[part])
            model.set_weights(before)
            for part in batches(32):
                model.train_on_batch(X[part], Y[part])

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


@pytest.mark.parametrize("other", [False, True])
@pytest.mark.one_backend
def test_rows_evaluated_that_end_inside_a_batch(fit, other):
    x, y = (X[:45] + 1, Y[:45]) if other else (X[:45].copy(), Y[:45])
    still = model_of(0.0)
    run = fit(model=still, shuffle=True, after=lambda m: m.evaluate(x, y, verbose=0))
    amount = per_row(still, x, y).mean() - per_row(still).mean()
    found, result = summed(run, f"{run}:evaluate")
    assert_causes(found, {("data" if other else "unseen_rows", "measured"): amount})
    assert ("none of them among the training's 70" in result.causes[0].evidence) == other


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


@pytest.mark.parametrize("reduction", ["mean_with_sample_weight", "sum"])
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


def test_moving_weights(fit):
    kept = []
    run = fit(after=lambda model: kept.append((model, model.evaluate(X, Y, verbose=0))))
    (model, evaluated), losses = kept[0], raw()
    wanted = {("moving_weights", "measured"): evaluated - np.dot(ROWS, losses) / 70}
    for live in ({}, {"model": model, "x": X, "y": Y}):
        found, _ = summed(f"{run}:epoch_mean", f"{run}:evaluate", **live)
        assert_causes(found, wanted)


@pytest.mark.one_backend
@pytest.mark.parametrize("rate", [0.0, 0.003])
def test_an_evaluation_in_other_batches(fit, rate):
    """Of a sum over the batch; as the weights moved, the final ones tell both apart."""
    kept = []
    loss = keras.losses.MeanSquaredError(reduction="sum")

    def evaluate(model):
        kept.append((model, model.evaluate(X, Y, batch_size=10, verbose=0)))

    run = fit(model=model_of(rate, loss), after=evaluate)
    model, evaluated = kept[0]
    rows, parts = per_row(model), batches(32)
    whole = np.dot([len(rows[p]) for p in parts], [rows[p].sum() for p in parts]) / 70
    trained = lossledger.reconcile(run, run).a.value
    wanted = {("reduction", "measured"): evaluated - whole}
    if rate:
        assert "Pass model=" in lossledger.reconcile(run, f"{run}:evaluate").verdict
        wanted["moving_weights", "measured"] = whole - trained
    live = {"model": model, "x": X, "y": Y} if rate else {}
    found, _ = summed(run, f"{run}:evaluate", **live)
    assert_causes(found, wanted, 1)


@pytest.mark.one_backend
def test_class_weights_and_moving_weights(fit):
    """The training weighs rows by their class, at weights on their way; `evaluate` does neither."""
    labels, kept = (X[:, :1] > 0.5).astype("float32"), []

    def evaluate(model):
        kept.append((model, model.evaluate(X, labels, verbose=0)))

    run = fit(y=labels, class_weight={0: 1.0, 1: 3.0}, after=evaluate)
    model, evaluated = kept[0]
    rows, weights = per_row(model, X, labels), np.where(labels[:, 0] > 0.5, 3.0, 1.0)
    found, result = summed(run, f"{run}:evaluate", model=model, x=X, y=labels)
    weighed = (weights * rows).mean()
    wanted = {("class_weight", "measured"): evaluated - weighed}
    wanted["moving_weights", "measured"] = weighed - result.a.value
    assert_causes(found, wanted)


@pytest.mark.one_backend
def test_an_evaluation_beside_a_part_of_the_loss(fit):
    """What leads from the number to the mean of all is exact; only the rest is of the weights."""
    make = functools.partial(network, kernel_regularizer=keras.regularizers.L2(0.05))
    still = fit(model=model_of(0.0, make=make), after=lambda m: m.evaluate(X, Y, verbose=0))
    found, result = summed(f"{still}@loss=data", f"{still}:evaluate")
    assert_causes(found, {("penalty", "exact"): result.gap})
    moved = fit(after=lambda model: model.evaluate(X, Y, verbose=0))
    found, result = summed(f"{moved}:batch_mean", f"{moved}:evaluate")
    losses = raw()
    mean = np.dot(ROWS, losses) / 70
    wanted = {("weighting", "exact"): mean - losses.mean()}
    wanted["moving_weights", "measured"] = result.b.value - mean
    assert_causes(found, wanted)
    assert "weighting" in result.verdict


def test_dropout_in_training_and_in_inference(fit):
    def noisy(units):
        inputs = keras.Input((3,))
        hidden = keras.layers.Dense(units, activation="relu")(inputs)
        hidden = keras.layers.Dropout(0.5, seed=1)(hidden)
        return keras.Model(inputs, keras.layers.Dense(1)(hidden))

    kept = []

    def evaluate(model):
        kept.append((model, model.evaluate(X, Y, verbose=0)))

    still = fit(model=model_of(0.0, make=noisy), after=evaluate)
    found, result = summed(still, f"{still}:evaluate")
    assert found == {("inference_mode", "measured"): result.gap}
    run = fit(model=model_of(make=noisy), after=evaluate)
    result = lossledger.reconcile(run, f"{run}:evaluate")
    assert not result.causes
    assert "together" in result.verdict
    model = kept[-1][0]
    before = [np.array(keras.ops.convert_to_numpy(v)) for v in model.variables]
    found, result = summed(run, f"{run}:evaluate", model=model, x=X, y=Y)
    for variable, value in zip(model.variables, before, strict=True):
        assert np.array_equal(keras.ops.convert_to_numpy(variable), value)
    assert set(found) == {("inference_mode", "measured"), ("moving_weights", "measured")}
    # The expected square of inverted dropout of rate 1/2: that of its mean, and the variance.
    first, bias, second, last = (w.astype(np.float64) for w in model.get_weights())
    hidden = np.maximum(X @ first + bias, 0)
    variance = ((hidden * second.ravel()) ** 2).sum(1).mean()
    (mode,) = [each for each in result.causes if each.cause == "inference_mode"]
    assert abs(mode.amount + variance) < 2 * mode.noise
    assert last.shape == (1,)
    model.set_weights([w * 2 for w in model.get_weights()])
    with pytest.raises(lossledger.LossLedgerError, match="hasn't the weights"):
        lossledger.reconcile(run, f"{run}:evaluate", model=model, x=X, y=Y)


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
    for epoch in range(3):
        seen = means[[(5 * epoch + place) % 7 for place in range(5)]].mean()
        found, _ = summed(f"{run}@epoch={epoch}", whole)
        assert_causes(found, {("unseen_rows", "exact"): means.mean() - seen})


@pytest.mark.one_backend
def test_a_part_held_out_for_validation(fit):
    rows = per_row(model_of())
    one, other = fit(model=model_of(0.0)), fit(model=model_of(0.0), validation_split=0.2)
    found, _ = summed(one, other)
    assert_causes(found, {("unseen_rows", "exact"): rows[:56].mean() - rows.mean()})


@pytest.mark.one_backend
def test_a_validation_over_its_first_rows(fit):
    model = model_of()
    validation = {"validation_data": (X, Y), "validation_batch_size": 16}
    runs = [fit(**validation, **more) for more in ({}, {"validation_steps": 2})]
    model.fit(X, Y, **FLAT)
    rows = per_row(model)
    found, _ = summed(*(f"{run}:val_loss" for run in runs))
    assert_causes(found, {("unseen_rows", "measured"): rows[:32].mean() - rows.mean()})


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


@pytest.mark.one_backend
def test_losses_of_other_functions_are_not_compared(fit):
    result = lossledger.reconcile(fit(), fit(model=model_of(loss="mae")))
    assert not result.comparable
    assert not result.causes
    alike = fit(model=model_of(loss=keras.losses.MeanSquaredError()))
    wider = fit(model=model_of(make=lambda units: network(units + 1)))
    assert "structure" in lossledger.reconcile(alike, wider).reasons[0]


@pytest.mark.parametrize("method", ["evaluate", "test_on_batch"])
@pytest.mark.one_backend
def test_an_evaluation_inside_an_epoch(fit, method):
    class Evaluates(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 1 and method == "evaluate":
                self.seen = self.model.evaluate(X[:40], Y[:40], batch_size=8, verbose=0)
            elif batch == 1:
                self.seen = float(self.model.test_on_batch(X[:40], Y[:40]))

    evaluates = Evaluates()
    run = fit(batch_size=16, callbacks=[evaluates])
    losses, rows = raw(16), np.array([16, 16, 16, 16, 6.0])
    mean = np.dot(rows, losses) / 70
    if method == "test_on_batch" and KERAS < (3, 15):  # it resets nothing
        wrong = (evaluates.seen * (40 + 32) + np.dot(rows[2:], losses[2:])) / (40 + 70)
        found, _ = summed(f"{run}:reported", f"{run}:epoch_mean")
        assert_causes(found, {("state_not_reset", "exact"): mean - wrong})
        return
    wrong = (evaluates.seen * 40 + np.dot(rows, losses)) - np.dot(rows[:2], losses[:2])
    found, result = summed(f"{run}:reported", f"{run}:epoch_mean")
    assert_causes(found, {("state_not_reset", "exact"): mean - wrong / (40 + 38)})
    assert "of 40 rows after 2 steps" in result.causes[0].evidence


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
