"""A writer is killed at any moment: what it flushed is there, once, and nothing is half there."""

import random
from pathlib import Path

import numpy as np
import pytest

from lossledger import store
from tests.crash.dying import server

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


@pytest.fixture(scope="module")
def dies():
    """Lets a writer write into a folder until it dies; the rows that it said are flushed."""
    with server(CHILD) as dies:
        yield dies


@pytest.mark.parametrize("seed", range(3))
def test_killed_from_outside(dies, tmp_path, seed):
    chance = random.Random(seed)
    rows = turn = 0
    longest = 0.1
    while turn < 6 or not rows:  # each writer resumes what the one before left
        said = dies(tmp_path, 100 * seed + turn, f"time:{chance.uniform(0.005, longest)}")
        rows = rows_after(tmp_path, max(said, rows))
        turn += 1
        longest *= 1 if rows else 2  # a slow machine writes nothing so soon


@pytest.mark.parametrize("seed", range(3))
def test_killed_between_two_lines(dies, tmp_path, seed):
    chance = random.Random(seed)
    rows = 0
    for turn in range(6):
        # A segment of 40 rows takes some hundred lines of ours: every phase gets its turn.
        said = dies(tmp_path, 100 * seed + turn, f"line:{chance.randrange(1, 2500)}")
        rows = rows_after(tmp_path, max(said, rows))
    assert rows > 0


@pytest.mark.parametrize("name", ["open", "write", "fsync", "replace", "unlink", "close"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_around_a_system_call(dies, tmp_path, when, name):
    writer = store.Writer(tmp_path, segment_rows=30)
    steps = np.arange(60)
    writer.append({"step": steps, "loss": losses_at(steps), "call": np.zeros(60, "i4")})
    writer.close()
    said = dies(tmp_path, 5, f"{when}:{name}:1")
    rows = rows_after(tmp_path, max(said, 60))
    # The next writer goes on behind, whatever was left lying about.
    writer = store.Writer(tmp_path)
    steps = np.arange(rows, rows + 10)
    writer.append({"step": steps, "loss": losses_at(steps), "call": np.zeros(10, "i4")})
    writer.close()
    assert rows_after(tmp_path, rows + 10) == rows + 10
    assert not list((tmp_path / "entries").glob("*.tmp"))
