"""The callback that records and exports: the same training, and the numbers of its History."""

import keras
import numpy as np
import pytest
from pyarrow import csv

import lossledger

from .conftest import X, Y, network

FIT = {"batch_size": 32, "epochs": 2, "shuffle": False, "verbose": 0}


def train(callbacks):
    keras.utils.set_random_seed(7)
    model = network()
    model.compile(keras.optimizers.SGD(0.1), "mse")
    history = model.fit(X, Y, validation_data=(X, Y), callbacks=callbacks, **FIT).history
    return b"".join(weight.tobytes() for weight in model.get_weights()), history


@pytest.mark.one_backend
def test_the_recorder_exports(tmp_path):
    recorder = lossledger.Recorder(tmp_path / "runs", export={"csv": tmp_path / "out"})
    weights, history = train([recorder])
    assert train([]) == (weights, history)
    tables = {path.stem: csv.read_csv(path) for path in (tmp_path / "out").rglob("*.csv")}
    run = lossledger.open(recorder.path)
    raw = np.asarray(tables["steps"]["loss/raw"], "f4")  # written with a float32's digits
    np.testing.assert_array_equal(raw, run.losses().astype("f4"))
    means = run.statistic("running_mean")
    np.testing.assert_allclose(tables["steps"]["loss/running_mean"], means, rtol=1e-14)
    np.testing.assert_array_equal(tables["epochs"]["loss/epoch_mean"], run.statistic("epoch_mean"))
    reported = tables["reported"].to_pylist()
    found = {
        name: [row["value"] for row in reported if row["name"] == name]
        for name in ("loss", "val_loss")
    }
    assert found == history
    per_epoch = run.epochs()[0].steps
    ends = [row["optimizer_step"] for row in reported if row["name"] == "loss"]
    assert ends == [per_epoch - 1, 2 * per_epoch - 1]


def test_a_loop_in_a_notebook():
    model = network()
    model.compile("sgd", "mse")
    loop = lossledger.Loop(model, X, Y, **FIT)
    assert "not begun" in loop._repr_html_()
    assert "not begun" in repr(loop)
    assert loop._training is None  # looking begins nothing
    loss = loop.run().history["loss"][-1]
    html = loop._repr_html_()
    assert f">{loss:#.6g}<" in html
    assert "ended" in html
    assert f"Loop over {model.name}, ended" in repr(loop)
