"""A training that is killed and trained on: one ledger, which is what the last weights saw."""

import signal
import subprocess
import sys

import keras
import numpy as np
import pytest

import lossledger as ll
from lossledger.cli import main

ROWS, BATCH, EPOCHS, RATE = 70, 10, 6, 0.1

TRAIN = """
import os, signal, sys
import keras, numpy as np, lossledger as ll
sys.path.insert(0, sys.argv[1])
from resumable import made
x, y, model = made(int(sys.argv[4]))
class Dies(keras.callbacks.Callback):
    epoch = -1
    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == (3, 4):
            os.kill(os.getpid(), signal.SIGKILL)  # at once: what a backup has seen is on disk
with ll.record(sys.argv[2]):
    backup = keras.callbacks.BackupAndRestore(sys.argv[3], save_freq=eval(sys.argv[5]))
    model.fit(x, y, batch_size=10, epochs=6, shuffle=False, verbose=0, callbacks=[backup, Dies()])
"""

MADE = f"""
import keras, numpy as np
def made(seed):
    chance = np.random.default_rng(seed)
    x = chance.random(({ROWS}, 2)).astype("float32")
    y = (x @ [[1.0], [2.0]]).astype("float32")
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, kernel_initializer="zeros")])
    model.compile(keras.optimizers.SGD({RATE}), "mse")
    return x, y, model
"""


def made(seed):
    scope = {}
    exec(MADE, scope)
    return scope["made"](seed)


def reckoned(x, y):
    """The loss of each step of a linear model under gradient descent, float64 (epochs, steps)."""
    x, y = x.astype("f8"), y.astype("f8")[:, 0]
    weights, bias, losses = np.zeros(2), 0.0, []
    for _ in range(EPOCHS):
        for begin in range(0, ROWS, BATCH):
            rows = slice(begin, begin + BATCH)
            error = x[rows] @ weights + bias - y[rows]
            losses.append((error**2).mean())
            weights = weights - RATE * 2 * x[rows].T @ error / BATCH
            bias -= RATE * 2 * error.mean()
    return np.reshape(losses, (EPOCHS, -1))


def killed(tmp_path, save_freq):
    """The run of a training that was killed in epoch 3; it backed up every so many steps."""
    (tmp_path / "resumable.py").write_text(MADE)
    command = [sys.executable, "-c", TRAIN, tmp_path, tmp_path / "runs", tmp_path / "backup", "3"]
    done = subprocess.run([*command, repr(save_freq)], check=False)
    assert done.returncode == -signal.SIGKILL
    return ll.open(tmp_path / "runs" / "latest")


@pytest.mark.one_backend
def test_a_backup_within_an_epoch_is_a_story_of_its_own(tmp_path, capsys):
    """Keras goes on at the epoch's beginning, with weights that have seen a part of it."""
    cut = killed(tmp_path, 3)
    seen = len(cut.losses())
    assert seen >= 24  # the last backup was made after so many steps
    x, y, model = made(3)
    options = {"batch_size": BATCH, "epochs": EPOCHS, "shuffle": False, "verbose": 0}
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup", save_freq=3)
    with ll.record(tmp_path / "runs", resume="latest"):
        history = model.fit(x, y, callbacks=[backup], **options)
    run = ll.open(cut.path)
    assert history.epoch == [3, 4, 5]
    assert [each.steps for each in run.epochs()] == [7] * EPOCHS
    assert sum(run.entries()["superseded"].to_pylist()) == seen - 21 == run.calls[1].standing.again
    means = run.statistic("epoch_mean")
    np.testing.assert_allclose(means[history.epoch], history.history["loss"], rtol=1e-6)
    np.testing.assert_allclose(means[:3], reckoned(x, y)[:3].mean(axis=1), rtol=2e-4)
    # What ran: 21 steps from epoch 3 on, and those before whose weights were kept.
    before = int(keras.ops.convert_to_numpy(model.optimizer.iterations.value)) - 21
    assert 21 < before <= seen
    assert run.calls[1].standing.seen == before - 21
    assert main(["show", str(run.path)]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert f"its weights had seen {before - 21} of them before" in told


def test_a_killed_fit_is_restored_and_counts_each_step_once(tmp_path):
    (tmp_path / "resumable.py").write_text(MADE)
    cut = killed(tmp_path, "epoch")
    seen = len(cut.losses())
    assert 3 * 7 <= seen <= 3 * 7 + 5
    assert not cut.complete
    x, y, model = made(3)
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    options = {"batch_size": BATCH, "epochs": EPOCHS, "shuffle": False, "verbose": 0}
    with ll.record(tmp_path / "runs", resume="latest"):
        history = model.fit(x, y, callbacks=[backup], **options)
    run = ll.open(tmp_path / "runs" / "latest")
    assert run.path == cut.path
    assert run.complete
    expected = reckoned(x, y)
    np.testing.assert_allclose(run.losses().reshape(expected.shape), expected, rtol=2e-4)
    np.testing.assert_allclose(run.statistic("epoch_mean"), expected.mean(axis=1), rtol=2e-4)
    np.testing.assert_allclose(
        run.statistic("epoch_mean")[history.epoch], history.history["loss"], rtol=1e-6
    )
    entries = run.entries().to_pydict()
    assert entries["step"] == list(range(seen + 21))
    assert sum(entries["superseded"]) == seen - 21 == run.calls[1].standing.again
    assert {call.model for call in run.calls} == {0}
    twice = ll.reconcile((run, "@epoch=3,again"), (run, "@epoch=3"))
    if seen > 21:
        assert [cause.cause for cause in twice.causes] == ["double_count"]
        raw = np.array(entries["loss"])[np.array(entries["epoch"]) == 3]
        assert twice.a.value == pytest.approx(raw.mean(), rel=1e-12)
        assert twice.unexplained == pytest.approx(0, abs=1e-12)
    # A training that nothing interrupted says the same.
    whole_x, whole_y, whole = made(3)
    with ll.record(tmp_path / "runs", name="whole"):
        whole.fit(whole_x, whole_y, **options)
    gap = ll.reconcile("whole:epoch_mean", (run, "epoch_mean"), directory=tmp_path / "runs")
    assert gap.comparable
    assert abs(gap.gap) < 1e-6


def test_a_checkpoint_and_initial_epoch_go_on(tmp_path):
    x, y, model = made(4)
    file = str(tmp_path / "{epoch}.keras")
    options = {"batch_size": BATCH, "epochs": EPOCHS, "shuffle": False, "verbose": 0}

    class Fails(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 3:
                raise RuntimeError("out of memory")

    keeps = keras.callbacks.ModelCheckpoint(file)
    with ll.record(tmp_path / "runs"), pytest.raises(RuntimeError):
        model.fit(x, y, callbacks=[keeps, Fails()], **options)
    # Of four epochs the last two are lost: the newest checkpoint left is that of epoch 1.
    restored = keras.models.load_model(tmp_path / "2.keras")
    with ll.record(tmp_path / "runs", resume="latest"):
        restored.fit(x, y, initial_epoch=2, **options)
    run = ll.open(tmp_path / "runs" / "latest")
    expected = reckoned(x, y)
    np.testing.assert_allclose(run.losses().reshape(expected.shape), expected, rtol=2e-4)
    assert run.calls[0].standing.superseded == run.calls[1].standing.again == 14
    assert {call.model for call in run.calls} == {0}
    saved = run.calls[0].info["saved"]
    assert [steps for steps, _ in saved] == [7, 14, 21, 28]
    assert run.calls[1].info["initial_weights"] == saved[1][1]


def test_a_loop_that_shuffles_goes_on_from_its_checkpoint(tmp_path):
    """It has no epochs, and no batch comes again: the weights tell where it goes on."""
    chance = np.random.default_rng(5)

    def trained(model, x, y, steps, keep=0):
        for step in range(steps):
            rows = chance.permutation(ROWS)[:BATCH]
            yield float(model.train_on_batch(x[rows], y[rows]))
            if step + 1 == keep:
                model.save_weights(tmp_path / "kept.weights.h5")

    x, y, model = made(5)
    with ll.record(tmp_path / "runs"):
        first = list(trained(model, x, y, 10, keep=6))
    losses = first[:6]
    for attempt in (1, 2):
        x, y, model = made(5)
        model.load_weights(tmp_path / "kept.weights.h5")
        with ll.record(tmp_path / "runs", resume="latest"):
            new = list(trained(model, x, y, 3 + attempt))
        run = ll.open(tmp_path / "runs" / "latest")
        np.testing.assert_allclose(run.losses(), losses + new, rtol=1e-6)
    assert [call.standing.again for call in run.calls] == [0, 4, 4]


@pytest.mark.one_backend
def test_a_loop_of_the_users_is_written_before_a_model_is_saved(tmp_path):
    *_, model = made(6)
    with ll.record(tmp_path / "runs") as run:
        run.step(0.5)
        model.save_weights(tmp_path / "kept.weights.h5")
        assert ll.open(run.path).losses().tolist() == [0.5]
