"""A long training under a recording: memory and the time of a step, tenth by tenth.

KERAS_BACKEND=jax STEPS=1000000 .venv/bin/python benchmarks/long.py
"""

import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import numpy as np

import lossledger as ll

STEPS = int(float(os.environ.get("STEPS", 100_000)))
PER_EPOCH = 1000


def resident():
    """Megabytes in memory now."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


class Looks(keras.callbacks.Callback):
    """Notes the time and the memory at the end of each tenth; asks for no batch's logs."""

    def __init__(self, tenth):
        super().__init__()
        self.tenth = tenth
        self.seen = [(time.perf_counter(), resident())]

    def on_epoch_end(self, epoch, logs=None):
        if (epoch + 1) % self.tenth == 0:
            self.seen.append((time.perf_counter(), resident()))


def main():
    x = np.random.default_rng(0).random((PER_EPOCH * 32, 8)).astype("float32")
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    epochs = STEPS // PER_EPOCH
    looks = Looks(epochs // 10)
    with tempfile.TemporaryDirectory() as folder:
        with ll.record(folder) as run:
            model.fit(x, x[:, :1], batch_size=32, epochs=epochs, verbose=0, callbacks=[looks])
        entries = len(ll.open(run.path).losses())
        steps = ll.open(run.path).entries(["step"])["step"].to_numpy()
    print(f"{keras.backend.backend()}: {STEPS} steps, {entries} entries", end="")
    print(f", numbered without a gap: {bool((steps == np.arange(STEPS)).all())}")
    for place, (begin, end) in enumerate(zip(looks.seen, looks.seen[1:], strict=False), start=1):
        each = (end[0] - begin[0]) / (STEPS / 10) * 1e6
        print(f"tenth {place:2}  {each:7.1f} us a step  {end[1]:7.1f} MB")


if __name__ == "__main__":
    main()
