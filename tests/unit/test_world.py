"""Processes that train together find one run folder, and lose no more than what died."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

import lossledger as ll
from lossledger.recorder.world import find_world

from .made import Made

LOOP = """
import sys, time, lossledger
with lossledger.record(sys.argv[1], name="loop") as run:
    for step in range(int(sys.argv[2])):
        run.step(float(step + 10 * int(sys.argv[3])), rows=2)
    run.collector.collect()
    print(run.path.name, flush=True)
    if sys.argv[4] == "wait":
        time.sleep(60)
"""


def begin(folder, steps, rank, end="end", **variables):
    command = [sys.executable, "-c", LOOP, str(folder), str(steps), str(rank), end]
    return subprocess.Popen(
        command, env={**os.environ, **variables}, stdout=subprocess.PIPE, text=True
    )


def said(rank, name="both"):
    return {"LOSSLEDGER_RUN": name, "LOSSLEDGER_WORKER": f"{rank}/2"}


def test_two_processes_of_which_one_is_killed(tmp_path):
    """What the other recorded is read, and what is missing has a name."""
    with (
        begin(tmp_path, 6, 0, **said(0)) as first,
        begin(tmp_path, 4, 1, "wait", **said(1)) as second,
    ):
        try:
            names = [each.stdout.readline().strip() for each in (first, second)]
            second.send_signal(signal.SIGKILL)
            assert first.wait(60) == 0
        finally:
            first.kill()
            second.kill()
    assert names == ["both", "both"]
    run = ll.open(tmp_path / "latest")
    assert run.id == "both"
    assert not run.complete
    np.testing.assert_array_equal(run.losses(), [5.0, 6.0, 7.0, 8.0, 4.0, 5.0])
    (lost,) = run.missing
    assert (lost.worker, lost.steps, lost.last) == (1, 2, 3)


def record_in_this_process(folder, monkeypatch, environment):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with ll.record(folder) as run:
        run.step(1.0, rows=2)
    return run


def test_a_name_that_an_earlier_run_has(tmp_path, monkeypatch):
    """The earlier run keeps its entries as they are."""
    first = record_in_this_process(tmp_path, monkeypatch, said(0))
    with pytest.warns(ll.LossLedgerWarning, match=r"\[workers-apart\]"):
        second = record_in_this_process(tmp_path, monkeypatch, said(0))
    assert first.path.name == "both"
    assert second.path != first.path
    for run in (first, second):
        assert ll.open(run.path).losses().tolist() == [1.0]


def test_a_name_never_leads_out_of_the_folder_of_runs(tmp_path, monkeypatch):
    run = record_in_this_process(tmp_path / "runs", monkeypatch, said(0, "../../elsewhere"))
    assert run.path == tmp_path / "runs" / "elsewhere"


@pytest.mark.parametrize("name", ["..", ".", "/", "latest", "plain"])
def test_a_name_that_is_none(tmp_path, monkeypatch, name):
    """Not one of a new folder in the folder of runs: it is not touched."""
    plain = Made(tmp_path / "runs", "first")
    plain.steps([1.0, 2.0])
    plain.close()
    plain.path.rename(tmp_path / "runs" / "plain")
    with pytest.warns(ll.LossLedgerWarning, match=r"\[workers-apart\]"):
        run = record_in_this_process(tmp_path / "runs", monkeypatch, said(0, name))
    assert run.path.parent == tmp_path / "runs"
    assert [each.name for each in tmp_path.iterdir()] == ["runs"]
    assert ll.open(tmp_path / "runs" / "plain").losses().tolist() == [1.0, 2.0]
    assert ll.open(run.path).losses().tolist() == [1.0]


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"LOSSLEDGER_RUN": "a"},
        {"LOSSLEDGER_RUN": "a", "LOSSLEDGER_WORKER": "2/2"},
        {"LOSSLEDGER_RUN": "a", "LOSSLEDGER_WORKER": "0/1"},
        {"LOSSLEDGER_RUN": "a", "LOSSLEDGER_WORKER": "one/two"},
        {"RANK": "0", "WORLD_SIZE": "2"},
        {"TF_CONFIG": "{"},
        {"TF_CONFIG": '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker"}}'},
    ],
)
def test_a_process_that_trains_alone(environment):
    assert find_world(environment) is None


def test_which_process_this_is():
    world = find_world({"LOSSLEDGER_RUN": "a", "LOSSLEDGER_WORKER": "1/3"})
    assert world is not None
    assert (world.rank, world.size, world.agree("key", "mine")) == (1, 3, "a")
