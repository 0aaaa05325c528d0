"""The examples of `Loop` run, at a small size, and print what they promise."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
SMALL = {"EPOCHS": "2", "STEPS": "12", "EPISODES": "6"}


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("gan", "epoch 1   generator"),
        ("lr_finder", "a tenth of it is a good start"),
        ("physics", "largest error against sin"),
        ("dqn", "last episodes took"),
        ("convnet", "evaluate on the training data"),
    ],
)
def test_example(name: str, says: str, tmp_path: Path) -> None:
    environment = {**os.environ, **SMALL, "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment.setdefault("KERAS_BACKEND", "jax")
    command = [sys.executable, EXAMPLES / f"{name}.py"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert says in done.stdout
