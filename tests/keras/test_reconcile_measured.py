"""Pairs of trainings whose losses differ for a known reason: losses that were evaluated.

Amounts are reckoned apart, from plain Keras (the losses of `train_on_batch` with the metrics
reset, of forward passes, of weights as they are) and float64 numpy.
"""

import functools

import keras
import numpy as np
import pytest

import lossledger

from .conftest import FLAT, KERAS, X, Y, batches, model_of, network
from .reconciled import ROWS, assert_causes, per_row, raw, summed


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


@pytest.mark.parametrize("other", [False, True])
@pytest.mark.one_backend
def test_rows_evaluated_that_end_inside_a_batch(fit, other):
    x, y = (X[:45] + 1, Y[:45]) if other else (X[:45].copy(), Y[:45])
    still = model_of(0.0)
    run = fit(
        model=still,
        shuffle=True,
        validation_data=(x, y),
        after=lambda m: m.evaluate(x, y, verbose=0),
    )
    amount = per_row(still, x, y).mean() - per_row(still).mean()
    for number in ("evaluate", "val_loss"):
        found, result = summed(run, f"{run}:{number}")
        assert_causes(found, {("data" if other else "unseen_rows", "measured"): amount})
        assert ("none of them among the training's 70" in result.causes[0].evidence) == other


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


def test_a_validation_on_a_data_set(fit):
    """Its rows are what Keras counted; of which size its batches were, nothing says."""

    class Rows(keras.utils.PyDataset):
        def __init__(self, rows):
            super().__init__()
            self.rows = rows

        def __len__(self):
            return -(-self.rows // 16)

        def __getitem__(self, place):
            part = slice(16 * place, min(16 * place + 16, self.rows))
            return X[part], Y[part]

    model = model_of(0.0)
    errors = per_row(model)
    loss = keras.losses.MeanSquaredError(reduction="sum")
    whole = fit(validation_data=Rows(70), model=model_of(0.0, loss))
    sums = [[errors[part].sum() for part in batches(size)] for size in (32, 16)]
    means = [
        np.dot(each, [len(X[p]) for p in batches(size)]) / 70
        for each, size in zip(sums, (32, 16), strict=True)
    ]
    found, _ = summed(whole, f"{whole}:val_loss")
    assert_causes(found, {("reduction", "measured"): means[1] - means[0]}, 10)
    runs = [fit(validation_data=Rows(rows), model=model_of(0.0)) for rows in (70, 40)]
    found, _ = summed(*(f"{run}:val_loss" for run in runs))
    assert_causes(found, {("unseen_rows", "measured"): errors[:40].mean() - errors.mean()})
    assert (
        "among these is not on record"
        in lossledger.reconcile(runs[1], f"{runs[1]}:val_loss").verdict
    )


@pytest.mark.one_backend
def test_a_loop_evaluated_on_a_part_of_its_rows(record):
    """In order or shuffled; on rows that are others, that are held out, or nobody knows what."""
    mixed = np.random.default_rng(3).permutation(70)
    rows, first = per_row(model_of()), np.arange(40)

    def found(x, y, order=None, last=70):
        def train(model):
            taken = np.arange(last) if order is None else order[order < last]
            for k in range(0, last, 32):
                part = slice(k, min(k + 32, last)) if order is None else taken[k : k + 32]
                model.train_on_batch(X[part], Y[part])
            model.evaluate(x, y, verbose=0)

        run, model = record(train, model_of(0.0))
        gap = per_row(model, x, y).mean() - rows[:last].mean()
        result = lossledger.reconcile(f"{run}:epoch_mean", f"{run}:evaluate")
        assert result.gap == pytest.approx(gap, abs=1e-6)
        return [each.cause for each in result.causes], result.verdict

    for order in (None, mixed):
        assert found(X[:40], Y[:40], order)[0] == ["unseen_rows"]
        causes, told = found(X[56:], Y[56:], order, 56)
        assert causes == ["data"]
        assert "All of the gap is data" in told
    assert found(X[:40] + 1, Y[:40])[0] == ["data"]
    causes, told = found(X[first], Y[first], mixed)  # a copy, which nothing ties to X
    assert causes == []
    assert "whether they are among these is not on record" in told


@pytest.mark.one_backend
def test_averaged_weights_that_fit_alone_puts_in(record):
    """The trainings agree in every step; what is evaluated afterwards are other weights."""

    def made():
        model = model_of()
        model.compile(keras.optimizers.SGD(0.05, use_ema=True, ema_momentum=0.9), "mse")
        return model

    def by_fit(model):
        model.fit(X, Y, batch_size=35, shuffle=False, verbose=0)
        model.evaluate(X, Y, verbose=0)

    def by_hand(model):
        for part in (slice(35), slice(35, 70)):
            model.train_on_batch(X[part], Y[part])
        model.evaluate(X, Y, verbose=0)

    (one, averaged), (other, plain) = (record(each, made()) for each in (by_fit, by_hand))
    gap = per_row(plain).mean() - per_row(averaged).mean()
    assert abs(gap) > 1e-3
    result = lossledger.reconcile((one, "evaluate"), (other, "evaluate"))
    assert_causes(summed((one, "evaluate"), (other, "evaluate"))[0], {("driver", "measured"): gap})
    assert "use_ema=True" in result.causes[0].evidence


@pytest.mark.one_backend
def test_a_validation_of_the_weights_that_averages_replace(record):
    model = model_of()
    model.compile(keras.optimizers.SGD(0.05, use_ema=True, ema_momentum=0.9), "mse")
    shown = []

    def train(model):
        history = model.fit(X, Y, batch_size=35, validation_data=(X, Y), shuffle=False, verbose=0)
        shown.extend(history.history["val_loss"])
        model.evaluate(X, Y, verbose=0)

    run, averaged = record(train, model)
    gap = per_row(averaged).mean() - shown[0]
    assert abs(gap) > 1e-3
    found = summed((run, "val_loss"), (run, "evaluate"))[0]
    assert_causes(found, {("moving_weights", "measured"): gap})


@pytest.mark.one_backend
def test_weights_that_one_program_sets_in_the_end(fit):
    """The one goes back to its first weights, as `restore_best_weights` may; both evaluate."""
    shown = []

    def evaluate(model):
        shown.append(model.evaluate(X, Y, verbose=0))

    plain = fit(after=evaluate)
    model = model_of()
    first = model.get_weights()
    restore = keras.callbacks.LambdaCallback(on_train_end=lambda logs: model.set_weights(first))
    restored = fit(model=model, after=evaluate, callbacks=[restore])
    found = summed((plain, "evaluate"), (restored, "evaluate"))[0]
    assert_causes(found, {("convention", "measured"): shown[1] - shown[0]})


@pytest.mark.one_backend
def test_evaluations_after_more_epochs_of_the_same_training(fit):
    shown = []

    def evaluate(model):
        shown.append(model.evaluate(X, Y, verbose=0))

    validated = {"validation_data": (X, Y)}
    one, more = (fit(epochs=epochs, after=evaluate, **validated) for epochs in (1, 3))
    wanted = {("convention", "measured"): shown[1] - shown[0]}
    for name in ("evaluate", "val_loss"):
        assert_causes(summed((one, name), (more, name))[0], wanted)
    half = fit(epochs=3, validation_data=(X[:40], Y[:40]))
    result = lossledger.reconcile((one, "val_loss"), (half, "val_loss"))
    assert not result.causes
    assert "differ in convention, unseen_rows" in result.verdict
    result = lossledger.reconcile((half, "@epoch=0:val_loss"), (half, "@epoch=2:val_loss"))
    assert [each.cause for each in result.causes] == ["convention"]
