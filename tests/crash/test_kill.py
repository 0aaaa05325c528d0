"""A writer is killed at any moment: what it flushed is there, once, and nothing is half there."""

import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lossledger import store

CHILD = Path(__file__).with_name("writing_child.py")


def losses_at(steps):
    return (np.asarray(steps, np.float64) * 0.37 % 5).astype(np.float32)


def rows_after(folder, acknowledged):
    """Checks a folder whose writer is dead; how many rows it has."""
    blocks = list(store.scan(folder, ["step", "loss", "call", "weight"]))
    steps = np.concatenate([block["step"] for block in blocks]) if blocks else np.empty(0, int)
    np.testing.assert_array_equal(steps, np.arange(len(steps)))  # no gap, nothing twice
    assert len(steps) >= acknowledged
    for block in blocks:
        np.testing.assert_array_equal(block["loss"], losses_at(block["step"]))
        assert np.isnan(block["weight"]).all()
    assert store.table(folder).num_rows == len(steps)
    return len(steps)


def killed(folder, seed, where, seconds=None):
    """Lets a child write until it dies; the rows that it said are flushed."""
    child = subprocess.Popen(
        [sys.executable, CHILD, folder, str(seed), where], stdout=subprocess.PIPE
    )
    with child:
        first = child.stdout.readline()
        if seconds is not None:
            try:
                child.wait(seconds)
            except subprocess.TimeoutExpired:
                child.kill()
        said = (first + child.stdout.read()).split(b"\n")[:-1]
    assert child.returncode == -9
    return int(said[-1]) if said else 0


@pytest.mark.parametrize("seed", range(3))
def test_killed_from_outside(tmp_path, seed):
    chance = random.Random(seed)
    rows = 0
    for turn in range(6):  # each child resumes what the one before left
        said = killed(tmp_path, 100 * seed + turn, "never", chance.uniform(0, 0.1))
        rows = rows_after(tmp_path, max(said, rows))
    assert rows > 0


@pytest.mark.parametrize("seed", range(3))
def test_killed_between_two_lines(tmp_path, seed):
    chance = random.Random(seed)
    rows = 0
    for turn in range(6):
        # A segment of 40 rows takes some hundred lines of ours: every phase gets its turn.
        said = killed(tmp_path, 100 * seed + turn, f"line:{chance.randrange(1, 2500)}")
        rows = rows_after(tmp_path, max(said, rows))
    assert rows > 0


@pytest.mark.parametrize("name", ["open", "write", "fsync", "replace", "unlink", "close"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_around_a_system_call(tmp_path, when, name):
    writer = store.Writer(tmp_path, segment_rows=30)
    steps = np.arange(60)
    writer.append({"step": steps, "loss": losses_at(steps), "call": np.zeros(60, "i4")})
    writer.close()
    said = killed(tmp_path, 5, f"{when}:{name}")
    rows = rows_after(tmp_path, max(said, 60))
    # The next writer goes on behind, whatever was left lying about.
    writer = store.Writer(tmp_path)
    steps = np.arange(rows, rows + 10)
    writer.append({"step": steps, "loss": losses_at(steps), "call": np.zeros(10, "i4")})
    writer.close()
    assert rows_after(tmp_path, rows + 10) == rows + 10
    assert not list((tmp_path / "entries").glob("*.tmp"))
