"""A disk that refuses: the error is the caller's to tell, and what is there stays whole."""

import contextlib
import errno
import os
import subprocess
import sys

import numpy as np
import pytest

from lossledger import store
from lossledger.segments import sealed, stream

LIMITED = """
import resource, sys
from pathlib import Path
import numpy as np
from lossledger import store

writer = store.Writer(Path(sys.argv[1]))
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
refused = 0
for start in range(0, 2000, 50):
    steps = np.arange(start, start + 50)
    writer.append({"step": steps, "loss": steps.astype("f4")})
    try:
        writer.flush()
    except OSError:
        refused += 1
print(refused, sum(len(b["step"]) for b in store.scan(Path(sys.argv[1]), ["step"])), flush=True)
if sys.argv[2] == "freed":
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    writer.close()
else:
    try:
        writer.close()
    except OSError:
        print("refused")
"""


def steps_in(folder):
    parts = [block["step"] for block in store.scan(folder, ["step"])]
    return np.concatenate(parts) if parts else np.empty(0, int)


def block(start, rows):
    steps = np.arange(start, start + rows)
    return {"step": steps, "loss": steps.astype("f4")}


@pytest.mark.parametrize("then", ["freed", "full"])
def test_file_size_limit(tmp_path, then):
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, tmp_path, then], capture_output=True, text=True, check=True
    )
    refused, readable = map(int, done.stdout.split()[:2])
    assert refused > 0
    assert 0 < readable < 2000
    assert readable % 50 == 0
    np.testing.assert_array_equal(
        steps_in(tmp_path), np.arange(2000 if then == "freed" else readable)
    )
    assert not list((tmp_path / "entries").glob("*.tmp"))


class FullDisk:
    """`os.write` to a disk that has room for some bytes more, then takes half of what it gets."""

    def __init__(self, monkeypatch):
        self.room = None
        original = os.write

        def write(descriptor, data):
            if self.room is None:
                return original(descriptor, data)
            if not self.room:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            count = original(descriptor, data[: self.room])
            self.room -= count
            return count

        monkeypatch.setattr(stream.os, "write", write)


@pytest.mark.parametrize("room", [0, 1, 700, 2000, 3000, 4000])
def test_half_a_batch_is_taken_back(tmp_path, monkeypatch, room):
    disk = FullDisk(monkeypatch)
    writer = store.Writer(tmp_path)
    disk.room = room
    refused = 0
    for start in range(0, 40, 10):
        writer.append(block(start, 10))
        try:
            writer.flush()
        except OSError:
            refused += 1
    assert refused
    assert writer.rows == 40
    disk.room = None
    writer.append(block(40, 10))
    writer.flush()
    np.testing.assert_array_equal(steps_in(tmp_path), np.arange(50))
    writer.close()
    np.testing.assert_array_equal(steps_in(tmp_path), np.arange(50))


def test_a_batch_that_cannot_be_taken_back_ends_its_segment(tmp_path, monkeypatch):
    writer = store.Writer(tmp_path)
    writer.append(block(0, 10))
    writer.flush()
    disk = FullDisk(monkeypatch)
    disk.room = 100
    with monkeypatch.context() as patch:
        patch.setattr(stream.os, "ftruncate", _refuse)
        writer.append(block(10, 10))
        with pytest.raises(OSError, match="No space"):
            writer.flush()
    disk.room = None
    writer.append(block(20, 10))
    writer.close()
    np.testing.assert_array_equal(steps_in(tmp_path), np.arange(30))


def _refuse(*_):
    raise OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.mark.parametrize("name", ["fsync", "replace"])
def test_a_segment_that_cannot_be_sealed_stays_a_stream(tmp_path, monkeypatch, name):
    writer = store.Writer(tmp_path, segment_rows=10)
    writer.append(block(0, 10))
    with monkeypatch.context() as patch:
        patch.setattr(sealed.os, name, _refuse)
        with pytest.raises(OSError, match="Input/output"):
            writer.flush()
    assert [path.name for path in (tmp_path / "entries").iterdir()] == ["000000.arrows"]
    writer.append(block(10, 5))
    writer.close()
    np.testing.assert_array_equal(steps_in(tmp_path), np.arange(15))


def test_a_full_disk_parts_no_step_of_several_rows(tmp_path, monkeypatch):
    """All replicas' rows of a step are flushed, or none: half of them fold to another loss."""
    writer = store.Writer(tmp_path, segment_rows=50)
    step, replica = np.repeat(np.arange(40), 3), np.tile(range(3), 40)
    writer.append({"step": step, "replica": replica, "loss": replica.astype("f4")})
    with monkeypatch.context() as patch:
        patch.setattr(sealed.os, "fsync", _refuse)
        with pytest.raises(OSError, match="Input/output"):
            writer.flush()
    _, rows = np.unique(steps_in(tmp_path), return_counts=True)
    assert 0 < len(rows) < 40
    assert set(rows.tolist()) == {3}
    writer.close()
    np.testing.assert_array_equal(steps_in(tmp_path), step)


def test_too_much_that_waits_is_refused_for_good(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "PENDING_ROWS", 150_000)
    disk = FullDisk(monkeypatch)
    writer = store.Writer(tmp_path)
    disk.room = 0
    accepted = 0
    for start in range(0, 500_000, 50_000):
        with contextlib.suppress(OSError):
            writer.append(block(start, 50_000))
        accepted = max(accepted, writer.rows)
    assert accepted == writer.rows == 150_000
    disk.room = None
    with pytest.raises(OSError, match="No space"):
        writer.append(block(500_000, 1))
    writer.close()
    np.testing.assert_array_equal(steps_in(tmp_path), np.arange(150_000))


def test_an_empty_segment_that_was_begun_leaves_no_gap(tmp_path, monkeypatch):
    disk = FullDisk(monkeypatch)
    writer = store.Writer(tmp_path)
    writer.append(block(0, 10))
    disk.room = 2000  # enough for the header, not for the batch behind it
    with pytest.raises(OSError, match="No space"):
        writer.flush()
    disk.room = None
    writer.append({**block(10, 10), "a_loss": np.ones(10, "f4")})
    writer.close()
    np.testing.assert_array_equal(steps_in(tmp_path), np.arange(20))
