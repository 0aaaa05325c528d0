"""Processes that die at a moment that is said: a server forks them, so that each begins at once.

A line on the server's stdin starts one: a folder, a seed, and when it dies: `time:SECONDS` (killed
from outside), `line:N` (at the Nth line that runs in the modules it watches), or `before:NAME:N`,
`after:NAME:N` (the Nth call of `os.NAME`). What is on disk for certain it says on stdout, a number
a line; then the server says `done` and its status.
"""

import itertools
import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def server(child):
    """Gives a function that lets one of a script's processes die: what it said, the last first."""
    with subprocess.Popen(
        [sys.executable, child],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    ) as process:

        def said(folder, seed, when):
            print(folder, seed, when, file=process.stdin, flush=True)
            said = list(iter(process.stdout.readline, "done -9\n"))
            assert not any(line.startswith("done") for line in said), (when, said)
            return max(map(int, said), default=0)

        yield said
        process.stdin.close()
    assert process.returncode == 0


def serve(work, modules):
    """Forks `work(folder, chance)`, which never ends by itself, for each line on stdin."""
    ours = {module.__file__ for module in modules}
    for line in sys.stdin:
        folder, seed, when = line.split()
        kind, _, what = when.partition(":")
        child = os.fork()
        if child == 0:
            # Only here: dying before anything was written would test nothing.
            if kind == "line":
                _die_at_line(int(what), ours)
            elif kind != "time":
                name, _, number = what.partition(":")
                _die_around(kind, name, int(number))
            work(Path(folder), random.Random(int(seed)))
        if kind == "time":
            time.sleep(float(what))
            os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        os.write(1, b"done %d\n" % os.waitstatus_to_exitcode(status))


def _die():
    os.kill(os.getpid(), signal.SIGKILL)


def _die_at_line(number, ours):
    left = itertools.count(number - 1, -1)

    def trace(frame, event, _):
        if frame.f_code.co_filename not in ours:
            return None
        if event == "line" and next(left) <= 0:
            _die()
        return trace

    threading.settrace(trace)
    sys.settrace(trace)


def _die_around(when, name, number):
    original, left = getattr(os, name), itertools.count(number - 1, -1)

    def deadly(*arguments, **options):
        last = next(left) <= 0
        if last and when == "before":
            _die()
        result = original(*arguments, **options)
        if last:
            _die()
        return result

    setattr(os, name, deadly)
