"""A long training under a recording, and the same without: memory and time, tenth by tenth.

Each is a process of its own, and they run one after the other. The time is the processor's, of all
threads of the process: other work on the machine adds little to it. Rewrites the section `long` of
`docs/benchmarks.md`; `WAY=loop` trains by `Loop` and prints only.

    KERAS_BACKEND=jax STEPS=1000000 .venv/bin/python benchmarks/long.py
"""

import contextlib
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")

import numpy as np
import section

USUAL = 1_000_000
STEPS = int(float(os.environ.get("STEPS", USUAL)))
PER_EPOCH = 1000
LOOP = os.environ.get("WAY") == "loop"
NAMES = ("tenth", "recorded", "CPU µs a step", "MB resident", "of them anonymous", "pyarrow's")
NAMES = (*NAMES, "objects")


def memory():
    """Megabytes in memory now: all that is resident, and what no file backs of it."""
    status = Path("/proc/self/status").read_text()
    return [int(status.split(name)[1].split()[0]) / 1024 for name in ("VmRSS:", "RssAnon:")]


def arrow():
    """Megabytes that pyarrow holds now; 0 where it was never imported."""
    module = sys.modules.get("pyarrow")
    return module.total_allocated_bytes() / 2**20 if module else 0.0


def train(recorded):
    """Trains; prints what each tenth took, as JSON, and what was recorded."""
    import keras

    import lossledger as ll

    class Looks(keras.callbacks.Callback):
        """Notes time and memory at the end of each tenth; asks for no batch's logs."""

        def __init__(self, tenth):
            super().__init__()
            self.tenth = tenth
            self.rows = []
            self.at = time.process_time()

        def on_epoch_end(self, epoch, logs=None):
            if (epoch + 1) % self.tenth == 0:
                each = (time.process_time() - self.at) / (STEPS / 10) * 1e6
                gc.collect()
                held = [f"{megabytes:.0f}" for megabytes in (*memory(), arrow())]
                row = (f"{(epoch + 1) // self.tenth}", "yes" if recorded else "no", f"{each:.1f}")
                self.rows.append((*row, *held, f"{len(gc.get_objects()):,}"))
                self.at = time.process_time()

    x = np.random.default_rng(0).random((PER_EPOCH * 32, 8)).astype("float32")
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    epochs = STEPS // PER_EPOCH
    with tempfile.TemporaryDirectory() as folder:
        with ll.record(folder) if recorded else contextlib.nullcontext() as run:
            looks = Looks(epochs // 10)
            chosen = {"batch_size": 32, "epochs": epochs, "verbose": 0, "callbacks": [looks]}
            if LOOP:
                ll.Loop(model, x, x[:, :1], **chosen).run()
            else:
                model.fit(x, x[:, :1], **chosen)
        told = "" if run is None else numbered(ll.open(run.path))
    print(json.dumps([looks.rows, told]))


def numbered(run):
    """How many entries a run has, and whether a step is missing."""
    steps = run.entries(["step"])["step"].to_numpy()
    gapless = len(steps) == STEPS and bool((steps == np.arange(STEPS)).all())
    gaps = "without a gap" if gapless else "with gaps"
    return f"{len(steps):,} entries were recorded, numbered {gaps}."


def main():
    rows, told = [], []
    for name in ("--plain", "--recorded"):
        section.doing(f"{STEPS:,} steps, {name.removeprefix('--')}")
        done = subprocess.run(
            [sys.executable, __file__, name], check=True, stdout=subprocess.PIPE, text=True
        )
        found, sentence = json.loads(done.stdout.splitlines()[-1])
        rows += found
        told.append(sentence)
    backend = os.environ["KERAS_BACKEND"]
    way = "Loop" if LOOP else "fit"
    head = section.head(
        f"{STEPS:,} steps of {way} on {backend}", section.versions("keras", "pyarrow")
    )
    rows.sort(key=lambda row: int(row[0]))
    section.write(
        "long", head, section.table(NAMES, rows), *told, whole=STEPS == USUAL and not LOOP
    )


if __name__ == "__main__":
    if sys.argv[1:2] in (["--plain"], ["--recorded"]):
        train(sys.argv[1] == "--recorded")
    else:
        main()
