"""A recorded `Loop`: every step has its entry, and recording changes nothing."""

from typing import Any

import keras
import numpy as np
import pytest

import lossledger
from lossledger.loop import hashes

from .conftest import X, Y, network, raw_losses
from .test_data import fingerprint


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


IMAGES = np.random.default_rng(0).integers(0, 256, (22, 12, 12), "u1")
LABELS = np.arange(22) % 5


def as_given(array: np.ndarray) -> Any:
    return array


@pytest.mark.parametrize("memory", [2**30, 2**10])
@pytest.mark.parametrize(
    ("pixels", "given"),
    [("uint8", as_given), ("float64", as_given), ("int64", keras.ops.convert_to_tensor),
     ("bfloat16", lambda array: keras.ops.convert_to_tensor(array, "bfloat16"))],
    ids=["uint8", "float64", "tensors", "bfloat16"],
)  # fmt: skip
def test_the_fingerprints_of_batches_of_any_type(
    tmp_path: Any, monkeypatch: Any, pixels: str, given: Any, memory: int
) -> None:
    model = keras.Sequential([keras.Input((12, 12)), keras.layers.Flatten(), keras.layers.Dense(5)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x = IMAGES if pixels == "bfloat16" else IMAGES.astype(pixels)  # up to 256 it has all integers
    monkeypatch.setattr(hashes, "BLOCK", 1000)  # of 145 values a row
    loop = lossledger.Loop(
        model, given(x), LABELS, 8, epochs=2, shuffle=False, memory=memory, verbose=0
    )
    with lossledger.record(tmp_path) as recording:
        for epoch in loop:
            epoch.run(1)
            epoch.step(x[3:6], LABELS[3:6])
            for _ in epoch:
                pass
    found = lossledger.open(recording.path).entries()["batch_id"].to_pylist()
    whole = x.astype("f4") if pixels == "bfloat16" else x
    rows = [slice(8), slice(8, 16), slice(16, 22)]
    first, *rest = [fingerprint(whole[each], LABELS[each]) for each in rows]
    assert found == [first, fingerprint(x[3:6], LABELS[3:6]), *rest] * 2


def test_loops_by_turns_on_one_model(tmp_path: Any) -> None:
    model = compiled()
    x = [X[:32], X[32:64]]
    loops = [lossledger.Loop(model, each, Y[:32], 8, shuffle=False, verbose=0) for each in x]
    with lossledger.record(tmp_path) as recording:
        for epochs in zip(*loops, strict=True):
            for _ in range(4):
                for epoch in epochs:
                    epoch.run(1)
                    model.save_weights(tmp_path / "kept.weights.h5")  # what was recorded is written
    found = lossledger.open(recording.path).entries()["batch_id"].to_pylist()
    rows = [slice(k, k + 8) for k in range(0, 32, 8)]
    assert found == [fingerprint(each[part], Y[:32][part]) for part in rows for each in x]


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
