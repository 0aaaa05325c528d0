"""A recording dies at any moment of its life, and is resumed: never unreadable, wrong or doubled.

KILLS=1000 is the long run whose outcome stands in docs/security.md.
"""

import contextlib
import os
import random
from collections import Counter
from pathlib import Path

import numpy as np

import lossledger as ll
from lossledger import catalog
from tests.crash.dying import server

KILLS = int(os.environ.get("KILLS", "20"))
CHILD = Path(__file__).with_name("recording_child.py")
CALLS = ("open", "write", "fsync", "replace", "unlink", "close")


def losses_at(steps):
    return (np.asarray(steps, np.float64) * 0.37 % 5).astype(np.float32)


def a_death(chance):
    kind = chance.choice(("time", "line", "line", "before", "after"))
    if kind == "time":
        return f"time:{chance.uniform(0.005, 0.25):.4f}"
    if kind == "line":
        return f"line:{int(10 ** chance.uniform(0, 4.3))}"
    return f"{kind}:{chance.choice(CALLS)}:{int(10 ** chance.uniform(0, 1.5))}"


def checked(directory, certain):
    """Checks all that is there after a death; how many steps that is, and in which state."""
    if not directory.is_dir():
        assert certain == 0
        return 0, "nothing"
    runs, older = catalog.newest(directory, 0)
    assert older == 0
    assert [info.problem for info in runs] == [None] * len(runs)
    for path in directory.iterdir():  # a folder that never became a run has no entries
        if not path.is_symlink() and path.name not in {info.id for info in runs}:
            assert not list(path.glob("entries/*"))
    if not runs:
        assert certain == 0
        return 0, "nothing"
    run = ll.open(runs[-1].path)
    entries = run.entries(["step", "call", "epoch", "loss", "weight"]).to_pydict()
    steps = entries["step"]
    assert steps == list(range(len(steps)))  # no hole, nothing twice
    assert len(steps) >= certain
    np.testing.assert_array_equal(np.array(entries["loss"], "f4"), losses_at(steps))
    known = {call.number for call in run.calls}
    assert set(entries["call"]) <= known
    assert sum(call.steps + call.standing.superseded for call in run.calls) == len(steps)
    assert np.isfinite(run.statistic("epoch_mean")).all()
    lock = (run.path / "writer.lock").exists()
    state = "closed" if run.complete else "locked" if lock else "open"
    return len(steps), state


def test_deaths(tmp_path):
    chance = random.Random(KILLS)
    states, kinds, total, certain = Counter(), Counter(), 0, 0
    with server(CHILD) as dies:
        for number in range(KILLS):
            # Ten deaths a run: each recording goes on in what the one before left.
            directory = tmp_path / str(number // 10)
            certain = certain if number % 10 else 0
            death = a_death(chance)
            certain = max(certain, dies(directory, number, death))
            rows, state = checked(directory, certain)
            certain = max(certain, rows)
            states[state] += 1
            kinds[death.partition(":")[0]] += 1
            total += rows if number % 10 == 9 else 0
    assert KILLS < 20 or total > 0
    told = f"{KILLS} deaths {dict(kinds)}, left {dict(states)}, {total} entries in the end\n"
    print(told)
    with contextlib.suppress(KeyError):
        Path(os.environ["KILLS_TOLD"]).write_text(told)
