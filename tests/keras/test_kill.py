"""A training that is killed keeps all but the last second of its entries."""

import random
import re
import signal
import subprocess
import sys
import time

import numpy as np

import lossledger

from .conftest import BACKEND

TRAIN = """
import sys, time, numpy as np, keras, lossledger
x = np.random.default_rng(0).random((2000, 3)).astype("float32")
model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
model.compile("sgd", "mse")
class Tells(keras.callbacks.Callback):
    async_safe = True
    steps = 0
    def on_train_batch_end(self, batch, logs=None):
        Tells.steps += 1
        if Tells.steps % 20 == 0:
            sys.stdout.write(f"{Tells.steps} {time.time()}" + chr(10))
            sys.stdout.flush()
lossledger.record(sys.argv[1]).start()
if sys.argv[2] == "fit":
    model.fit(x, x[:, :1], batch_size=10, epochs=10_000, verbose=0, callbacks=[Tells()])
for step in range(10**9):
    model.train_on_batch(x[:10], x[:10, :1])
    Tells().on_train_batch_end(step)
"""


def kill_while_training(folder, driver, after):
    """Steps the child said it had finished, with the time, until it was killed."""
    command = [sys.executable, "-c", TRAIN, str(folder), driver]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        lines = [child.stdout.readline()]
        began = time.monotonic()
        while time.monotonic() < began + after:
            lines.append(child.stdout.readline())
        child.send_signal(signal.SIGKILL)
        killed = time.time()
        lines += child.stdout.readlines()
    # Keras calls back from several threads: a line may be torn by another.
    told = [line.split() for line in lines if re.fullmatch(r"\d+ \d{10}\.\d+\n", line)]
    return [(int(steps), float(at)) for steps, at in told], killed


def test_killed_trainings(tmp_path):
    rng = random.Random(0)
    # What writes knows no driver: both, on one backend.
    drivers = ["fit", "train_on_batch"] if BACKEND == "jax" else ["fit"]
    for number, driver in enumerate(drivers):
        folder = tmp_path / str(number)
        told, killed = kill_while_training(folder, driver, rng.uniform(1.2, 2.5))
        run = lossledger.open(folder / "latest")
        steps = run.entries()["step"].to_numpy()
        np.testing.assert_array_equal(steps, np.arange(len(steps)))
        done = max((step for step, at in told if at < killed - 1.0), default=0)
        assert done > 0
        assert len(steps) >= done
        assert not run.complete
        assert np.isfinite(run.losses()).all()
