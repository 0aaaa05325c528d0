"""Runs that are opened: by what name, in which state."""

import subprocess
import sys
from datetime import timedelta

import numpy as np
import pytest
from made import NOW, Made

import lossledger as ll
from lossledger import LossLedgerError
from lossledger.call import entries_of
from lossledger.run import Run, runs_in

rng = np.random.default_rng(7)


def test_open_by_path_name_and_latest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = [
        Made(tmp_path / "runs", name, when=NOW + timedelta(seconds=second))
        for second, name in enumerate(["first", "twin", "twin", "last"])
    ]
    for each in made:
        each.close()
    ids = [each.path.name for each in made]
    for wanted in (ids[0], "first", f"runs/{ids[0]}", "runs/first", made[0].path, "latest~3"):
        assert ll.open(wanted).id == ids[0]
    for wanted in ("latest", "runs/latest", "runs/latest~0"):
        assert ll.open(wanted).id == ids[3]
    assert ll.open().id == ids[3]
    assert ll.open(tmp_path / "runs" / "latest~1").id == ids[2]
    assert ll.open("last", directory=tmp_path / "runs").name == "last"
    assert [ll.open(wanted).id for wanted in ("twin", "runs/twin~1")] == [ids[2], ids[1]]
    absent = ("latest~4", "twin~2", "second", "", "elsewhere/first", "runs", "runs/entries")
    for wanted in (*absent, tmp_path):
        with pytest.raises(LossLedgerError, match="no such run") as caught:
            ll.open(wanted)
        assert caught.value.slug == "no-run"
    with pytest.raises(LossLedgerError, match=ids[3]):
        ll.open("second")
    (tmp_path / "runs" / "latest").unlink()
    assert ll.open("runs/latest").id == ids[3]
    (tmp_path / "runs" / "latest").symlink_to("gone")
    assert ll.open("latest").id == ids[3]


def test_many_runs_of_one_second_are_in_order(tmp_path):
    for _ in range(12):
        Made(tmp_path).writer.close()
    ids = [info.id for info in runs_in(tmp_path)]
    assert ids[0] == "2026-11-22_18-38-54-train"
    assert ids[1:] == [f"{ids[0]}-{n}" for n in range(2, 13)]
    (tmp_path / "latest").unlink()
    assert ll.open(tmp_path / "latest").id == ids[-1]


def test_runs_in(tmp_path):
    Made(tmp_path, "done").close()
    Made(tmp_path, "torn", when=NOW + timedelta(1)).writer.close()
    damaged = Made(tmp_path, "bad", when=NOW + timedelta(2))
    (damaged.path / "run.json").write_text("{")
    (tmp_path / "no-run").mkdir()
    (tmp_path / "file").touch()
    done, torn, bad = runs_in(tmp_path)
    assert (done.name, done.complete, done.entries, done.problem) == ("done", True, 0, None)
    assert (torn.name, torn.complete, torn.entries) == ("torn", False, None)
    assert bad.name == "bad"
    assert "run.json" in bad.problem
    assert done.created == NOW.isoformat()
    with pytest.raises(LossLedgerError) as caught:
        runs_in(tmp_path / "none")
    assert caught.value.slug == "no-run"


def test_a_newer_format(tmp_path):
    made = Made(tmp_path, format=3)
    with pytest.raises(LossLedgerError, match="Upgrade") as caught:
        ll.open(made.path)
    assert caught.value.slug == "format-newer"


def test_a_run_that_was_recorded_with_next_to_nothing(tmp_path):
    path = tmp_path / "bare"
    path.mkdir()
    (path / "run.json").write_text("{}")
    run = ll.open(path)
    assert (run.id, run.name, run.complete, run.calls) == ("bare", "bare", False, [])
    assert run.losses().tolist() == []
    assert run.statistic("epoch_mean").tolist() == []
    assert run.epochs() == []
    assert run.reported() == []
    assert run.entries().num_rows == 0


def test_entries_of_a_call_that_was_not_written_down(tmp_path):
    made = Made(tmp_path)
    made.steps([1, 2, 3], call=4, model=2, epoch=0)
    (call,) = made.close().calls
    assert (call.number, call.model, call.steps, call.driver) == (4, 2, 3, "custom")
    assert call.mean_of_rows
    assert (call.arguments, call.configuration, call.weight_kind) == ({}, {}, "rows")


def test_a_growing_run(tmp_path):
    made = Made(tmp_path)
    made.call(0, driver="fit")
    run = ll.open(made.path)
    for epoch in range(3):
        made.steps([1, 2], epoch=epoch)
        made.writer.flush()
        assert len(run.epochs()) == epoch + 1
        assert len(run.losses()) == run.entries().num_rows == 2 * epoch + 2
    made.call(1, driver="fit")
    assert len(run.calls) == 2
    made.writer.close()


def test_one_look_at_a_growing_run_is_about_the_same_entries(tmp_path):
    made = Made(tmp_path)
    made.call(0, driver="train_on_batch", steps_per_epoch=4)
    loss, _ = made.steps(rng.random(70))
    made.writer.flush()
    calls = Run(made.path).calls
    made.steps(rng.random(70))
    made.steps(rng.random(5), call=1)
    made.close()
    blocks = [block for _, block in entries_of(made.path, calls, ["loss", "epoch"])]
    np.testing.assert_array_equal(np.concatenate([b["loss"] for b in blocks]), loss)
    np.testing.assert_array_equal(np.concatenate([b["epoch"] for b in blocks]), np.arange(70) // 4)


def test_fewer_entries_than_there_were(tmp_path):
    made = Made(tmp_path)
    for epoch in range(4):
        made.steps(np.ones(50), epoch=epoch)
        made.writer.flush()
    run = made.close()
    (made.path / "entries" / "000003.parquet").unlink()
    with pytest.raises(LossLedgerError, match="150 of 200") as caught:
        run.epochs()
    assert caught.value.slug == "segment-damaged"


def test_reading_imports_little(tmp_path):
    code = (
        "import sys, lossledger\nrun = lossledger.open(sys.argv[1])\nrun.epochs()\nrun.reported()\n"
        "print(sorted({'pandas', 'keras', 'pyarrow.dataset', 'pyarrow.compute'}"
        " & {*sys.modules}))"
    )
    made = Made(tmp_path)
    made.call(0, driver="fit")
    made.steps([1, 2, 3], epoch=0)
    made.close()
    command = [sys.executable, "-c", code, made.path]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "pandas" not in done.stdout
    assert "keras" not in done.stdout
    assert "pyarrow." not in done.stdout
