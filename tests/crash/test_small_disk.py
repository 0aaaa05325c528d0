"""A file system that is really full, and one that becomes read-only, where this may mount one."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest

import lossledger as ll


@pytest.fixture
def small(tmp_path):
    """A file system of 256 KiB."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "lossledger-test", str(place)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no right to mount a file system")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


SCRIPT = """
import contextlib, os, sys
import keras, numpy as np

class Fills(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            self.model.evaluate(x[:1], x[:1, :1], verbose=0)  # what was trained is written by then
        if epoch == int(sys.argv[2]):
            ballast = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
            with contextlib.suppress(OSError):
                while True:
                    os.write(ballast, bytes(4096))

x = np.random.default_rng(0).random((1024, 2)).astype("float32")
model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, kernel_initializer="ones")])
model.compile("sgd", "mse")
Fills().on_epoch_begin(-1)
model.fit(x, x[:, :1], batch_size=1, epochs=2, shuffle=False, verbose=0, callbacks=[Fills()])
print([weight.tobytes().hex() for weight in model.get_weights()])
if sys.argv[3] == "fails":
    raise ValueError("of the script's own")
sys.exit(7)
"""


def losses_at(steps):
    return (np.asarray(steps) * 0.37 % 5).astype("f4")


def train(run, begin, end):
    for step in range(begin, end):
        run.step(losses_at(step), rows=2, penalty=np.random.default_rng(step).random())
        if step % 500 == 499:
            run.collector.collect()


def read(path):
    run = ll.open(path)
    losses = run.losses()
    np.testing.assert_array_equal(losses, losses_at(np.arange(len(losses))))
    return run, len(losses)


def test_a_full_disk_costs_nothing_once_it_has_room_again(small):
    ballast = small / "ballast"
    run = ll.record(small / "runs")
    run.start()
    train(run, 0, 1000)
    ballast.write_bytes(bytes(os.statvfs(small).f_bavail * os.statvfs(small).f_frsize))
    with pytest.warns(ll.LossLedgerWarning, match=r"cannot-write.*No space left") as told:
        train(run, 1000, 3000)
    found, _ = read(run.path)
    assert not found.complete
    ballast.unlink()
    train(run, 3000, 4000)
    run.stop()
    assert len(told) == 1
    found, entries = read(run.path)
    assert found.complete
    assert entries == 4000


def test_a_disk_that_takes_nothing_more_leaves_what_was_flushed(small):
    run = ll.record(small / "runs")
    run.start()
    train(run, 0, 1000)
    room = os.statvfs(small).f_bavail * os.statvfs(small).f_frsize
    (small / "ballast").write_bytes(bytes(room))
    with pytest.warns(ll.LossLedgerWarning, match="cannot-write") as told:
        train(run, 1000, 3000)
    run.stop()
    assert len(told) == 1
    found, entries = read(run.path)
    assert entries >= 1000
    assert not found.complete


def test_a_folder_that_becomes_read_only_leaves_what_was_flushed(small):
    run = ll.record(small / "runs")
    run.start()
    train(run, 0, 1000)
    # What is open stays writable, as the system has it; nothing new can be made.
    subprocess.run(["mount", "--bind", str(small), str(small)], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(small)], check=True)
        train(run, 1000, 3000)
        with pytest.warns(ll.LossLedgerWarning, match=r"cannot-write.*Read-only") as told:
            run.stop()
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)
    assert len(told) == 1
    found, entries = read(run.path)
    assert entries == 3000
    assert not found.complete


def ran(*command):
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The script, and what it prints without a recording."""
    folder = tmp_path_factory.mktemp("plain")
    script = folder / "train.py"
    script.write_text(SCRIPT)
    done = ran(script, folder / "ballast", "2", "exits")
    assert done.returncode == 7
    return script, done.stdout


@pytest.mark.parametrize(("epoch", "ends", "status"), [(1, "exits", 7), (-1, "fails", 1)])
def test_a_script_ends_as_without_a_recording(small, plain, epoch, ends, status):
    """A disk that fills within the training, or is full as it begins, is one warning."""
    script, printed = plain
    given = [script, small / "ballast", str(epoch), ends]
    recorded = ran("-m", "lossledger", "run", "-o", small / "runs", *given)
    assert recorded.returncode == status
    assert recorded.stdout == printed != ""
    assert re.findall(r"LossLedgerWarning: \[(.*?)\]", recorded.stderr) == ["cannot-write"]
    *said, last = recorded.stderr.splitlines()
    assert last.startswith("lossledger: ")
    assert ("cannot-write" if epoch == 1 else "nothing recorded: OSError") in last
    if ends == "fails":
        assert "ValueError: of the script's own" in said[-1]
    if epoch == 1:
        run = ll.open(small / "runs" / "latest")
        assert not run.complete
        steps = run.entries(["step"])["step"].to_pylist()
        assert steps == list(range(len(steps)))
        assert 0 < len(steps) < 2048
