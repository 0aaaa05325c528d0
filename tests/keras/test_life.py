"""What happens around a training: validation, stops, failures, copies, saved files."""

import copy
import gc
import pickle

import keras
import numpy as np
import pytest

import lossledger

from .conftest import BACKEND, X, Y, assert_same, batches, network, once, raw_losses
from .life import FIT, compiled, opened


def test_validation_and_evaluation_do_not_pollute(twins):
    class Evaluates(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.test_on_batch(X[:9], Y[:9] + 100)

    def train():
        model = compiled()
        history = model.fit(X, Y, validation_data=(X[:9], Y[:9] + 50), **FIT).history
        value = model.evaluate(X, Y + 50, verbose=0)
        batch = [model.train_on_batch(X[b], Y[b]) for b in batches(32)]
        model.test_on_batch(X[:9], Y[:9])
        other = model.fit(X, Y, callbacks=[Evaluates()], **FIT).history
        return model, (history, value, batch, other)

    run = twins(train).run
    assert len(run.losses()) == 6 + 3 + 6
    assert run.losses().max() < 5
    assert [call.info["driver"] for call in run.calls] == ["fit", "train_on_batch", "fit"]
    places = [item.place for item in run.reported() if item.call == 0]
    assert places.count("history") == 2
    assert "validation" in places
    assert "evaluate" in places


def test_stops_and_callbacks(twins):
    class Stops(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 3:
                self.model.stop_training = True

        def on_epoch_end(self, epoch, logs=None):
            self.model.train_on_batch(X[:7] + 1, Y[:7])

    def train():
        model = compiled()
        history = model.fit(X, Y, batch_size=7, epochs=3, verbose=0, callbacks=[Stops()])
        return model, history.history

    found = twins(train)
    assert len(found.run.losses()) == 4 + 1
    assert len(set(found.column("batch_id"))) == 4 + 1


@pytest.mark.one_backend
def test_the_users_callbacks_see_what_they_saw(twins):
    class Sees(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.seen = []

        def on_train_begin(self, logs=None):
            self.seen.append(("begin", dict(self.params)))

        def on_epoch_end(self, epoch, logs=None):
            self.seen.append((epoch, dict(logs)))

        def on_train_batch_end(self, batch, logs=None):
            self.seen.append((batch, dict(logs)))

    def train():
        model, sees = compiled(), Sees()
        given = [sees]
        model.fit(X, Y, callbacks=given, **FIT)
        listed = keras.callbacks.CallbackList([Sees()], model=model, add_history=True, epochs=2)
        model.fit(X, Y, callbacks=listed, **FIT)
        model.fit(X, Y, callbacks=keras.callbacks.TerminateOnNaN(), **FIT)
        names = [type(callback).__name__ for callback in listed.callbacks]
        return model, (sees.seen, given == [sees], names)

    twins(train)


def test_an_error_in_the_training_is_the_users(tmp_path):
    class Fails(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 2:
                raise RuntimeError("mine")

    with lossledger.record(tmp_path) as run:
        model = compiled()
        with pytest.raises(RuntimeError, match="mine"):
            model.fit(X, Y, batch_size=7, verbose=0, callbacks=[Fails()])
        with pytest.raises((ValueError, RuntimeError)):
            compiled().train_on_batch(X[:, :2], Y)
        compiled().train_on_batch(X, Y)
    calls = opened(run).calls
    assert calls[0].info["failed"] == "RuntimeError"
    assert len(opened(run).losses(call=0)) == 3
    assert len(opened(run).losses(call=2)) == 1


@pytest.mark.skipif(BACKEND != "tensorflow", reason="elsewhere a step that failed leaves no row")
def test_steps_that_fail_and_steps_of_nobody_leave_no_entry(tmp_path):
    """More steps than a list of rows holds; the weights stay, so each loss is known."""
    import tensorflow as tf

    class Checks(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(1, kernel_initializer="ones")

        def call(self, x):
            return self.dense(x)

        def train_step(self, data):
            logs = super().train_step(data)
            tf.debugging.assert_less(tf.reduce_max(data[0]), 1e3)
            return logs

    model = Checks()
    model.compile(keras.optimizers.SGD(0.0), "mse")
    with lossledger.record(tmp_path) as run:
        expected = []
        for step in range(300):
            x = np.full((4, 2), step / 100, "f4")
            if step % 70 == 5:
                with pytest.raises(tf.errors.InvalidArgumentError):
                    model.train_on_batch(x + 1e4, np.zeros((4, 1), "f4"))
            model.train_on_batch(x, np.zeros((4, 1), "f4"))
            expected.append((2 * np.float64(step / 100)) ** 2)
    for _ in range(140):
        model.train_on_batch(np.zeros((4, 2), "f4"), np.ones((4, 1), "f4"))
    with lossledger.record(tmp_path) as second:
        model.train_on_batch(np.full((4, 2), 5, "f4"), np.zeros((4, 1), "f4"))
    np.testing.assert_allclose(opened(run).losses(), expected, rtol=1e-6)
    np.testing.assert_allclose(opened(second).losses(), [100.0])


def test_recompiling_begins_another_call(twins):
    def train():
        model = compiled()
        out = [model.fit(X, Y, **FIT).history]
        model.compile(keras.optimizers.SGD(0.1), "mae")
        out.append(model.fit(X, Y, **FIT).history)
        out.append(model.train_on_batch(X, Y))
        model.compile(keras.optimizers.SGD(0.1), "mse")
        out.append(model.train_on_batch(X, Y))
        return model, out

    run = twins(train).run
    assert [len(run.losses(call=k)) for k in range(4)] == [6, 6, 1, 1]


def test_recompiling_while_the_recorder_collects(tmp_path):
    class Model(keras.Model):
        def make_train_function(self, force=False):
            recording.collector.collect()
            return super().make_train_function(force=force)

    with lossledger.record(tmp_path) as recording:
        model = network(cls=Model)
        for loss in ("mse", "mae"):
            model.compile("sgd", loss)
            model.train_on_batch(X, Y)
    run = lossledger.open(recording.path)
    assert [call.steps for call in run.calls] == [1, 1]


def test_calls_of_models_that_are_gone_end(tmp_path):
    with lossledger.record(tmp_path) as recording:
        for _ in range(2):
            model = compiled()
            model.train_on_batch(X, Y)
            del model
            keras.backend.clear_session()
            gc.collect()
        recording.collector.collect()
        assert recording.models.open == []
    run = lossledger.open(recording.path)
    assert [(call.steps, "ended" in call.info) for call in run.calls] == [(1, True)] * 2


def test_copies_and_files_of_a_recorded_model(tmp_path):
    """A saved, cloned, copied or pickled model is a plain one and trains as such."""

    def train():
        model = compiled()
        model.fit(X, Y, **FIT)
        path = tmp_path / "model.keras"
        model.save(path)
        copies = [keras.models.load_model(path), copy.deepcopy(model)]
        copies.append(pickle.loads(pickle.dumps(model)))
        clone = keras.models.clone_model(model)
        clone.compile(keras.optimizers.SGD(0.1), "mse", metrics=["mae"])
        clone.set_weights(model.get_weights())
        copies.append(clone)
        histories = [each.fit(X, Y, **FIT).history for each in copies]
        model.save_weights(tmp_path / "w.weights.h5")
        model.load_weights(tmp_path / "w.weights.h5")
        return [model, *copies], histories

    plain = once(train)
    with lossledger.record(tmp_path / "runs") as run:
        recorded = once(train)
    assert_same(plain, recorded)
    assert len(opened(run).losses(model=0)) == 6
    assert [len(opened(run).losses(model=k)) for k in range(1, 5)] == [6] * 4


@pytest.mark.one_backend
def test_trouble_is_one_warning_and_training_goes_on(tmp_path):
    """A folder that vanishes, a file where the folder should be: the numbers stay the same."""

    def train():
        model = compiled()
        return model, model.fit(X, Y, **FIT).history

    plain = once(train)
    (tmp_path / "file").write_text("")
    recording = lossledger.record(tmp_path / "file" / "runs")
    with pytest.warns(lossledger.LossLedgerWarning) as caught, recording:
        recorded = once(train)
    assert_same(plain, recorded)
    ours = [w for w in caught if w.category is lossledger.LossLedgerWarning]
    assert len(ours) == 1
    assert "[cannot-write]" in str(ours[0].message)


def test_a_folder_that_vanishes(tmp_path):
    import shutil

    class Deletes(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            shutil.rmtree(run.path, ignore_errors=True)

    def train(*callbacks):
        model = compiled()
        return model, model.fit(X, Y, callbacks=[*callbacks], **FIT).history

    plain = once(train)
    with (
        pytest.warns(lossledger.LossLedgerWarning, match=r"\[cannot-write\]"),
        lossledger.record(tmp_path) as run,
    ):
        recorded = once(lambda: train(Deletes()))
    assert_same(plain, recorded)


def test_initial_and_final_weights(tmp_path):
    with lossledger.record(tmp_path) as run:
        keras.utils.set_random_seed(7)
        model = compiled()
        before = model.get_weights()
        model.fit(X, Y, **FIT)
        model.train_on_batch(X, Y)
        keras.utils.set_random_seed(7)
        compiled().fit(X, Y, **FIT)
    calls = [call.info for call in opened(run).calls]
    assert calls[0]["final_weights"] == calls[1]["initial_weights"]
    assert calls[0]["initial_weights"] == calls[2]["initial_weights"]
    assert calls[0]["final_weights"] == calls[2]["final_weights"]
    assert calls[0]["initial_weights"] != calls[0]["final_weights"]
    with np.load(run.path / calls[0]["weights_file"]) as kept:
        for a, b in zip(before, kept.values(), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="tf.random takes its seeds from the graph")
def test_random_operations_of_tensorflow_keep_their_seeds(twins):
    import tensorflow as tf

    class Noisy(keras.Model):
        def train_step(self, data):
            x, y = data[:2]
            return super().train_step((x + tf.random.normal(tf.shape(x)), y))

        @tf.function
        def nested(self, data):
            return super().train_step(data)

    class Nested(Noisy):
        def train_step(self, data):
            return self.nested(data)

    def train(cls=Noisy):
        model = network(cls=cls)
        model.compile(keras.optimizers.SGD(0.1), "mse")
        return model, model.fit(X, Y, **FIT).history

    assert len(twins(train).run.losses()) == 6
    result = twins(lambda: train(Nested))
    np.testing.assert_allclose(result.run.losses(), raw_losses(compiled, 32, 2), rtol=2e-6)
