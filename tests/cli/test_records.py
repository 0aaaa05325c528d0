"""From a script that trains to the commands that show it, with whatever backend is installed."""

import json
import os
import re
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from command import LOSSLEDGER, execute
from pyarrow import csv

BACKENDS = [name for name in ("jax", "torch", "tensorflow") if find_spec(name)]
SCRIPT = """
import numpy as np
import keras

keras.utils.set_random_seed(0)
x, y = np.random.rand(50, 3).astype("f4"), np.random.rand(50, 1).astype("f4")
model = keras.Sequential([keras.layers.Dense(1)])
model.compile("sgd", "mse")
history = model.fit(x, y, batch_size=20, epochs=2, verbose=0).history["loss"]
for epoch in range(2):
    for start in (0, 25):
        history.append(model.train_on_batch(x[start : start + 25], y[start : start + 25]))
print(*(repr(float(value)) for value in history))
"""


@pytest.mark.skipif(not BACKENDS, reason="no backend is installed")
def test_what_a_script_trains_is_recorded_and_shown(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(SCRIPT)
    # pyproject.toml: the settings of no folder above are in force.
    (tmp_path / "pyproject.toml").write_text("")
    variables = {"KERAS_BACKEND": os.environ.get("KERAS_BACKEND", BACKENDS[0])}
    command = [*LOSSLEDGER, "run", "--export", "csv", "--export", "parquet=tables", "train.py"]
    ran = execute(command, tmp_path, **variables)
    assert ran.status == 0, ran.stderr
    line = ran.stderr.decode().splitlines()[-1]
    said = re.fullmatch(
        r"lossledger: 10 steps in 2 calls -> (\S+)  next: lossledger show (\S+)", line
    )
    assert said
    assert said[1] == said[2]
    printed = [float(word) for word in ran.stdout.split()]
    shown = execute([*LOSSLEDGER, "show", said[1], "--json"], tmp_path)
    assert shown.status == 0, shown.stderr
    fit, series = json.loads(shown.stdout)["calls"]
    assert [epoch["reported"] for epoch in fit["epochs"]] == printed[:2]
    assert [epoch["epoch_mean"] for epoch in fit["epochs"]] == pytest.approx(printed[:2], rel=1e-6)
    assert [epoch["rows"] for epoch in fit["epochs"] + series["epochs"]] == [50] * 4
    assert series["epochs_from"] == "batch_id"
    for epoch, values in zip(series["epochs"], (printed[2:4], printed[4:]), strict=True):
        assert epoch["batch_mean"] == pytest.approx(np.mean(values), rel=1e-6)
    for call in (fit, series):
        assert {item["agreement"] for item in call["reported"]} <= {"equal", "rounding"}
    (steps,) = (tmp_path / "exports/csv").rglob("steps.csv")
    exported = csv.read_csv(steps)
    assert exported.column("optimizer_step").to_pylist() == list(range(10))
    # The epochs of its second call are known only when the run is over.
    assert exported.column("epoch").to_pylist() == [0] * 3 + [1] * 3 + [0, 0, 1, 1]
    assert exported.column("reported").to_pylist()[6:] == pytest.approx(printed[2:])
    assert len(list((tmp_path / "tables").rglob("epochs-*.parquet"))) == 1
    listed = execute([*LOSSLEDGER, "list"], tmp_path).stdout.decode().split()
    assert listed[-4:-2] == ["2", "10"]
