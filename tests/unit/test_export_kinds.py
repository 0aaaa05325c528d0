"""Runs of every kind, in every tracker and command."""

import numpy as np
import pytest
from exported import FILES
from made import Made
from read_back import READERS, values

from lossledger.cli import main
from lossledger.export import export
from lossledger.run import Run


def empty(folder):
    return Made(folder).close().path


def called(folder):
    made = Made(folder)
    made.call(0, driver="fit", model=0)
    return made.close().path


def one_step(folder):
    made = Made(folder)
    made.call(0, driver="fit", model=0)
    made.steps([0.5], epoch=0, time=np.zeros(1))
    return made.close().path


def nans(folder):
    made = Made(folder)
    made.call(0, driver="fit", model=0)
    made.steps([np.nan] * 6 + [np.inf, -np.inf], epoch=np.arange(8) // 3, time=np.arange(8))
    made.history(0, "loss", [np.nan, np.nan, np.inf])
    return made.close().path


def many_models(folder):
    made = Made(folder)
    for model in range(50):
        made.call(model, driver="fit", model=model, model_name=f"net{model}")
        made.steps([model, model], call=model, model=model, epoch=0, time=np.zeros(2))
    return made.close().path


def crashed(folder):
    made = Made(folder)
    made.call(0, driver="fit", model=0)
    for step in range(8):
        made.steps([step], epoch=step // 3, time=np.zeros(1))
        made.writer.flush()
    made.writer._stream.close()
    made.writer._lock.release()
    stream = next(made.path.rglob("*.arrows"))
    stream.write_bytes(stream.read_bytes()[:-30])
    return made.path


KINDS = [empty, called, one_step, nans, many_models, crashed]
ENTRIES = {"empty": 0, "called": 0, "one_step": 1, "nans": 8, "many_models": 100, "crashed": 7}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("tracker", FILES)
def test_runs_of_every_kind(kind, tracker, tmp_path):
    path, out = kind(tmp_path / "runs"), tmp_path / "out"
    done = export(Run(path), tracker, out)
    assert done.entries == ENTRIES[kind.__name__]
    assert export(Run(path), tracker, out).added == 0
    found = READERS[tracker](out)
    raw = [point for name, points in found.items() if "loss/raw" in name for point in points]
    assert len(raw) == done.entries
    if kind is nans:
        np.testing.assert_array_equal(values(raw), [np.nan] * 6 + [np.inf, -np.inf])
        np.testing.assert_array_equal(values(found["reported/loss"]), [np.nan, np.nan, np.inf])
    if kind is crashed:  # its last epoch ends where the writer died
        assert found["loss/epoch_mean"] == [(2, 1.0), (5, 4.0), (6, 6.0)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_commands_on_runs_of_every_kind(kind, tmp_path, capsys):
    path = kind(tmp_path / "runs")
    for command in (["show"], ["show", "--json"], ["show", "--follow"]):
        assert main([*command, str(path)]) == 0
        said = capsys.readouterr()
        assert "train" in said.out
        assert said.err == ""
    assert main(["list", str(path.parent)]) == 0
    assert "train" in capsys.readouterr().out
