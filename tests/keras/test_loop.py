"""`Loop` trains as `fit` does: weights, optimizer state, History and random streams, bit by bit.

In the numeric mode that `fit` compiles. `test_loop_plan.py` has what XLA may change.
"""

import signal
from typing import Any

import keras
import numpy as np
import pytest

import lossledger
from lossledger.loop.engine import PLACE

from .conftest import BACKEND, X, Y, assert_same, network, once, raw_losses

MODES = ("run", "step", "mixed")
Z = (X.sum(1) > 1.5).astype("int32")


def drive(loop: lossledger.Loop, mode: str) -> Any:
    """Train all of a loop: at once, a step at a time, or both by turns."""
    if mode == "run":
        return loop.run()
    for epoch in loop:
        if mode == "mixed":
            epoch.run(2)
            next(iter(epoch), None)
            epoch.run()
        else:
            for step in epoch:
                assert step.rows
    return loop.history


def layered(**compiled: Any) -> Any:
    """A model with all that a step may change: dropout's seeds, moving means, metrics."""
    model = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(5, activation="relu", kernel_regularizer="l2"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.4),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )
    given = {"optimizer": "adam", "loss": "binary_crossentropy", "metrics": ["mae"]}
    model.compile(**{**given, **compiled})
    return model


def assert_as_fit(
    make: Any, mode: str, /, *data: Any, loop: dict[str, Any] | None = None, **arguments: Any
) -> None:
    """Train with `fit` and with a loop from the same seeds; nothing may differ.

    Args:
        make: Makes the model.
        mode: One of `MODES`.
        *data: What both take, or functions that make it.
        loop: What only the loop takes.
        **arguments: What both take.
    """
    arguments = {"epochs": 3, "verbose": 0, **arguments}
    own = loop or {}

    def fit() -> Any:
        model = make()
        made = [each() if callable(each) else each for each in data]
        history = model.fit(*made, **arguments)
        return model, (history.history, history.epoch)

    def looped() -> Any:
        model = make()
        made = [each() if callable(each) else each for each in data]
        history = drive(lossledger.Loop(model, *made, **arguments, **own), mode)
        return model, (history.history, history.epoch)

    assert_same(once(fit), once(looped))


ARGUMENTS: dict[str, dict[str, Any]] = {
    "whole": {"batch_size": 35},
    "one": {"batch_size": 70, "initial_epoch": 1},
    "within": {"shuffle": "batch", "batch_size": 30},
    "short": {"steps_per_epoch": 2, "batch_size": 20, "validation_split": 0.3},
    "held": {"validation_data": (X, Y), "validation_freq": 2, "validation_steps": 1},
    "weights": {"sample_weight": np.linspace(0, 2, 70).astype("f4"), "batch_size": 16},
}


@pytest.mark.parametrize("arguments", ARGUMENTS.values(), ids=ARGUMENTS)
def test_arguments(arguments: dict[str, Any]) -> None:
    assert_as_fit(layered, "run", X, Y, **arguments)


@pytest.mark.parametrize("mode", MODES)
def test_ways_to_drive(mode: str) -> None:
    assert_as_fit(layered, mode, X, Y, batch_size=16, validation_data=(X, Y))


def test_class_weight() -> None:
    assert_as_fit(layered, "run", X, Z, class_weight={0: 1.0, 1: 3.0}, batch_size=16)


@pytest.mark.parametrize(
    "compiled",
    [
        {"run_eagerly": True},
        {"metrics": ["auc"], "jit_compile": False},
        {"optimizer": keras.optimizers.SGD(0.1, momentum=0.9, gradient_accumulation_steps=3)},
        {"optimizer": keras.optimizers.Adam(0.01, use_ema=True, ema_overwrite_frequency=3)},
    ],
    ids=["eager", "no-jit", "accumulation", "ema"],
)
def test_compiled_otherwise(compiled: dict[str, Any]) -> None:
    def make() -> Any:
        given = dict(compiled)
        if "optimizer" in given:
            given["optimizer"] = type(given["optimizer"]).from_config(
                given["optimizer"].get_config()
            )
        return layered(**given)

    assert_as_fit(make, "mixed", X, Y, batch_size=16)


def test_nested_inputs_and_outputs() -> None:
    def make() -> Any:
        a, b = keras.Input((3,), name="a"), keras.Input((3,), name="b")
        hidden = keras.layers.Dense(4)(keras.layers.Add()([a, b]))
        outputs = {name: keras.layers.Dense(1, name=name)(hidden) for name in ("p", "q")}
        model = keras.Model({"a": a, "b": b}, outputs)
        model.compile("adam", {"p": "mse", "q": "mae"}, loss_weights={"p": 1.0, "q": 0.5})
        return model

    assert_as_fit(make, "run", {"a": X, "b": X * 2}, {"p": Y, "q": Y + 1}, batch_size=16)


class Pairs(keras.utils.PyDataset):
    """Batches of 16 in order."""

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> Any:
        rows = slice(16 * index, 16 * index + 16)
        return X[rows], Y[rows]


def generated() -> Any:
    for epoch in range(3):
        for start in range(0, 64, 16):
            yield X[start : start + 16] + epoch, Y[start : start + 16]


def dataset() -> Any:
    tf = pytest.importorskip("tensorflow")
    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(16)


def loader() -> Any:
    torch = pytest.importorskip("torch")
    pairs = torch.utils.data.TensorDataset(torch.tensor(X), torch.tensor(Y))
    return torch.utils.data.DataLoader(pairs, batch_size=16)


@pytest.mark.parametrize("data", [Pairs, dataset, loader], ids=lambda each: each.__name__)
def test_streams(data: Any) -> None:
    assert_as_fit(layered, "mixed", data, shuffle=False)


def test_generator() -> None:
    assert_as_fit(layered, "run", generated, steps_per_epoch=4, shuffle=False)


def test_a_step_of_the_users_own() -> None:
    class Halved(keras.Model):
        def train_step(self, *args: Any) -> Any:
            result = super().train_step(*args)
            logs = result[0] if BACKEND == "jax" else result
            logs = {"half": logs["loss"] / 2, **logs}
            return (logs, result[1]) if BACKEND == "jax" else logs

    def make() -> Any:
        model = network(cls=Halved)
        model.compile("sgd", "mse")
        return model

    assert_as_fit(make, "mixed", X, Y, batch_size=16)


@pytest.mark.parametrize("mode", MODES)
def test_the_raw_losses(mode: str) -> None:
    def make() -> Any:
        model = network()
        model.compile("sgd", "mse")
        return model

    expected = raw_losses(make, 16, 2)
    keras.backend.clear_session()
    keras.utils.set_random_seed(7)
    seen, means, rows = [], [], []
    for epoch in lossledger.Loop(make(), X, Y, 16, epochs=2, shuffle=False, verbose=0):
        if mode == "step":
            for step in epoch:
                rows.append(step.rows)
                assert step.loss == epoch.losses[-1]
                assert step.logs["loss"] == pytest.approx(epoch.mean, rel=1e-6)
        epoch.run(2 if mode == "mixed" else None)
        epoch.run()
        assert epoch.losses.dtype == np.float64
        seen.extend(epoch.losses)
        means.append(epoch.mean)
    np.testing.assert_allclose(seen, expected, rtol=2e-6)
    weights = np.array([16, 16, 16, 16, 6])
    for mean, losses in zip(means, expected.reshape(2, 5), strict=True):
        assert mean == pytest.approx((losses * weights).sum() / 70, rel=2e-6)
    assert mode != "step" or rows == [16, 16, 16, 16, 6] * 2


def test_what_is_changed_between_steps_counts_at_once() -> None:
    def train(way: str) -> Any:
        def run() -> Any:
            model = network()
            model.compile(keras.optimizers.SGD(0.1), "mse")
            seen = []
            if way == "loop":
                for epoch in lossledger.Loop(model, X, Y, 35, epochs=2, shuffle=False, verbose=0):
                    for step in epoch:
                        seen.append(step.loss)
                        model.optimizer.learning_rate = 0.1 / (len(seen) + 1)
                        model.set_weights([w * np.float32(0.5) for w in model.get_weights()])
            else:
                for start in (0, 35, 0, 35):
                    model.reset_metrics()
                    rows = slice(start, start + 35)
                    seen.append(float(model.train_on_batch(X[rows], Y[rows])))
                    model.optimizer.learning_rate = 0.1 / (len(seen) + 1)
                    model.set_weights([w * np.float32(0.5) for w in model.get_weights()])
            return model, np.round(np.array(seen), 5)

        return once(run)

    loop, own = train("loop"), train("own")
    np.testing.assert_array_equal(loop["outcome"], own["outcome"])


def test_leaving_an_epoch_ends_it_as_fit_would() -> None:
    model = network()
    model.compile("sgd", "mse")
    loop = lossledger.Loop(model, X, Y, 16, epochs=3, verbose=0, validation_data=(X, Y))
    for epoch in loop:
        for step in epoch:
            if step.number == 1:
                break
    assert loop.history.epoch == [0, 1, 2]
    assert len(loop.history.history["val_loss"]) == 3
    assert int(model.optimizer.iterations) == 6


def test_stop_and_skip() -> None:
    model = network()
    model.compile("sgd", "mse")
    loop = lossledger.Loop(model, X, Y, 16, epochs=5, verbose=0)
    for epoch in loop:
        assert epoch.skip(2) == 2
        epoch.run(1)
        if epoch.number == 1:
            loop.stop = True
        epoch.run()
    # Three of five batches in the first epoch, one in the second.
    assert int(model.optimizer.iterations) == 4
    assert loop.history.epoch == [0, 1]
    assert list(loop) == []


def test_an_epoch_of_a_loop_that_has_ended_trains_no_more() -> None:
    model = network()
    model.compile("sgd", "mse")
    loop = lossledger.Loop(model, X, Y, 16, epochs=2, verbose=0)
    for epoch in loop:
        epoch.run(2)
        break
    for train in (epoch.run, lambda: next(epoch), lambda: epoch.step(X, Y)):
        with pytest.raises(lossledger.LossLedgerError, match="has ended") as caught:
            train()
        assert caught.value.slug == "loop-over"
    assert len(epoch.losses) == 2


def test_a_batch_of_ones_own() -> None:
    model = network()
    model.compile("sgd", "mse")
    for epoch in lossledger.Loop(model, X, Y, 35, verbose=0):
        model.reset_metrics()
        expected = float(np.ravel(model.test_on_batch(X[:10], Y[:10]))[0])
        step = epoch.step(X[:10], Y[:10])
        assert step.rows == 10
        assert step.loss == pytest.approx(expected, rel=1e-5)
        epoch.run()
        assert len(epoch.losses) == 3


def test_other_models_and_fit_may_train_inside() -> None:
    model, other = network(), network()
    model.compile("sgd", "mse")
    other.compile("adam", "mae")
    for epoch in lossledger.Loop(model, X, Y, 35, epochs=2, verbose=0):
        for step in epoch:
            other.train_on_batch(X[:8], Y[:8])
            assert np.isfinite(step.loss)
        model.evaluate(X, Y, verbose=0)
        model.fit(X, Y, verbose=0)
    assert int(other.optimizer.iterations) == 4
    assert int(model.optimizer.iterations) == 4 + 2 * 3


def test_fit_afterwards_is_as_ever() -> None:
    def train(first: bool) -> Any:
        def run() -> Any:
            model = layered()
            model.fit(X, Y, verbose=0)
            function = model.train_function
            if first:
                lossledger.Loop(model, X, Y, verbose=0).run()
            else:
                model.fit(X, Y, verbose=0)
            assert model.train_function is function
            return model, model.fit(X, Y, verbose=0).history

        return once(run)

    assert_same(train(False), train(True))


def test_compiling_anew_begins_anew() -> None:
    model = network()
    model.compile(keras.optimizers.SGD(0.1), "mse")
    for epoch in lossledger.Loop(model, X, Y, 16, epochs=2, verbose=0):
        epoch.run(2)
        if epoch.number == 0:
            model.compile(keras.optimizers.SGD(0.0), "mse")
            before = model.get_weights()
            epoch.run()
            for a, b in zip(before, model.get_weights(), strict=True):
                np.testing.assert_array_equal(a, b)


def test_what_is_frozen_without_compiling_anew() -> None:
    def train(loop: bool) -> Any:
        def run() -> Any:
            model = layered()
            for trainable in (True, False, True):
                model.layers[0].trainable = trainable
                if loop:
                    lossledger.Loop(model, X, Y, 16, verbose=0).run()
                else:
                    model.fit(X, Y, batch_size=16, verbose=0)
            return model, None

        return once(run)

    if BACKEND == "jax":  # `fit` fails
        with pytest.raises(lossledger.LossLedgerError, match="kernel") as caught:
            train(True)
        assert caught.value.slug == "trainable-changed"
    else:
        assert_same(train(False), train(True))


def test_gradual_unfreezing() -> None:
    model = layered()
    model.layers[0].trainable = False
    model.compile("adam", "mse")
    before, moved = model.layers[0].get_weights(), []
    for epoch in lossledger.Loop(model, X, Y, 16, epochs=3, verbose=0):
        epoch.run(2)
        moved.append(not np.array_equal(before[0], model.layers[0].get_weights()[0]))
        if epoch.number == 1:
            model.layers[0].trainable = True
            model.compile("adam", "mse")
    assert moved == [False, False, True]


def test_an_interruption_waits_for_whole_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network()
    model.compile("sgd", "mse")
    engine, calls = engine_of(model), []
    for name in ("many", "one"):
        own = getattr(engine, name)

        def interrupted(self: Any, *given: Any, own: Any = own) -> Any:
            calls.append(given)
            if len(calls) == 3:
                signal.raise_signal(signal.SIGINT)
            return own(self, *given)

        monkeypatch.setattr(engine, name, interrupted)

    loop, epochs = lossledger.Loop(model, X, Y, 10, epochs=5, verbose=0), []

    def train() -> None:
        for epoch in loop:
            epochs.append(epoch)
            epoch.run()

    with pytest.raises(KeyboardInterrupt):
        train()
    assert len(calls) == 3
    steps = 3 + sum(len(epoch.losses) for epoch in epochs)  # three were trained before
    assert int(model.optimizer.iterations) == steps >= 6
    assert loop.history.epoch == [epoch.number for epoch in epochs if epoch.ended]
    model.fit(X, Y, verbose=0)
    assert int(model.optimizer.iterations) == steps + 3


def engine_of(model: Any) -> type:
    """The class of this backend's engine."""
    lossledger.Loop(model, X, Y, verbose=0).run()
    return type(model.__dict__[PLACE].engine)
