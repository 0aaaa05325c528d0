"""Writes entries into a folder until it dies; says how many rows are flushed. See `dying.py`."""

import os

import numpy as np
import pyarrow.parquet  # noqa: F401 - before the fork: it takes longer than all the rest
from dying import serve

from lossledger import folder, store
from lossledger.segments import sealed, segment, stream, tables

SEGMENT_ROWS = 40


def losses_at(steps):
    return (np.asarray(steps, np.float64) * 0.37 % 5).astype(np.float32)


def written(path, chance):
    step = sum(len(block["step"]) for block in store.scan(path, ["step"]))
    writer = store.Writer(path, segment_rows=SEGMENT_ROWS)
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


if __name__ == "__main__":
    serve(written, (folder, sealed, segment, store, stream, tables))
