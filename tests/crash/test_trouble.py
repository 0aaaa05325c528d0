"""Whatever the disk, the user or the clock does, the training is as it would have been without us.

At most one warning; the ledger is readable; what it says is the truth from its beginning on.
`FAULTS=all` tries each call of the system with each error, which takes minutes.
"""

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import lossledger as ll
from lossledger import catalog

CHILD = Path(__file__).with_name("faulty_child.py")
ALL = os.environ.get("FAULTS") == "all"
ERRORS = ("ENOSPC", "EIO", "EROFS")
HOW = ("once", "always", "half")


@pytest.fixture(scope="module")
def troubled():
    """Lets a recording into a folder meet trouble; gives what came of it."""
    with subprocess.Popen(
        [sys.executable, CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:

        def outcome(directory, trouble):
            print(directory, trouble, file=server.stdin, flush=True)
            return json.loads(server.stdout.readline())

        yield outcome
        server.stdin.close()


def checked(directory, outcome, trouble):
    """The law; gives how many entries there are, or `None` without a run."""
    assert outcome["escaped"] is None, trouble
    assert outcome["same"], trouble
    assert len(outcome["told"]) <= 1, (trouble, outcome["told"])
    runs = catalog.newest(directory, 0)[0] if directory.is_dir() else []
    assert [info.problem for info in runs] == [None] * len(runs), trouble
    if not runs:
        assert outcome["told"], trouble
        return None
    (info,) = runs
    run = ll.open(info.path)
    entries = run.entries(["step", "call", "loss", "rows"]).to_pydict()
    steps = entries["step"]
    assert sorted(steps) == list(range(len(steps))), trouble
    truth = np.array(outcome["losses"], "f4")
    losses = np.array(entries["loss"], "f4")[np.argsort(steps)]
    if outcome["interrupts"]:  # the step that Ctrl-C came into may be there or not
        assert_missing_few(losses, truth, outcome["interrupts"])
    else:
        np.testing.assert_array_equal(losses, truth[: len(losses)], trouble)
    assert set(entries["rows"]) <= {2}
    calls = {call.number: call for call in run.calls}
    assert set(entries["call"]) <= set(calls), trouble
    assert all(calls[number].info.get("driver") == "custom" for number in set(entries["call"]))
    assert len(steps) == len(truth) or outcome["told"] or outcome["interrupts"], trouble
    return len(steps)


def assert_missing_few(losses, truth, most):
    assert len(truth) - most <= len(losses)
    left = iter(truth.tolist())
    assert all(loss in left for loss in losses.tolist())


@pytest.mark.parametrize("number", range(14))
def test_an_interrupt_loses_at_most_the_step_it_comes_into(troubled, tmp_path, number):
    line = round(10 ** random.Random(number).uniform(1, 3.9))  # of some 8,000 lines of ours
    checked(tmp_path, troubled(tmp_path, f"interrupt:{line}"), line)


def test_each_call_of_the_system_may_fail(troubled, tmp_path):
    calls = troubled(tmp_path / "plain", "fault:0:EIO:once")["calls"]
    assert {"open", "write", "fsync", "replace", "unlink", "mkdir", "close"} <= set(calls)
    chance = random.Random(0)
    whole = 0
    for number in range(1, len(calls) + 1):
        for how in HOW:
            for error in ERRORS if ALL else (chance.choice(ERRORS),):
                trouble = f"fault:{number}:{error}:{how}"
                directory = tmp_path / trouble.replace(":", "-")
                outcome = troubled(directory, trouble)
                entries = checked(directory, outcome, (trouble, calls[number - 1]))
                whole += entries == len(outcome["losses"])
    print(whole, "whole of", 3 * len(calls))


def test_each_call_of_a_resume_may_fail(troubled, tmp_path):
    """What was there before stays."""
    first = troubled(tmp_path / "first", "fault:0:EIO:once")["losses"]

    def resumed(trouble):
        directory = tmp_path / trouble.replace(":", "-")
        shutil.copytree(tmp_path / "first", directory, symlinks=True)
        outcome = troubled(directory, trouble)
        outcome["losses"] = first + outcome["losses"]
        assert checked(directory, outcome, trouble) >= len(first)
        return len(outcome["calls"])

    calls, chance = resumed("fault:0:EIO:once"), random.Random(1)
    # The first ones are those of the resume itself.
    for number in range(1, calls + 1) if ALL else (*range(1, 12), *range(12, calls + 1, 8)):
        resumed(f"fault:{number}:{chance.choice(ERRORS)}:{chance.choice(HOW)}")


@pytest.mark.parametrize("step", [0, 1, 4, 20])
def test_the_folder_is_deleted_while_it_grows(troubled, tmp_path, step):
    (tmp_path / "runs").mkdir()
    outcome = troubled(tmp_path / "runs", f"gone:{step}")
    checked(tmp_path / "runs", outcome, step)


@pytest.mark.parametrize("seed", range(3))
def test_a_clock_that_jumps(troubled, tmp_path, seed):
    outcome = troubled(tmp_path, f"clock:{seed}")
    assert checked(tmp_path, outcome, seed) == len(outcome["losses"])
    assert outcome["told"] == []
    time = ll.open(catalog.newest(tmp_path, 1)[0][0].path).entries(["step", "time"]).to_pydict()
    assert np.all(np.diff(np.array(time["time"])[np.argsort(time["step"])]) >= 0)
