"""Forks recordings that die; a line on stdin starts one: folder, seed, when.

`when` is `time:SECONDS` (killed from outside), `line:N` (at the Nth line that runs in the package's
writing half), or `before:NAME:N`, `after:NAME:N` (the Nth call of `os.NAME`). Each recording goes
on in the newest run that is there, ends it, resumes it, and so forth; how many steps are on disk
for certain goes to stdout, and `done` when it is dead.
"""

import itertools
import os
import random
import signal
import sys
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet  # noqa: F401 - before the fork: it takes longer than all the rest

import lossledger as ll
from lossledger import catalog, folder, run, store  # noqa: F401
from lossledger.recorder import before, call, collector, custom, output, record, recording
from lossledger.segments import sealed, segment, stream, tables

OURS = (before, call, collector, custom, folder, output, record, recording)
OURS = {m.__file__ for m in (*OURS, sealed, segment, store, stream, tables)}


def losses_at(steps):
    return (np.asarray(steps, np.float64) * 0.37 % 5).astype(np.float32)


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def die_at_line(number):
    left = itertools.count(number, -1)

    def trace(frame, event, _):
        if frame.f_code.co_filename not in OURS:
            return None
        if event == "line" and next(left) <= 0:
            die()
        return trace

    threading.settrace(trace)
    sys.settrace(trace)


def die_around(when, name, number):
    original, left = getattr(os, name), itertools.count(number, -1)

    def deadly(*arguments, **options):
        last = next(left) <= 0
        if last and when == "before":
            die()
        result = original(*arguments, **options)
        if last:
            die()
        return result

    setattr(os, name, deadly)


def recorded(directory, chance):
    """Records until it dies."""
    store.Writer = partial(store.Writer, segment_rows=40)
    collector.FLUSH_SECONDS = 0.003
    while True:
        resume = catalog.newest(directory, 1)[0] if directory.is_dir() else []
        steps = 0
        if resume:
            scanned = store.scan(resume[0].path, ["step"])
            steps = max((int(block["step"].max()) + 1 for block in scanned), default=0)
        chosen = {"resume": resume[0].path} if resume else {}
        with ll.record(directory, name="run", **chosen) as one:
            for _ in range(chance.randrange(1, 6)):
                one.epoch(steps // 10)
                for _ in range(chance.randrange(1, 30)):
                    one.step(losses_at(steps), rows=2)
                    steps += 1
                    if chance.random() < 0.05:
                        time.sleep(0.004)  # the thread writes
                if chance.random() < 0.6:
                    one.collector.collect()
                    os.write(1, b"%d\n" % steps)


def main():
    for line in sys.stdin:
        directory, seed, when = line.split()
        kind, _, what = when.partition(":")
        child = os.fork()
        if child == 0:
            # Only here: dying before anything was written would test nothing.
            if kind == "line":
                die_at_line(int(what))
            elif kind != "time":
                name, _, number = what.partition(":")
                die_around(kind, name, int(number))
            recorded(Path(directory), random.Random(int(seed)))
        if kind == "time":
            time.sleep(float(what))
            os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        os.write(1, b"done %d\n" % os.waitstatus_to_exitcode(status))


main()
