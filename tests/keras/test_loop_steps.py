"""Between the steps of a `Loop`: what is read and changed there, batches of one's own, its ends."""

import signal
from typing import Any

import keras
import numpy as np
import pytest

import lossledger

from .conftest import X, Y, network, once, raw_losses
from .looping import MODES, engine_of


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


def test_a_number_to_count_by_is_one() -> None:
    model = network()
    model.compile("sgd", "mse")
    with pytest.raises(lossledger.LossLedgerError, match=r"`epochs` .* Received: 1.5") as caught:
        lossledger.Loop(model, X, Y, epochs=1.5)
    assert caught.value.slug == "not-a-count"
    with pytest.raises(lossledger.LossLedgerError, match=r"`memory` .* Received: '1GB'"):
        lossledger.Loop(model, X, Y, memory="1GB")
    for epoch in lossledger.Loop(model, X, Y, 16, verbose=0):
        for wrong in (-1, 0, True, 1.5, "3"):
            for train in (epoch.run, epoch.skip):
                with pytest.raises(lossledger.LossLedgerError, match=r"`steps`") as caught:
                    train(wrong)
                assert caught.value.slug == "not-a-count"
        assert len(epoch.run(np.int64(2)).losses) == 2


def test_an_epoch_that_has_ended_takes_no_batch() -> None:
    model = network()
    model.compile("sgd", "mse")
    loop = lossledger.Loop(model, X, Y, 35, epochs=2, verbose=0)
    for epoch in loop:
        epoch.run()
        with pytest.raises(lossledger.LossLedgerError, match=f"epoch {epoch.number}") as caught:
            epoch.step(X, Y)
        assert caught.value.slug == "epoch-over"
        assert len(epoch.losses) == 2
        with pytest.raises(lossledger.LossLedgerError, match="no such column"):
            epoch.column("nothing")
    assert int(model.optimizer.iterations) == 4
