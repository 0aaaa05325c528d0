"""Several recordings, several models, and the callback: what each of them records."""

import threading

import keras
import pytest

import lossledger
from lossledger.keras.buffer import Buffer

from .conftest import X, Y, assert_same, once
from .life import FIT, compiled, opened


@pytest.mark.one_backend
def test_only_one_model(tmp_path):
    model, other = compiled(), compiled()
    with lossledger.record(tmp_path, model=model) as run:
        other.fit(X, Y, **FIT)
        model.fit(X, Y, **FIT)
        other.train_on_batch(X, Y)
    assert len(opened(run).calls) == 1
    assert len(opened(run).losses()) == 6
    assert opened(run).info["warnings"] == []


def test_a_model_trained_before_during_and_after(tmp_path):
    def train(during):
        model = compiled()
        model.fit(X, Y, **FIT)
        during(model)
        model.fit(X, Y, **FIT)
        model.train_on_batch(X, Y)
        return model, None

    runs = []

    def recorded(model):
        for _ in range(2):
            with lossledger.record(tmp_path) as run:
                model.fit(X, Y, **FIT)
                model.train_on_batch(X, Y)
            runs.append(run)

    def plain(model):
        for _ in range(2):
            model.fit(X, Y, **FIT)
            model.train_on_batch(X, Y)

    assert_same(once(lambda: train(plain)), once(lambda: train(recorded)))
    for run in runs:
        assert len(opened(run).losses()) == 7
        assert opened(run).info["warnings"] == []
    assert runs[0].path != runs[1].path


def test_nothing_of_ours_is_left_behind(tmp_path):
    methods = [
        (keras.metrics.Mean, "update_state"),
        (keras.Model, "fit"),
        (keras.Model, "train_on_batch"),
        (keras.Model, "train_step"),
        (keras.Model, "make_train_function"),
    ]
    before = [getattr(owner, name) for owner, name in methods]
    model = compiled()
    with lossledger.record(tmp_path):
        model.fit(X, Y, **FIT)
        assert "train_step" not in vars(model)
    assert [getattr(owner, name) for owner, name in methods] == before
    assert type(model._loss_tracker) is keras.metrics.Mean
    assert "lossledger" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.one_backend
def test_the_inner_of_two_recordings_records(tmp_path):
    model = compiled()
    with lossledger.record(tmp_path, name="outer") as outer:
        model.fit(X, Y, **FIT)
        with lossledger.record(tmp_path, name="inner") as inner:
            model.fit(X, Y, **FIT)
        model.fit(X, Y, **FIT)
    assert len(opened(inner).losses()) == 6
    assert len(opened(outer).losses()) == 12


def test_the_callback(tmp_path):
    def train(*callbacks):
        model = compiled()
        first = model.fit(X, Y, callbacks=[*callbacks], **FIT).history
        second = model.fit(X, Y, initial_epoch=1, callbacks=[*callbacks], **FIT).history
        return model, (first, second)

    recorder = lossledger.Recorder(tmp_path)
    assert_same(once(train), once(lambda: train(recorder)))
    run = lossledger.open(recorder.path)
    assert len(run.losses()) == 9
    assert [e.epoch for e in run.epochs(run.calls[1])] == [1]
    assert run.complete


@pytest.mark.one_backend
def test_the_callback_after_a_fit_that_failed(tmp_path):
    class Fails(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise RuntimeError("mine")

    recorder = lossledger.Recorder(tmp_path)
    model = compiled()
    with pytest.raises(RuntimeError, match="mine"):
        model.fit(X, Y, callbacks=[recorder, Fails()], **FIT)
    model.fit(X, Y, callbacks=[recorder], **FIT)
    run = lossledger.open(recorder.path)
    assert [call.steps for call in run.calls] == [3, 6]
    assert run.complete


def test_a_growing_run_is_readable(tmp_path):
    class Reads(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            run.collector.collect()
            seen.append(len(opened(run).losses()))

    seen = []
    with lossledger.record(tmp_path) as run:
        compiled().fit(X, Y, callbacks=[Reads()], **FIT)
    assert seen == [3, 6]


@pytest.mark.one_backend
def test_weights_set_while_entries_are_fetched(tmp_path, monkeypatch):
    """After how many steps they were set is told even while the steps are on their way."""
    fetching, go_on = threading.Event(), threading.Event()
    places = Buffer._places

    def slow(buffer, times):
        if threading.current_thread().name == "lossledger":
            fetching.set()
            assert go_on.wait(60)
        return places(buffer, times)

    monkeypatch.setattr(Buffer, "_places", slow)
    model = compiled()
    with lossledger.record(tmp_path) as run:
        for _ in range(3):
            model.train_on_batch(X, Y)
        assert fetching.wait(60)
        model.set_weights(model.get_weights())
        go_on.set()
        for _ in range(2):
            model.train_on_batch(X, Y)
    (call,) = opened(run).calls
    assert call.loads == [3]
    assert call.steps == 5
