"""Exports, read back by the trackers' own readers, against arithmetic in numpy."""

import json
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from exported import FILES, close_to, trained
from made import Made
from pyarrow import parquet
from read_back import READERS, steps, tables, values

from lossledger.cli import main
from lossledger.errors import LossLedgerError
from lossledger.export import TRACKERS, export
from lossledger.run import Run


@pytest.mark.parametrize("tracker", FILES)
def test_names_and_numbers(tracker, tmp_path):
    n = 21
    extra = {
        "learning_rate": np.linspace(1, 0, n).astype("f4"),
        "penalty": np.linspace(0, 1, n).astype("f4"),
        "head_loss": np.linspace(2, 3, n).astype("f4"),
    }
    made, losses, weights = trained(tmp_path, **extra)
    made.history(0, "loss", [0.5, 0.25, 0.125])
    item = {"place": "validation", "name": "val_loss", "epoch": 1, "value": 9.0}
    made.call(0, reported=[item])
    export(Run(made.path), tracker, tmp_path / "out")
    found = READERS[tracker](tmp_path / "out")

    loss, weight = losses.reshape(3, 7), weights.reshape(3, 7)
    running = np.cumsum(loss * weight, axis=1) / np.cumsum(weight, axis=1)
    by_step = {
        "loss/raw": losses,
        "loss/running_mean": running.ravel(),
        "loss/penalty": extra["penalty"],
        "head_loss/raw": extra["head_loss"],
        "learning_rate": extra["learning_rate"],
    }
    for name, wanted in by_step.items():
        assert steps(found[name]) == list(range(n))
        if name == "loss/running_mean":
            close_to(found[name], wanted, tracker)
        else:
            np.testing.assert_array_equal(values(found[name]).astype("f4"), wanted.astype("f4"))
    by_epoch = {
        "loss/epoch_mean": running[:, -1],
        "loss/batch_mean": loss.mean(axis=1),
        "loss/min": loss.min(axis=1),
        "loss/max": loss.max(axis=1),
        "loss/std": loss.std(axis=1),
    }
    for name, wanted in by_epoch.items():
        assert steps(found[name]) == [6, 13, 20]
        close_to(found[name], wanted, tracker)
    assert found["reported/loss"] == [(6, 0.5), (13, 0.25), (20, 0.125)]
    assert found["reported/val_loss"] == [(13, 9.0)]


@pytest.mark.parametrize("tracker", FILES)
def test_steps_are_updates_of_the_weights(tracker, tmp_path):
    """Micro-batches that are accumulated stand at the step whose update they share."""
    updated = np.arange(12) % 4 == 3
    made, losses, _ = trained(tmp_path, epochs=1, per_epoch=12, updated=updated)
    export(Run(made.path), tracker, tmp_path / "out")
    found = READERS[tracker](tmp_path / "out")
    assert steps(found["loss/raw"]) == [0] * 4 + [1] * 4 + [2] * 4
    np.testing.assert_array_equal(values(found["loss/raw"]).astype("f4"), losses.astype("f4"))
    assert steps(found["loss/epoch_mean"]) == [2]


def test_models_have_their_own_names_and_steps(tmp_path):
    made = Made(tmp_path / "runs")
    for model, name in enumerate(("critic", "critic", "a/../b")):
        made.call(model, driver="train_on_batch", model=model, model_name=name)
    for step in range(4):
        for model in range(3):
            made.steps([10 * model + step], call=model, model=model, epoch=0, time=np.zeros(1))
    run = made.close()
    export(run, "tensorboard", tmp_path)
    found = READERS["tensorboard"](tmp_path)
    for model, prefix in enumerate(("critic", "critic-1", "a_.._b")):
        assert found[f"{prefix}/loss/raw"] == [(step, 10 * model + step) for step in range(4)]


def test_steps_go_on_over_calls_of_a_model(tmp_path):
    made, _, _ = trained(tmp_path, epochs=1, per_epoch=3, close=False)
    made.call(1, driver="fit", model=0)
    made.steps([1.0, 2.0], call=1, epoch=0, time=np.zeros(2))
    export(made.close(), "tensorboard", tmp_path)
    found = READERS["tensorboard"](tmp_path)
    assert steps(found["loss/raw"]) == [0, 1, 2, 3, 4]
    assert steps(found["loss/epoch_mean"]) == [2, 4]


def test_a_column_that_is_null_in_places(tmp_path):
    """NaN is a number that was computed; null is none."""
    made = Made(tmp_path / "runs")
    made.call(0, driver="custom", model=0)
    made.steps([1.0, 2.0], epoch=0, time=np.zeros(2), penalty=np.array([0.5, np.nan], "f4"))
    made.steps([3.0], epoch=0, time=np.zeros(1))
    made.steps([4.0], epoch=0, time=np.zeros(1), penalty=np.array([0.25], "f4"))
    run = made.close()
    for tracker in FILES:
        export(run, tracker, tmp_path / tracker)
        found = READERS[tracker](tmp_path / tracker)
        assert steps(found["loss/penalty"]) == [0, 1, 3]
        np.testing.assert_array_equal(values(found["loss/penalty"]), [0.5, np.nan, 0.25])


def test_tables_have_all_that_an_entry_has(tmp_path):
    ids = np.arange(21, dtype="u8") + 2**63
    made, _, weights = trained(tmp_path, batch_id=ids)
    export(Run(made.path), "parquet", tmp_path / "out")
    table = tables(tmp_path / "out")["steps"]
    assert table.column("batch_id").to_pylist() == ids.tolist()
    assert table.column("weight").to_pylist() == weights.tolist()
    assert table.column("loss/penalty").null_count == 21
    assert table.column("step").to_pylist() == list(range(21))


# While it grows


def test_following_ends_with_the_run(tmp_path):
    made = Made(tmp_path / "runs")
    made.call(0, driver="fit", model=0)
    made.steps([1.0, 2.0], epoch=0, time=np.zeros(2))
    made.writer.flush()
    out, done = tmp_path / "out", []
    thread = threading.Thread(
        target=lambda: done.append(export(Run(made.path), "tensorboard", out, follow=True))
    )
    thread.start()

    def wait(count):
        deadline = time.monotonic() + 10
        while len(READERS["tensorboard"](out).get("loss/raw", [])) < count:
            assert time.monotonic() < deadline
            time.sleep(0.05)

    wait(2)
    made.steps([3.0], epoch=1, time=np.zeros(1))
    made.writer.flush()
    wait(3)
    made.close()
    thread.join(10)
    assert [each.entries for each in done] == [3]
    assert READERS["tensorboard"](out)["loss/epoch_mean"] == [(1, 1.5), (2, 3.0)]


def test_epochs_that_are_found_come_at_the_end(tmp_path):
    """While the batches of `train_on_batch` don't tell its epochs, no mean is given."""
    made = Made(tmp_path / "runs")
    made.call(0, driver="train_on_batch", model=0)

    def add(ids):
        made.steps(np.array(ids) * 1.0, time=np.zeros(len(ids)), batch_id=np.array(ids, "u8"))
        made.writer.flush()

    add([1, 2, 3])
    for tracker in FILES:
        export(Run(made.path), tracker, tmp_path / tracker)
    found = READERS["tensorboard"](tmp_path / "tensorboard")
    assert found.keys() == {"loss/raw"}
    assert tables(tmp_path / "csv") == {}
    add([1, 2, 3])
    run = made.close()
    for tracker in FILES:
        export(run, tracker, tmp_path / tracker)
        found = READERS[tracker](tmp_path / tracker)
        assert steps(found["loss/raw"]) == list(range(6))
        assert values(found["loss/running_mean"]).tolist() == [1, 1.5, 2] * 2
        assert found["loss/epoch_mean"] == [(2, 2.0), (5, 2.0)]


# The command


def test_the_command(tmp_path, capsys, monkeypatch):
    made, _, _ = trained(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main(["export", "--to", "parquet"]) == 0
    assert "exports/parquet" in capsys.readouterr().out
    rows = sum(parquet.read_table(p).num_rows for p in Path("exports").rglob("steps-*.parquet"))
    assert rows == 21
    assert main(["export", str(made.path), "--to", "parquet", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["tracker"], said["entries"], said["added"]) == ("parquet", 21, 0)


def test_what_the_command_refuses(tmp_path, capsys):
    assert main(["export", "absent", "--to", "csv"]) == 1
    assert "[no-run]" in capsys.readouterr().err
    assert main(["export", "absent", "--to", "excel"]) == 2
    assert "[usage]" in capsys.readouterr().err


@pytest.mark.parametrize("tracker", ["mlflow", "wandb"])
def test_a_tracker_that_is_not_installed(tracker, tmp_path, monkeypatch):
    made, _, _ = trained(tmp_path)
    missing = "sqlalchemy" if tracker == "mlflow" else "wandb"
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(LossLedgerError, match=rf'pip install "lossledger\[{tracker}\]"') as error:
        export(Run(made.path), tracker, tmp_path / "out")
    assert error.value.slug == "not-installed"


def test_the_command_knows_the_trackers():
    from lossledger.cli.export import TRACKERS as NAMES

    assert list(NAMES) == list(TRACKERS)
