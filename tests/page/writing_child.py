"""Writes a run as a recorder does, some steps at a time: argument 1 is the folder of runs."""

import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))

import os

from made import Made

run = Made(Path(sys.argv[1]), "child", pid=os.getpid())
print(run.path, flush=True)
sys.stdin.readline()  # the page is open: there is no segment yet
run.call(0, driver="fit", model=0)
for line in sys.stdin:
    if line.strip() == "end":
        run.call(0, ended=1)
        run.close()
        break
    count = int(line)
    times = np.full(count, time.monotonic_ns())
    # A penalty that is nothing at first is a curve that the page gets later than the others.
    penalty = np.full(count, 0.5 if run.step else 0.0)
    run.steps(np.linspace(2, 1, count), epoch=0, time=times, penalty=penalty)
    run.writer.flush()
    print("written", flush=True)
