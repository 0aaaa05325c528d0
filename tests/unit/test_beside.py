"""Exports beside a recording; the loop is the program's own, so no Keras is needed."""

import time
import warnings

import numpy as np
import pytest
from read_back import READERS, steps, values

import lossledger
from lossledger.errors import LossLedgerError, LossLedgerWarning
from lossledger.recorder import beside

pytestmark = pytest.mark.filterwarnings("error::lossledger.errors.LossLedgerWarning")


def loop(run, count):
    for step in range(count):
        if step % 4 == 0:
            run.epoch()
        run.step(np.float32(step), rows=2)


def test_a_run_is_exported_as_it_grows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "logs"
    with lossledger.record("runs", export={"tensorboard": "logs", "csv": "tables"}) as run:
        loop(run, 6)
        deadline = time.monotonic() + 30
        while len(READERS["tensorboard"](out).get("loss/raw", [])) < 6:  # while it is open
            assert time.monotonic() < deadline
            time.sleep(0.05)
        loop(run, 2)
    for tracker, folder in (("tensorboard", out), ("csv", tmp_path / "tables")):
        found = READERS[tracker](folder)
        assert steps(found["loss/raw"]) == list(range(8))
        assert values(found["loss/raw"]).tolist() == [0, 1, 2, 3, 4, 5, 0, 1]
        assert values(found["loss/epoch_mean"]).tolist() == [1.5, 4.5, 0.5]
    assert lossledger.open(run.path).complete


def test_an_export_that_fails_is_one_warning(tmp_path):
    """Two of them: the folder of each is a file."""
    (tmp_path / "file").write_text("")
    export = {"tensorboard": tmp_path / "file", "csv": tmp_path / "file"}
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with lossledger.record(tmp_path / "runs", export=export) as run:
            loop(run, 6)
    (warning,) = [each for each in told if each.category is LossLedgerWarning]
    assert str(warning.message).startswith("[export-failed] tensorboard: lossledger: error [")
    assert len(lossledger.open(run.path).losses()) == 6


def test_the_end_does_not_wait_for_long(tmp_path, monkeypatch):
    """An export that hangs is left alone."""
    monkeypatch.setattr(beside, "PATIENCE", 0.1)
    monkeypatch.setattr(beside.sys, "executable", str(tmp_path / "sleeps"))
    ended = tmp_path / "ended"
    (tmp_path / "sleeps").write_text(f"#!/bin/sh\nsleep 60\ntouch {ended}\n")
    (tmp_path / "sleeps").chmod(0o755)
    with lossledger.record(tmp_path / "runs", export=["csv"]) as run:
        loop(run, 6)
    assert not ended.exists()
    assert lossledger.open(run.path).complete


def test_a_tracker_that_there_is_not(tmp_path):
    with pytest.raises(LossLedgerError) as refused:
        lossledger.record(tmp_path, export=["excel"])
    assert refused.value.slug == "unknown-tracker"
