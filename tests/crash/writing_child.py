"""Writes entries into a folder until it is killed; says on stdout how many rows are flushed.

Arguments: the folder, a seed, and where to die: `never` (the parent kills), `line:N` (at the Nth
line that runs inside the package), `before:NAME` or `after:NAME` (a call of `os.NAME`).
"""

import os
import random
import signal
import sys
from pathlib import Path

import numpy as np

from lossledger import folder, store
from lossledger.segments import sealed, segment, stream, tables

SEGMENT_ROWS = 40
OURS = {module.__file__ for module in (folder, sealed, segment, store, stream, tables)}


def losses_at(steps):
    return (np.asarray(steps, np.float64) * 0.37 % 5).astype(np.float32)


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def die_at_line(number):
    left = number

    def trace(frame, event, _):
        nonlocal left
        if frame.f_code.co_filename not in OURS:
            return None
        if event == "line":
            left -= 1
            if left == 0:
                die()
        return trace

    sys.settrace(trace)


def die_around(when, name):
    original = getattr(os, name)

    def deadly(*arguments, **options):
        if when == "before":
            die()
        result = original(*arguments, **options)
        die()
        return result

    setattr(os, name, deadly)


def main():
    path, chance, where = Path(sys.argv[1]), random.Random(int(sys.argv[2])), sys.argv[3]
    step = sum(len(block["step"]) for block in store.scan(path, ["step"]))
    writer = store.Writer(path, segment_rows=SEGMENT_ROWS)
    # Only from here on: dying before anything was written would test nothing.
    kind, _, what = where.partition(":")
    if kind == "line":
        die_at_line(int(what))
    elif kind in ("before", "after"):
        die_around(kind, what)
    while True:
        for _ in range(chance.randrange(1, 4)):
            steps = np.arange(step, step + chance.randrange(1, 12))
            block = {"step": steps, "loss": losses_at(steps), "call": np.zeros(len(steps), "i4")}
            if chance.random() < 0.05:
                block["a_loss"] = block["loss"] / 2
            writer.append(block)
            step += len(steps)
        writer.flush()
        os.write(1, b"%d\n" % step)


main()
