"""Recorded scripts, trained again under other seeds."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from command import LOSSLEDGER, RUN, execute
from test_commands import record

from lossledger.cli import main
from lossledger.reconciliation.result import Cause, Reconciliation, Side
from lossledger.replay.scripts import _judged

SCRIPT = """
import sys
import numpy as np
import keras
rng = np.random.default_rng(0)
x = rng.random((64, 3)).astype("float32")
y = x.sum(1, keepdims=True)
keras.utils.set_random_seed(int(sys.argv[1]))
model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
model.compile("sgd", "mse")
model.fit(x, y, batch_size=16, epochs=2, verbose=0)
"""


def test_a_gap_between_seeds_is_within_chance(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("")
    (tmp_path / "train.py").write_text(SCRIPT)
    for name, seed in (("one", "1"), ("two", "2")):
        done = execute([*RUN, "--name", name, "train.py", seed], tmp_path)
        assert done.status == 0, done.stderr
    command = [*LOSSLEDGER, "reconcile", "one", "two", "--repeat", "2", "--json"]
    done = execute(command, tmp_path)
    assert done.status == 0, done.stderr
    found = json.loads(done.stdout)
    assert "Trained again under 2 seeds" in found["verdict"]
    assert "within what chance makes" in found["verdict"]
    assert found["noise"] > abs(found["gap"]) > 0
    assert b"training 2 of 2: " in done.stderr
    assert len(list((tmp_path / "runs").glob("2*"))) == 2, "replays leave no runs behind"


@pytest.mark.parametrize(
    ("script", "changed", "slug"),
    [
        (None, False, "no-script"),
        ("-c", False, "no-script"),
        ("raise SystemExit('not today')", False, "replay-failed"),
        ("print('no training')", False, "replay-failed"),
        ("pass", True, "script-changed"),
    ],
)
def test_what_cannot_be_trained_again_is_one_error(
    tmp_path: Path, capsys, monkeypatch, script: str | None, changed: bool, slug: str
) -> None:
    (tmp_path / "pyproject.toml").write_text("")
    monkeypatch.chdir(tmp_path)
    file = record(tmp_path / "runs", "one", 10) / "run.json"
    info = json.loads(file.read_text()) | {"command": ["train.py"], "script": None}
    del info["crc"]
    if script == "-c":
        info["command"] = ["-c", "open('taken from a run folder', 'w')"]
    elif script is not None:
        path = tmp_path / "train.py"
        path.write_text(script)
        sha = hashlib.sha256(b"other" if changed else path.read_bytes()).hexdigest()
        info["script"] = {"path": str(path), "sha256": sha}
    file.write_text(json.dumps(info))
    assert main(["reconcile", "one", "one:last", "--repeat", "2"]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert f"lossledger: error [{slug}]" in printed.err
    assert not Path("taken from a run folder").exists()


def test_a_file_cannot_be_trained_again(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("log.csv").write_text("epoch,loss\n0,0.5\n")
    assert main(["reconcile", "log.csv", "log.csv", "--repeat", "2"]) == 1
    assert "error [no-script]" in capsys.readouterr().err


def test_noise_is_students() -> None:
    cause = Cause("order", 1.0, "replayed", None, "", "")
    sides = Side("a", "raw", 1.0), Side("b", "raw", 2.0)
    result = Reconciliation.of(*sides, [cause], verdict="So.")
    gaps = np.array([1.0, 2.0, 4.0])
    found = _judged(result, gaps)
    assert found.noise == pytest.approx(9.925 * gaps.std(ddof=1))
    assert found.causes[0].is_noise
    assert "+2.33 on average" in found.verdict
    assert found.verdict.endswith("what one pair tells may be nothing but chance.")
    assert "nothing but chance" not in _judged(result, np.array([2.0, 2.01, 2.02])).verdict
    gaps = np.array([1.0, 1.2, 1.4, 1.0, 0.6])
    found = _judged(result, gaps)
    assert found.noise == pytest.approx(4.604 * gaps.std(ddof=1))
    assert found.noise > found.gap, "a pair moves by more than the gap"
    assert "larger than what chance makes" in found.verdict
    assert not found.causes[0].is_noise, "as the verdict says"
    assert "always the same" in _judged(result, np.ones(3)).verdict
    assert "once" in _judged(result, np.ones(1)).verdict
    assert "not finite" in _judged(result, np.array([1.0, np.nan])).verdict
