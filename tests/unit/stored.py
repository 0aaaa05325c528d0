"""What the tests of object stores share: a recording of six losses, and its commands."""

import os
import re
import shlex
import subprocess
import sys
import time
import warnings

import numpy as np

import lossledger
from lossledger.errors import LossLedgerWarning

LOSSLEDGER = [sys.executable, "-m", "lossledger"]
LOSSES = [4.0, 2.0, 1.0, 0.5, 0.25, 0.125]


def steps(run, losses=LOSSES, rows=2):
    for loss in losses:
        run.step(np.float32(loss), rows=rows)


def until(true, seconds=20):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def command(*arguments, **variables):
    return subprocess.run(
        [*LOSSLEDGER, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **variables},
        timeout=60,
        check=False,
    )


def recorded_in_vain(runs):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with lossledger.record(runs) as run:
            steps(run)
            yield run
    (warning,) = [str(each.message) for each in told if each.category is LossLedgerWarning]
    assert warning.startswith("[not-uploaded] ")
    yield warning


def pushed_later(run, warning, runs):
    assert lossledger.open(run.path).losses().tolist() == LOSSES
    (said,) = re.findall(r"lossledger (push \S+ \S+)\. ", warning)
    assert command(*shlex.split(said)).returncode == 0
    assert lossledger.open(f"{runs}/latest").losses().tolist() == LOSSES
