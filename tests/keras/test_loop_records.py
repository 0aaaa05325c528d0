"""A recorded `Loop`: every step has its entry, and recording changes nothing."""

from typing import Any

import numpy as np
import pytest

import lossledger

from .conftest import X, Y, network, raw_losses


def compiled() -> Any:
    model = network()
    model.compile("adam", "mse")
    return model


@pytest.mark.parametrize("mode", ["run", "mixed"])
def test_every_step_has_its_entry(twins: Any, mode: str) -> None:
    def train() -> Any:
        model = compiled()
        loop = lossledger.Loop(model, X, Y, 16, epochs=3, shuffle=False, verbose=0)
        losses = []
        for epoch in loop:
            if mode == "mixed":
                next(iter(epoch))
            epoch.run()
            losses.append(epoch.losses.tolist())
        return model, (losses, loop.history.history)

    both = twins(train)
    losses, history = both.recorded
    assert both.run.calls[0].driver == "loop"
    assert both.column("epoch").tolist() == [0] * 5 + [1] * 5 + [2] * 5
    assert both.column("batch").tolist() == [*range(5)] * 3
    assert both.column("step").tolist() == [*range(15)]
    assert both.column("rows").tolist() == [16, 16, 16, 16, 6] * 3
    np.testing.assert_array_equal(both.column("loss"), np.concatenate(losses))
    np.testing.assert_allclose(both.column("loss"), raw_losses(compiled, 16, 3), rtol=2e-6)
    np.testing.assert_allclose(both.column("learning_rate"), 0.001, rtol=1e-6)
    assert len(set(both.column("batch_id"))) == 5
    np.testing.assert_allclose(both.run.statistic("epoch_mean"), history["loss"], rtol=1e-6)


def test_entries_are_those_of_fit(twins: Any) -> None:
    def with_fit() -> Any:
        model = compiled()
        return model, model.fit(X, Y, batch_size=16, epochs=2, verbose=0).history

    def with_loop() -> Any:
        model = compiled()
        return model, lossledger.Loop(model, X, Y, 16, epochs=2, verbose=0).run().history

    fit, loop = twins(with_fit), twins(with_loop)
    assert fit.recorded == loop.recorded
    for name in ("loss", "weight", "rows", "batch_id", "learning_rate", "penalty", "updated"):
        np.testing.assert_array_equal(fit.column(name), loop.column(name))


def test_the_callback_records_a_loop(tmp_path: Any) -> None:
    recorder = lossledger.Recorder(tmp_path)
    lossledger.Loop(compiled(), X, Y, 16, epochs=2, verbose=0, callbacks=[recorder]).run()
    run = lossledger.open(recorder.path)
    assert run.calls[0].driver == "loop"
    assert len(run.losses()) == 10


def test_a_loop_goes_on_after_its_model_was_trained_otherwise(tmp_path: Any) -> None:
    model = compiled()
    with lossledger.record(tmp_path) as recording:
        for epoch in lossledger.Loop(model, X, Y, 16, epochs=2, shuffle=False, verbose=0):
            epoch.run(2)
            if epoch.number == 0:
                model.train_on_batch(X[:8], Y[:8])
            epoch.run()
    run = lossledger.open(recording.path)
    assert [call.driver for call in run.calls] == ["loop", "train_on_batch", "loop"]
    entries = run.entries()
    assert entries["batch"].to_pylist() == [0, 1, 0, 2, 3, 4, 0, 1, 2, 3, 4]
    assert entries["epoch"].to_pylist()[3:] == [0, 0, 0, 1, 1, 1, 1, 1]


def test_a_failed_loop_says_so(tmp_path: Any) -> None:
    def train() -> None:
        for epoch in lossledger.Loop(compiled(), X, Y, 16, epochs=2, verbose=0):
            epoch.run(2)
            raise RuntimeError("mine")

    with lossledger.record(tmp_path) as recording, pytest.raises(RuntimeError, match="mine"):
        train()
    run = lossledger.open(recording.path)
    assert len(run.losses()) == 2
