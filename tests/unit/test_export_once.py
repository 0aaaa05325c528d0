"""Each number is exported once, whatever happens to an export."""

import json
import signal
import subprocess
import sys

import numpy as np
import pytest
from exported import FILES, ULP, trained
from hypothesis import given, settings
from hypothesis import strategies as st
from made import Made
from read_back import READERS, steps, values

from lossledger.errors import LossLedgerError
from lossledger.export import export
from lossledger.export.progress import ExportFolder
from lossledger.run import Run


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


@settings(max_examples=15)
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
