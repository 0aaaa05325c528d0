"""`lossledger run --resume`: a restarted script goes on in its run."""

import json
import os
import subprocess
import sys

import numpy as np

import lossledger as ll

SCRIPT = """
import os, signal, sys
import keras, numpy as np
x = np.arange(24, dtype="float32").reshape(12, 2) / 24
model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
model.compile("sgd", "mse")
class Dies(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2 and "die" in sys.argv:
            import time; time.sleep(1)
            os.kill(os.getpid(), signal.SIGKILL)
first = int(sys.argv[1])
model.fit(x, x[:, :1], batch_size=4, epochs=4, initial_epoch=first, verbose=0, callbacks=[Dies()])
"""


def lossledger(folder, *arguments):
    command = [sys.executable, "-m", "lossledger", *map(str, arguments)]
    environment = {**os.environ, "KERAS_BACKEND": "jax", "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_a_restarted_script_goes_on_in_its_run(tmp_path):
    (tmp_path / "train.py").write_text(SCRIPT)
    first = lossledger(tmp_path, "run", "train.py", "0", "die", "--api-key", "sesame")
    assert first.returncode == -9
    second = lossledger(tmp_path, "run", "--resume", "latest", "train.py", "1")
    assert second.returncode == 0, second.stderr
    assert "9 steps in 1 call" in second.stderr
    assert "sesame" not in "".join(path.read_text() for path in tmp_path.glob("runs/*/*.json*"))
    run = ll.open(tmp_path / "runs" / "latest")
    assert len(run.losses()) == 12
    assert run.calls[1].standing.again == 3
    told = lossledger(tmp_path, "show", "latest")
    words = " ".join(told.stdout.split())
    assert "cut short after step 5 (batch 2 of epoch 1); resumed" in words
    assert "with call 1, which trained 3 steps again" in words
    assert "3 more steps were trained again after a resume, and count no more" in words
    shown = json.loads(lossledger(tmp_path, "show", "latest", "--json").stdout)
    assert shown["run"]["resumed"][0]["again"] == 3
    assert [call["superseded"] for call in shown["calls"]] == [3, 0]
    epochs = [epoch["epoch"] for call in shown["calls"] for epoch in call["epochs"]]
    assert epochs == [0, 1, 2, 3]
    losses = np.array(run.entries(["loss"])["loss"])
    kept = np.concatenate((losses[:3], losses[6:])).reshape(4, 3)
    np.testing.assert_allclose(run.statistic("epoch_mean"), kept.astype("f8").mean(axis=1))
