"""Who writes into a run's folder, and what a fork, an interrupt or a link does to it."""

import multiprocessing
import subprocess
import sys
from datetime import datetime

import numpy as np
import pytest
from blocks import block, names, scanned

from lossledger import LossLedgerError, lock, store
from lossledger.segments import sealed, stream, tables

OURS = {module.__file__ for module in (store, sealed, stream, tables)}


NOW = datetime(2026, 11, 22, 18, 38, 54)


def test_links_are_not_written_through(tmp_path):
    (tmp_path / "entries").mkdir()
    outside = tmp_path / "outside"
    (tmp_path / "entries" / "000000.arrows").symlink_to(outside)
    writer = store.Writer(tmp_path)
    writer.append(block(0, 5))
    writer.flush()
    assert not outside.exists()
    writer.close()


def test_a_second_writer_is_refused(tmp_path):
    writer = store.Writer(tmp_path)
    with pytest.raises(LossLedgerError, match="one writer") as caught:
        store.Writer(tmp_path / ".." / tmp_path.name)
    assert caught.value.slug == "folder-in-use"
    other = (
        "import sys, pathlib; from lossledger import store; store.Writer(pathlib.Path(sys.argv[1]))"
    )
    command = [sys.executable, "-c", other, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert "one writer" in done.stderr
    writer.close()
    assert names(tmp_path) == []
    assert not (tmp_path / "writer.lock").exists()
    store.Writer(tmp_path).close()


def test_a_closed_writer(tmp_path):
    writer = store.Writer(tmp_path)
    writer.append(block(0, 5))
    writer.close()
    writer.close()
    for use in (writer.flush, lambda: writer.append(block(5, 1))):
        with pytest.raises(ValueError, match="closed"):
            use()


def _write_in_child(writer, results):
    slugs = []
    for use in (writer.flush, lambda: writer.append(block(5, 1))):
        try:
            use()
        except LossLedgerError as error:
            slugs.append(error.slug)
    writer.close()
    results.put(slugs)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*fork.*:RuntimeWarning")
def test_a_forked_child_neither_writes_nor_frees_the_folder(tmp_path):
    context = multiprocessing.get_context("fork")
    writer = store.Writer(tmp_path)
    writer.append(block(0, 5))
    results = context.SimpleQueue()
    child = context.Process(target=_write_in_child, args=(writer, results))
    child.start()
    assert results.get() == ["folder-in-use"] * 2
    child.join()
    with pytest.raises(LossLedgerError, match="one writer"):
        store.Writer(tmp_path)
    writer.close()
    np.testing.assert_array_equal(scanned(tmp_path)["step"], np.arange(5))


@pytest.mark.parametrize("after", range(1, 150))
def test_an_interrupt_neither_loses_nor_doubles(tmp_path, after):
    writer = store.Writer(tmp_path, segment_rows=20)
    left = after

    def trace(frame, event, _):
        nonlocal left
        if frame.f_code.co_filename not in OURS:
            return None
        if event == "line":
            left -= 1
            if left == 0:
                raise KeyboardInterrupt
        return trace

    writer.append(block(0, 15))
    writer.append(block(15, 15))
    before = sys.gettrace()
    try:
        sys.settrace(trace)
        writer.flush()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(before)
    writer.append(block(30, 10))
    writer.close()
    np.testing.assert_array_equal(scanned(tmp_path)["step"], np.arange(40))


READER = """
import sys
from pathlib import Path
from lossledger import store
path, most = Path(sys.argv[1]), 0
print("ready", flush=True)
while most < 3000:
    steps = [s for block in store.scan(path, ["step"]) for s in block["step"].tolist()]
    assert steps == list(range(len(steps))), steps
    assert len(steps) >= most
    most = len(steps)
print("read all")
"""


def test_another_process_reads_while_it_grows(tmp_path):
    writer = store.Writer(tmp_path, segment_rows=50)
    command = [sys.executable, "-c", READER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout.readline() == "ready\n"
        for start in range(0, 3000, 2):
            writer.append(block(start, 2))
            writer.flush()
        assert reader.communicate(timeout=60)[0] == "read all\n"
    writer.close()


def test_a_file_system_without_locks_is_written_to(tmp_path, monkeypatch):
    def refuse(_):
        raise OSError("no locks here")

    monkeypatch.setattr(lock, "_lock", refuse)
    writer = store.Writer(tmp_path)
    writer.append(block(0, 5))
    writer.close()
    assert len(scanned(tmp_path)["step"]) == 5
