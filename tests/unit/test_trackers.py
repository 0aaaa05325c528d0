"""Exports to MLflow's SQLite store and to W&B offline: the packages themselves, on small runs."""

import math

import numpy as np
import pytest
from made import Made
from read_back import READERS, steps, values
from read_back import mlflow as read_mlflow

from lossledger.export import export
from lossledger.run import Run

pytest.importorskip("mlflow")
pytest.importorskip("wandb")

# Their own code, and that of what they bring along, warns under other libraries' versions.
pytestmark = pytest.mark.filterwarnings("ignore")
NAMES = ("mlflow", "wandb")
LARGEST = np.finfo(np.float64).max


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """One for all tests: MLflow takes seconds to make one."""
    return tmp_path_factory.mktemp("mlflow")


@pytest.fixture
def out(tracker, store, tmp_path):
    """Gives the folder that a run is exported to, and reads it back."""

    def folder(name):
        return store if tracker == "mlflow" else tmp_path / name

    def read(name):
        where = folder(name)
        return read_mlflow(where, name) if tracker == "mlflow" else READERS[tracker](where)

    return folder, read


def grown(made, begin, end, call=0, model=0):
    place = np.arange(begin, end)
    made.steps(
        place * 1.5,
        call=call,
        model=model,
        epoch=place // 3,
        time=place * 1_000_000,
        learning_rate=np.full(len(place), 0.5),
    )
    made.writer.flush()


@pytest.mark.parametrize("tracker", NAMES)
def test_names_numbers_and_growth(tracker, out, tmp_path):
    """Exported in two pieces, and once more: the same as numpy says, and nothing twice."""
    folder, read = out
    made = Made(tmp_path / "runs", "grows")
    made.call(0, driver="fit", model=0, model_name="net")
    grown(made, 0, 4)
    assert export(Run(made.path), tracker, folder("grows")).entries == 4
    grown(made, 4, 6)
    made.history(0, "loss", [1.5, 6.0])
    run = made.close()
    assert export(run, tracker, folder("grows")).added > 6
    assert export(run, tracker, folder("grows")).added == 0

    def check():
        found = {name: sorted(points) for name, points in read("grows").items()}
        assert found["loss/raw"] == [(step, 1.5 * step) for step in range(6)]
        assert found["loss/running_mean"] == list(enumerate([0, 0.75, 1.5, 4.5, 5.25, 6]))
        assert found["loss/epoch_mean"] == [(2, 1.5), (5, 6.0)]
        assert found["reported/loss"] == [(2, 1.5), (5, 6.0)]
        assert values(found["learning_rate"]).tolist() == [0.5] * 6

    check()
    assert export(run, tracker, folder("grows"), force=True).added > 6
    check()


@pytest.mark.parametrize("tracker", NAMES)
def test_an_export_that_fails_goes_on(tracker, out, tmp_path, monkeypatch):
    """What was written after the last commit is in the tracker once."""
    folder, read = out
    made = Made(tmp_path / "runs", "fails", segment_rows=2)
    made.call(0, driver="fit", model=0)
    grown(made, 0, 9)
    run = made.close()
    where = f"lossledger.export.{tracker}.{dict(mlflow='MLflow', wandb='WandB')[tracker]}"
    monkeypatch.setattr(f"{where}.chunk", 4)
    monkeypatch.setattr("lossledger.export.mlflow.BATCH", 3)
    with monkeypatch.context() as broken:
        broken.setattr(f"{where}.epochs", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            export(run, tracker, folder("fails"))
    assert export(run, tracker, folder("fails")).entries == 9
    found = read("fails")
    assert sorted(found["loss/raw"]) == [(step, 1.5 * step) for step in range(9)]
    assert steps(found["loss/epoch_mean"]) == [2, 5, 8]


@pytest.mark.parametrize("tracker", NAMES)
def test_runs_of_every_kind(tracker, out, tmp_path):
    """Empty, of one step, of NaN and infinity, of 50 models, and cut short."""
    folder, read = out
    sizes = {}

    def done(made, close=True):
        if not close:
            made.writer.flush()
            made.writer._stream.close()
            made.writer._lock.release()
        run, name = made.close() if close else Run(made.path), made.info["name"]
        sizes[name] = export(run, tracker, folder(name)).entries
        return read(name)

    assert done(Made(tmp_path / "runs", "empty")) == {}
    one = Made(tmp_path / "runs", "one")
    grown(one, 0, 1)
    assert done(one)["loss/epoch_mean"] == [(0, 0.0)]
    bad = Made(tmp_path / "runs", "nan")
    bad.steps([np.nan, np.inf, -np.inf, 1.0], epoch=0, time=np.arange(4) * 10**6)
    losses = values(sorted(done(bad)["loss/raw"]))
    infinity = LARGEST if tracker == "mlflow" else math.inf
    np.testing.assert_array_equal(losses, [math.nan, infinity, -infinity, 1.0])
    many = Made(tmp_path / "runs", "many")
    for model in range(50):
        many.call(model, driver="fit", model=model, model_name=f"net{model}")
        grown(many, 0, 2, model, model)
    found = done(many)
    assert sum(name.endswith("loss/raw") for name in found) == 50
    assert found["net49/loss/raw"] == [(0, 0.0), (1, 1.5)]
    dead = Made(tmp_path / "runs", "dead")
    grown(dead, 0, 4)
    assert steps(done(dead, close=False)["loss/epoch_mean"]) == [2, 3]
    assert sorted(sizes.values()) == [0, 1, 4, 4, 100]
