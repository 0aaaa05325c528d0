"""Whether a run still grows, and `show --follow`, which waits for it."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from made import Made

from lossledger import store
from lossledger.cli import main
from lossledger.growth import CLOSING_SECONDS, condition, growth, is_over
from lossledger.lock import has_writer

WRITER = """
import sys, time
sys.path.insert(0, sys.argv[1])
import os, numpy as np
from pathlib import Path
from made import Made

made = Made(Path(sys.argv[2]), pid=os.getpid())
made.call(0, driver="fit", model=0, model_name="net")
made.writer.flush()
print(made.path, flush=True)
for line in sys.stdin:
    if line.strip() == "close":
        made.close()
        break
    losses = np.array(line.split(), "f4")
    made.steps(losses, epoch=int(losses[0]), time=np.zeros(len(losses)))
    made.writer.flush()
    print("flushed", flush=True)
"""


class Writing:
    """A process that records what it is told."""

    def __init__(self, folder):
        here = os.path.dirname(__file__)
        command = [sys.executable, "-c", WRITER, here, str(folder)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        self.path = folder / os.path.basename(self.process.stdout.readline().strip())

    def add(self, *losses):
        self.process.stdin.write(" ".join(map(str, losses)) + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "flushed\n"

    def close(self):
        self.process.communicate("close\n", timeout=30)

    def kill(self):
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def writing(tmp_path):
    writer = Writing(tmp_path / "runs")
    yield writer
    if writer.process.returncode is None:
        writer.kill()


def test_a_tail_gives_each_entry_once(tmp_path):
    """Over flushes, seals, and a named loss that appears later."""
    made = Made(tmp_path / "runs", segment_rows=4)
    tail = store.Tail(made.path, ["step", "penalty"])
    steps, outputs = [], []
    for size, extra in ((3, {}), (3, {"a_loss": np.ones(3, "f4")}), (9, {}), (0, {}), (1, {})):
        if size:
            made.steps(np.zeros(size), time=np.zeros(size), **extra)
        made.writer.flush()
        for block in tail.read():
            steps += block["step"].tolist()
            outputs += ["a_loss" in block] * len(block["step"])
            assert np.isnan(block["penalty"]).all()
    made.close()
    assert list(tail.read()) == []
    assert steps == list(range(16))
    assert outputs[3:6] == [True] * 3


def test_a_writer_is_known_by_its_lock(writing):
    assert has_writer(writing.path)
    assert not is_over(writing.path)
    writing.kill()
    assert not has_writer(writing.path)
    assert is_over(writing.path)


def test_asking_does_not_let_go_of_our_own_lock(tmp_path):
    made = Made(tmp_path / "runs")
    assert has_writer(made.path)
    script = (
        "import sys; from pathlib import Path; from lossledger.lock import has_writer; "
        "sys.exit(has_writer(Path(sys.argv[1])))"
    )
    assert subprocess.run([sys.executable, "-c", script, str(made.path)]).returncode == 1
    made.close()
    assert not has_writer(made.path)


def test_growth_is_told_once(tmp_path):
    made = Made(tmp_path / "runs")
    moments = []
    actions = [
        lambda: None,
        lambda: (made.steps([1.0], time=np.zeros(1)), made.writer.flush()),
        lambda: None,
        made.close,
    ]
    for over in growth(made.path, sleep=lambda _: actions.pop(0)()):
        moments.append((over, len(actions)))
    assert moments == [(False, 4), (False, 2), (True, 0)]


def test_a_run_that_is_being_closed_is_waited_for(tmp_path):
    """Entries are sealed, and the lock is free, before `run.json` says complete."""
    made = Made(tmp_path / "runs", pid=os.getpid())
    made.writer.close()
    now = iter(range(100))
    looks = list(growth(made.path, sleep=lambda _: None, clock=lambda: next(now)))
    assert looks == [False, True]
    assert next(now) > CLOSING_SECONDS


def follow(*arguments):
    command = [sys.executable, "-u", "-m", "lossledger", "show", "--follow", *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True)


def test_follow_shows_entries_as_they_come(writing):
    writing.add(0, 2)
    shown = follow(writing.path)
    assert shown.stdout.readline().startswith("train, 2026-11-22 18:38:54")
    assert shown.stdout.readline() == "call 0: fit, model 0 (net)\n"
    assert shown.stdout.readline() == "step 2  epoch 0  loss 2.00000  running_mean 1.00000\n"
    writing.add(1, 4)
    line = shown.stdout.readline()
    assert " ".join(line.split()) == (
        "epoch 0 2 steps epoch_mean 1.00000 batch_mean 1.00000 min 0.00000 max 2.00000"
    )
    assert shown.stdout.readline() == "step 4  epoch 1  loss 4.00000  running_mean 2.50000\n"
    writing.close()
    rest, errors = shown.communicate(timeout=30)
    assert "epoch_mean 2.50000" in rest
    assert rest.splitlines()[-1].startswith("complete, 4 steps  next: lossledger show ")
    assert (shown.returncode, errors) == (0, "")


def test_follow_ends_when_the_writer_dies(writing):
    writing.add(0, 2)
    shown = follow(writing.path)
    for _ in range(3):
        shown.stdout.readline()
    writing.kill()
    rest, errors = shown.communicate(timeout=30)
    assert "epoch_mean 1.00000" in rest  # its epoch ends there
    assert "incomplete: whatever recorded it has ended, 2 steps" in rest
    assert (shown.returncode, errors) == (0, "")


def test_follow_ends_quietly_by_an_interrupt(writing):
    writing.add(0, 2)
    shown = follow(writing.path)
    for _ in range(3):
        shown.stdout.readline()
    shown.send_signal(signal.SIGINT)
    _, errors = shown.communicate(timeout=30)
    assert (shown.returncode, errors) == (-signal.SIGINT, "")


def test_follow_of_a_run_that_is_over(tmp_path, capsys):
    made = Made(tmp_path / "runs", segment_rows=100)
    made.call(0, driver="train_on_batch", model=0)
    n = 90
    made.steps(np.arange(n), time=np.zeros(n), batch_id=np.arange(n, dtype="u8") % 3 + 1)
    made.close()
    assert main(["show", str(made.path), "--follow"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("epoch ") for line in lines) == 20
    assert "...  10 epochs left out" in lines
    assert main(["show", str(made.path), "--follow", "--json"]) == 2
    assert "[usage]" in capsys.readouterr().err


def test_follow_of_nothing(tmp_path, capsys):
    path = Made(tmp_path / "runs").close().path
    assert main(["show", str(path), "--follow"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("complete, 0 steps")


def test_whether_a_run_is_whole_in_words(tmp_path):
    made = Made(tmp_path)
    made.steps([1.0])
    made.writer.flush()
    assert condition(made.path, False) == "incomplete: it still runs"
    made.writer.close()
    assert condition(made.path, False) == "incomplete: it was cut short"
    assert condition(made.path, True) == "complete"
