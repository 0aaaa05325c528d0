"""Exports, read back by the trackers' own readers, against arithmetic in numpy."""

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made import Made
from pyarrow import parquet
from read_back import READERS, steps, tables, values

from lossledger.cli import main
from lossledger.errors import LossLedgerError
from lossledger.export import TRACKERS, export
from lossledger.export.progress import ExportFolder
from lossledger.run import Run

FILES = ("tensorboard", "csv", "parquet")
"""Trackers that need no package; the others have a module of their own."""
ULP = 2.0**-23


def trained(folder, *, epochs=3, per_epoch=7, close=True, **columns):
    """A run of one fit, of unequal batches; its losses and weights."""
    made = Made(folder / "runs", segment_rows=5)
    made.call(0, driver="fit", model=0, model_name="net", loss_name="loss")
    n = epochs * per_epoch
    losses, weights = made.steps(
        np.random.default_rng(n).normal(size=n) ** 2,
        epoch=np.arange(n) // per_epoch,
        batch=np.arange(n) % per_epoch,
        time=np.arange(n) * 1_000_000,
        weight=np.where(np.arange(n) % per_epoch == per_epoch - 1, 3.0, 8.0),
        updated=columns.pop("updated", np.ones(n, bool)),
        **columns,
    )
    made.call(0, ended=1)
    if close:
        made.close()
    return made, losses, weights


def close_to(found, wanted, tracker):
    """TensorBoard keeps float32."""
    rtol = ULP if tracker == "tensorboard" else 1e-14
    np.testing.assert_allclose(values(found), wanted, rtol=rtol)


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


# Once, and once only


@pytest.mark.parametrize("tracker", FILES)
def test_a_second_export_adds_nothing(tracker, tmp_path):
    made, _, _ = trained(tmp_path)
    run, out = Run(made.path), tmp_path / "out"
    assert export(run, tracker, out).added > 21
    before = {path: path.read_bytes() for path in out.rglob("*.*") if path.is_file()}
    assert export(run, tracker, out).added == 0
    assert {path: path.read_bytes() for path in before} == before
    first = READERS[tracker](out)
    assert export(run, tracker, out, force=True).added > 21
    assert READERS[tracker](out) == first


@pytest.mark.parametrize("tracker", FILES)
def test_what_was_not_committed_goes(tracker, tmp_path):
    """A write that a kill left behind, in a file and as a file, where nothing more is to come."""
    made, _, _ = trained(tmp_path)
    out = tmp_path / "out"
    export(Run(made.path), tracker, out)
    place = out / made.path.name
    before = {path.name: path.read_bytes() for path in place.iterdir()}
    note = json.loads(before["lossledger.json"])
    del note["crc"]
    name = next(iter(note["files"]))
    (place / name).write_bytes(before[name] + b"torn")
    (place / f"x{name}").write_bytes(b"torn")
    note["files"][f"x{name}"] = 0
    (place / "lossledger.json").write_text(json.dumps(note))
    assert export(Run(made.path), tracker, out).added == 0
    assert {path.name: path.read_bytes() for path in place.iterdir()} == before


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_a_run_that_grows_is_exported_once(data, tmp_path_factory):
    """Whatever the moments of the exports, the tracker has in the end what one export gives."""
    folder = tmp_path_factory.mktemp("grows")
    tracker = data.draw(st.sampled_from(FILES))
    counted = data.draw(st.booleans())
    driver = "fit" if counted else "train_on_batch"
    made = Made(folder / "runs", segment_rows=data.draw(st.integers(1, 20)))
    made.call(0, driver=driver, model=0, model_name="a")
    made.call(1, driver=driver, model=1, model_name="b")
    epochs = {0: 0, 1: 0}
    for _ in range(data.draw(st.integers(1, 6))):
        call = data.draw(st.integers(0, 1))
        size = data.draw(st.integers(1, 9))
        grown = np.cumsum(data.draw(st.lists(st.booleans(), min_size=size, max_size=size)))
        epoch = epochs[call] + grown
        epochs[call] = int(epoch[-1])
        made.steps(
            np.random.default_rng(made.step).normal(size=size),
            call=call,
            model=call,
            epoch=epoch if counted else -1,
            time=np.arange(made.step, made.step + size) * 1000,
            batch_id=np.arange(made.step, made.step + size, dtype="u8") % 3 + 1,
        )
        if data.draw(st.booleans()):
            made.history(call, "loss", [1.5], first=epochs[call])
        made.writer.flush()
        if data.draw(st.booleans()):
            export(Run(made.path), tracker, folder / "pieces")
    run = made.close()
    assert export(run, tracker, folder / "pieces").entries == made.step
    export(run, tracker, folder / "once")
    pieces, once = (READERS[tracker](folder / name) for name in ("pieces", "once"))
    assert pieces.keys() == once.keys()
    for name in once:
        assert sorted(steps(pieces[name])) == sorted(steps(once[name]))
        rtol = ULP if tracker == "tensorboard" else 1e-14
        sorted_values = (np.sort(values(each[name])) for each in (pieces, once))
        np.testing.assert_allclose(*sorted_values, rtol=rtol, atol=1e-14)


def test_numbers_of_an_epoch_wait_for_its_end(tmp_path):
    made, _, _ = trained(tmp_path, epochs=1, per_epoch=4, close=False)
    made.call(1, driver="fit", model=0)
    made.steps([1.0, 2.0], call=1, epoch=0, time=np.zeros(2))
    made.writer.flush()
    export(Run(made.path), "tensorboard", tmp_path)
    found = READERS["tensorboard"](tmp_path)
    assert steps(found["loss/raw"]) == [0, 1, 2, 3, 4, 5]
    assert steps(found["loss/epoch_mean"]) == [3]  # call 1 is open
    made.steps([4.0], call=1, epoch=1, time=np.zeros(1))
    made.writer.flush()
    export(Run(made.path), "tensorboard", tmp_path)
    assert READERS["tensorboard"](tmp_path)["loss/epoch_mean"][1:] == [(5, 1.5)]


KILLED = """
import os, signal, sys
from pathlib import Path
from lossledger.export import base, export, exporting
from lossledger.export.progress import ExportFolder
from lossledger.run import Run

run, tracker, out, place, moment = sys.argv[1:]
left = int(moment)

def dying(method):
    def call(*args, **kwargs):
        global left
        left -= 1
        if left < 0:
            for file in args[0]._open.values():
                file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        return method(*args, **kwargs)
    return call

setattr(ExportFolder, place, dying(getattr(ExportFolder, place)))
exporting.tracker_class(tracker).chunk = 4
export(Run(Path(run)), tracker, out)
"""


@pytest.mark.parametrize("tracker", FILES)
def test_a_killed_export_goes_on(tracker, tmp_path, monkeypatch):
    """SIGKILL before a commit, and between the files and the note of them."""
    made, _, _ = trained(tmp_path)
    export(Run(made.path), tracker, tmp_path / "once")
    once = READERS[tracker](tmp_path / "once")
    monkeypatch.setattr("lossledger.export.tables._GROUP", 4)
    script = KILLED.replace(
        "exporting.tracker_class", "from lossledger.export import tables; tables._GROUP = 4\n"
        "exporting.tracker_class",
    )  # fmt: skip
    for place, moments in (("commit", (1,)), ("_save", (1, 4))):
        for moment in moments:
            out = tmp_path / f"{place}{moment}"
            command = [sys.executable, "-c", script, made.path, tracker, out, place, str(moment)]
            done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
            assert done.returncode == -signal.SIGKILL, done.stderr
            export(Run(made.path), tracker, out)
            assert READERS[tracker](out) == once


def test_a_failure_is_taken_up_where_it_was(tmp_path, monkeypatch):
    """A full disk: what was committed stays, and nothing is in the tracker twice."""
    made, _, _ = trained(tmp_path)
    run, out = Run(made.path), tmp_path / "out"
    export(run, "csv", tmp_path / "once")
    monkeypatch.setattr("lossledger.export.tables.Csv.chunk", 4)
    append, writes = ExportFolder.append, iter(range(100))

    def full(self, name, data):
        append(self, name, data)
        if next(writes) % 7 == 6:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(ExportFolder, "append", full)
    failures = 0
    for _ in range(20):
        try:
            export(run, "csv", out)
        except OSError:
            failures += 1
            continue
        break
    assert failures > 1
    assert READERS["csv"](out) == READERS["csv"](tmp_path / "once")


def test_another_run_of_the_name_is_refused(tmp_path):
    made, _, _ = trained(tmp_path / "a", epochs=1)
    other, _, _ = trained(tmp_path / "b", epochs=2)
    other.info["created"] = "2020-01-01T00:00:00"
    other.close()
    out = tmp_path / "out"
    export(Run(made.path), "csv", out)
    with pytest.raises(LossLedgerError, match="--force") as refused:
        export(Run(other.path), "csv", out)
    assert refused.value.slug == "export-differs"
    with pytest.raises(LossLedgerError) as counted:
        export(Run(made.path, steps_per_epoch=2), "csv", out)
    assert counted.value.slug == "export-differs"
    assert export(Run(other.path), "csv", out, force=True).entries == 14


def test_a_file_that_was_cut_is_refused(tmp_path):
    made, _, _ = trained(tmp_path)
    export(Run(made.path), "csv", tmp_path / "out")
    path = next((tmp_path / "out").rglob("steps.csv"))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(LossLedgerError, match="100 bytes"):
        export(Run(made.path), "csv", tmp_path / "out")


def test_one_export_at_a_time(tmp_path):
    made, _, _ = trained(tmp_path)
    run = Run(made.path)
    place = ExportFolder(tmp_path / "out" / run.id, run, force=False)
    with pytest.raises(LossLedgerError) as refused:
        export(run, "csv", tmp_path / "out")
    assert refused.value.slug == "export-in-use"
    place.close()
    assert export(run, "csv", tmp_path / "out").entries == 21


def test_names_in_a_file_lead_nowhere_else(tmp_path):
    """An export's own file may come from anybody: it names no file outside of its folder."""
    made, _, _ = trained(tmp_path)
    export(Run(made.path), "csv", tmp_path / "out")
    victim = tmp_path / "out" / "victim"
    victim.write_text("kept")
    note = next((tmp_path / "out").rglob("lossledger.json"))
    content = json.loads(note.read_text())
    content["files"]["../victim"] = 0
    del content["crc"]  # by hand
    note.write_text(json.dumps(content))
    export(Run(made.path), "csv", tmp_path / "out", force=True)
    assert victim.read_text() == "kept"


@pytest.mark.parametrize(
    "content", ["", "{}", '{"files": 3}', '{"files": {}}', '{"files": {}, "run": RUN, "calls": 5}']
)
def test_a_damaged_note_of_an_export_is_an_error_with_a_way_out(tmp_path, content):
    made, _, _ = trained(tmp_path)
    export(Run(made.path), "csv", tmp_path / "out")
    note = next((tmp_path / "out").rglob("lossledger.json"))
    note.write_text(content.replace("RUN", json.dumps(json.loads(note.read_text())["run"])))
    with pytest.raises(LossLedgerError) as refused:
        export(Run(made.path), "csv", tmp_path / "out")
    assert refused.value.slug == "export-differs"
    if "--force" in str(refused.value):
        assert export(Run(made.path), "csv", tmp_path / "out", force=True).entries == 21
    else:
        assert "Delete the folder" in str(refused.value)


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


# Runs of every kind


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
