"""Records until it dies; says how many steps are on disk. See `dying.py`.

Each recording goes on in the newest run that is there, ends it, resumes it, and so forth.
"""

import os
import time
from functools import partial

import numpy as np
import pyarrow.parquet  # noqa: F401 - before the fork: it takes longer than all the rest
from dying import serve

import lossledger as ll
from lossledger import catalog, folder, run, store  # noqa: F401
from lossledger.recorder import before, call, collector, custom, output, record, recording
from lossledger.segments import sealed, segment, stream, tables

OURS = (before, call, collector, custom, folder, output, record, recording)
OURS = (*OURS, sealed, segment, store, stream, tables)


def losses_at(steps):
    return (np.asarray(steps, np.float64) * 0.37 % 5).astype(np.float32)


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


if __name__ == "__main__":
    serve(recorded, OURS)
