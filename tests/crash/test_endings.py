"""However a process ends, it ends as without a recording, and what was on disk is read.

Each ending of `ending_child.py`, by `python` and by `lossledger run`, with a recording and without.
"""

import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import lossledger as ll
from lossledger import catalog
from lossledger.cli import main
from tests.crash.ending_child import ENDS, STEPS

CHILD = str(Path(__file__).with_name("ending_child.py"))
BY = {"python": [], "run": ["-m", "lossledger", "run", "-q"]}


@contextmanager
def server(arguments):
    with subprocess.Popen(
        [sys.executable, *arguments, CHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:

        def ended(directory, how, recorded):
            directory.mkdir()
            print(directory, how, int(recorded), file=process.stdin, flush=True)
            status = int(process.stdout.readline())
            return status, (directory / "stderr").read_text()

        yield ended
        process.stdin.close()
    assert process.returncode == 0


@pytest.fixture(scope="module")
def ended(request):
    with server(BY[request.param]) as ended:
        yield ended


def checked(directory, how, told, complete):
    """Reads what is there; whether the run is complete."""
    assert "Exception ignored" not in told
    infos = {info.name: info for info in catalog.newest(directory, 0)[0]}
    assert [info.problem for info in infos.values()] == [None] * len(infos)
    assert ("second" in infos) == (how in ("a_new_one_at_exit", "a_forked_child_records"))
    for name, info in infos.items():
        run = ll.open(info.path)
        steps = run.entries(["step"])["step"].to_pylist()
        assert steps == list(range(len(steps)))
        losses = run.losses()
        np.testing.assert_array_equal(losses[:STEPS], np.arange(STEPS))
        assert set(losses[STEPS:].tolist()) <= {7.0, *range(STEPS)}
        if complete is not None:
            assert run.complete is (complete or name == "second")
    return ll.open(infos["run"].path).complete


UNDER_RUN = ("sigterm", "sigint", "sigint_twice", "exit", "os_exit", "never_stopped", "raises")
CASES = [("python", how) for how in ENDS] + [("run", how) for how in UNDER_RUN]


@pytest.mark.parametrize(("ended", "how"), CASES, indirect=["ended"])
def test_an_end_is_as_without_a_recording(ended, tmp_path, capsys, how):
    plain, _ = ended(tmp_path / "plain", how, False)
    status, told = ended(tmp_path / "runs", how, True)
    assert status == plain
    _, complete = ENDS[how]
    complete = checked(tmp_path / "runs", how, told, complete)
    warned = {"a_daemon_goes_on", "trains_at_exit", "a_forked_child_trains"}
    assert told.count("[entries-lost]") == (how in warned), told
    assert main(["show", str(catalog.find("run", tmp_path / "runs"))]) == 0
    said = capsys.readouterr().out
    assert ("incomplete: it was cut short" in said) is not complete
