"""`lossledger run` on an unmodified script, with the backend that the script chooses."""

import os
import subprocess
import sys

import numpy as np
import pytest

import lossledger

from .conftest import BACKEND

SCRIPT = """
import os
os.environ["KERAS_BACKEND"] = "{backend}"
{imports}
import numpy as np
keras.utils.set_random_seed(3)
x = np.random.default_rng(0).random((64, 4)).astype("float32")
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
model.compile("adam", "mse")
history = model.fit(x, x[:, :1], epochs=2, batch_size=16, verbose=0).history["loss"]
returned = [model.train_on_batch(x[:16], x[:16, :1]) for _ in range(3)]
print(keras.backend.backend(), history, returned)
raise SystemExit(7)
"""
IMPORTS = {"keras": "import keras"}
if BACKEND == "tensorflow":
    IMPORTS["tf.keras"] = "import tensorflow as tf\nkeras = tf.keras"


def execute(folder, imports, *command):
    script = folder / "train.py"
    script.write_text(SCRIPT.format(backend=BACKEND, imports=IMPORTS[imports]))
    environment = {k: v for k, v in os.environ.items() if k != "KERAS_BACKEND"}
    environment["PYTHONHASHSEED"] = "0"
    command = [sys.executable, *command, str(script)]
    return subprocess.run(command, capture_output=True, cwd=folder, env=environment)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """By whichever name Keras is imported, the script computes the same."""
    return execute(tmp_path_factory.mktemp("plain"), "keras")


@pytest.mark.parametrize("imports", IMPORTS)
def test_an_unmodified_script(tmp_path, imports, plain):
    recorded = execute(tmp_path, imports, "-m", "lossledger", "run")
    assert plain.returncode == recorded.returncode == 7
    assert plain.stdout == recorded.stdout
    assert b"11 steps in 2 calls" in recorded.stderr
    opened = lossledger.open(tmp_path / "runs" / "latest")
    assert opened.name == "train"
    assert opened.info["versions"]["backend"] == BACKEND
    history = eval(recorded.stdout.decode().split(" ", 1)[1].split("]")[0] + "]")
    np.testing.assert_allclose(opened.statistic("epoch_mean", call=0), history, rtol=1e-6)
