"""Callbacks in a `Loop`: called where `fit` calls them, with the logs that `fit` gives them."""

import io
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import lossledger
from lossledger.loop import hooks

from .conftest import BACKEND, X, Y, assert_same, network, once


def compiled(rate: float = 0.05) -> Any:
    model = network()
    model.compile(keras.optimizers.SGD(rate), "mse", metrics=["mae"])
    return model


class Witness(keras.callbacks.Callback):
    """Notes each call and its logs; `batches` whether it asks for every batch."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []

    def _note(self, name: str, *what: Any) -> None:
        logs = [dict(each) if isinstance(each, dict) else each for each in what]
        self.seen.append((name, *logs))

    def on_train_begin(self, logs: Any = None) -> None:
        self._note("train begin", logs)

    def on_train_end(self, logs: Any = None) -> None:
        self._note("train end", logs)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._note("epoch begin", epoch, logs)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._note("epoch end", epoch, logs)


class BatchWitness(Witness):
    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._note("begin", batch)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._note("end", batch, logs)


def calls_of(cls: Any, loop: bool) -> list[Any]:
    def train() -> Any:
        model, witness = compiled(), cls()
        arguments = {"batch_size": 16, "epochs": 2, "verbose": 0, "validation_data": (X, Y)}
        if loop:
            lossledger.Loop(model, X, Y, callbacks=[witness], **arguments).run()
        else:
            model.fit(X, Y, callbacks=[witness], **arguments)
        return model, witness.seen

    return once(train)["outcome"]


def test_the_calls_are_those_of_fit() -> None:
    assert calls_of(Witness, loop=True) == calls_of(Witness, loop=False)


def test_a_callback_that_wants_batches_gets_each_with_its_raw_loss() -> None:
    fit, loop = calls_of(BatchWitness, loop=False), calls_of(BatchWitness, loop=True)
    raw = [call[2].pop("raw_loss") for call in loop if call[0] == "end"]
    assert loop == fit
    means = [call[2]["loss"] for call in loop if call[0] == "end"]
    rows = np.array([16, 16, 16, 16, 6])
    for epoch in (slice(0, 5), slice(5, 10)):
        running = np.cumsum(np.array(raw[epoch]) * rows) / np.cumsum(rows)
        np.testing.assert_allclose(means[epoch], running, rtol=1e-5)


def keras_callbacks(folder: Path) -> dict[str, Any]:
    make = keras.callbacks
    return {
        "early": lambda: [make.EarlyStopping("loss", patience=1, min_delta=0.01)],
        "best": lambda: [
            make.EarlyStopping("loss", patience=0, min_delta=9.0, restore_best_weights=True)
        ],
        "epochs": lambda: [
            make.ReduceLROnPlateau("loss", patience=1, min_delta=0.5, factor=0.1),
            make.ModelCheckpoint(folder / "{epoch}.keras"),
            make.LambdaCallback(on_epoch_end=lambda epoch, logs: None),
            make.CSVLogger(folder / "log.csv"),
        ],
        "batches": lambda: [
            make.LearningRateScheduler(lambda epoch, rate: rate * 0.5**epoch),
            make.ModelCheckpoint(folder / "last.keras", save_freq=3),
        ],
        "nan": lambda: [make.TerminateOnNaN()],
    }


@pytest.mark.parametrize("name", keras_callbacks(Path()))
def test_keras_callbacks(name: str, tmp_path: Path) -> None:
    rate = float("nan") if name == "nan" else 0.05

    def train(loop: bool) -> Any:
        def run() -> Any:
            model = compiled(rate)
            given = keras_callbacks(tmp_path)[name]()
            arguments = {"batch_size": 16, "epochs": 5, "verbose": 0, "callbacks": given}
            if loop:
                history = lossledger.Loop(model, X, Y, **arguments).run()
            else:
                history = model.fit(X, Y, **arguments)
            files = {path.name: path.stat().st_size > 0 for path in tmp_path.iterdir()}
            log = tmp_path / "log.csv"
            return model, (history.history, files, log.read_text() if log.exists() else "")

        for path in tmp_path.iterdir():
            path.unlink()
        return once(run)

    assert_same(train(False), train(True))


def test_a_backup_is_restored(tmp_path: Path) -> None:
    class Fails(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch == 2:
                raise RuntimeError("power is out")

    def loop(model: Any, *more: Any) -> lossledger.Loop:
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
        return lossledger.Loop(
            model, X, Y, 35, epochs=4, verbose=0, shuffle=False, callbacks=[backup, *more]
        )

    keras.utils.set_random_seed(1)
    whole = compiled()
    lossledger.Loop(whole, X, Y, 35, epochs=4, verbose=0, shuffle=False).run()
    keras.utils.set_random_seed(1)
    with pytest.raises(RuntimeError, match="power"):
        loop(compiled(), Fails()).run()
    again = compiled()
    history = loop(again).run()
    assert history.epoch == [2, 3]
    for a, b in zip(whole.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="TensorBoard needs TensorFlow")
def test_tensorboard_writes_what_it_writes_in_fit(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")

    def files(loop: bool) -> list[str]:
        model, folder = compiled(), tmp_path / str(loop)
        given = [keras.callbacks.TensorBoard(folder)]
        if loop:
            lossledger.Loop(model, X, Y, epochs=2, verbose=0, callbacks=given).run()
        else:
            model.fit(X, Y, epochs=2, verbose=0, callbacks=given)
        return sorted(path.parent.name for path in folder.rglob("events*"))

    assert files(loop=True) == files(loop=False)


@pytest.mark.parametrize("verbose", [0, 1, 2])
@pytest.mark.one_backend
def test_the_progress_bar(verbose: int) -> None:
    printed = io.StringIO()
    with redirect_stdout(printed):
        lossledger.Loop(compiled(), X, Y, 16, epochs=2, verbose=verbose).run()
    text = printed.getvalue()
    assert ("Epoch 2/2" in text) == (verbose > 0)
    assert ("5/5" in text) == (verbose > 0)
    assert ("raw_loss" in text) == (verbose == 1)


def test_an_error_says_where_it_was() -> None:
    def train() -> None:
        for epoch in lossledger.Loop(compiled(), X, Y, 16, epochs=2, verbose=0):
            if epoch.number == 1:
                epoch.run(2)
                epoch.step(X[:, :2], Y)
            epoch.run()

    with pytest.raises(Exception, match="") as caught:
        train()
    assert "lossledger.Loop was in epoch 1, batch 2." in getattr(caught.value, "__notes__", [])


def test_which_callbacks_need_every_batch(tmp_path: Path) -> None:
    make = keras.callbacks
    idle = [
        make.History(),
        make.ProgbarLogger(),
        make.EarlyStopping(),
        make.ModelCheckpoint(tmp_path / "a.keras"),
        make.BackupAndRestore(tmp_path / "b"),
        make.LambdaCallback(on_epoch_end=lambda epoch, logs: None),
        Witness(),
    ]
    needing = [
        make.ModelCheckpoint(tmp_path / "a.keras", save_freq=2),
        make.TerminateOnNaN(),
        make.LambdaCallback(on_train_batch_end=lambda batch, logs: None),
        BatchWitness(),
    ]
    assert not any(map(hooks.needs_batches, idle))
    assert all(map(hooks.needs_batches, needing))
