"""Folders of runs, and the small files in them."""

import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
from made import NOW

from lossledger import LossLedgerError
from lossledger.folder import append_line, create_folder, read_json, read_lines, write_json


def test_create_folder(tmp_path):
    made = [create_folder(tmp_path / "a" / "runs", "train", NOW) for _ in range(3)]
    assert [path.name for path in made] == [
        "2026-11-22_18-38-54-train",
        "2026-11-22_18-38-54-train-2",
        "2026-11-22_18-38-54-train-3",
    ]
    assert os.readlink(tmp_path / "a" / "runs" / "latest") == made[-1].name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("train", "train"),
        ("my run/v1.5", "my-run-v1.5"),
        ("../../etc/passwd", "etc-passwd"),
        ("", "run"),
        ("...", "run"),
        ("a\0b\nc", "a-b-c"),
        ("größe-Ж", "größe-Ж"),
        ("CON", "CON"),
        ("x" * 300, "x" * 80),
        ("ж" * 300, "ж" * 40),
        ("\udcff", "run"),
    ],
)
def test_names_suit_the_file_system(tmp_path, name, expected):
    made = create_folder(tmp_path, name, NOW)
    assert made.name == f"2026-11-22_18-38-54-{expected}"
    assert made.parent == tmp_path


def test_latest_leaves_a_users_own_file(tmp_path, monkeypatch):
    (tmp_path / "latest").write_text("mine")
    create_folder(tmp_path, "a", NOW)
    assert (tmp_path / "latest").read_text() == "mine"
    (tmp_path / "latest").unlink()
    monkeypatch.setattr("os.symlink", lambda *_, **__: (_ for _ in ()).throw(OSError("no links")))
    create_folder(tmp_path, "b", NOW)
    assert not (tmp_path / "latest").exists()


def test_json_files(tmp_path):
    path = tmp_path / "run.json"
    write_json(path, {"loss": np.float32("nan"), "seen": [math.inf, -math.inf, np.int64(3)]})
    write_json(path, {**read_json(path), "where": tmp_path, "argv": "\udcff", "n": {1: 2}})
    assert read_json(path) == {
        "loss": "nan",
        "seen": ["inf", "-inf", 3],
        "where": str(tmp_path),
        "argv": "\udcff",
        "n": {"1": 2},
    }
    assert [found.name for found in tmp_path.iterdir()] == ["run.json"]
    path.write_text("[1]")
    with pytest.raises(LossLedgerError, match=r"run\.json") as caught:
        read_json(path)
    assert caught.value.slug == "file-damaged"
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none.json")


def test_lines_with_a_torn_tail(tmp_path):
    path = tmp_path / "calls.jsonl"
    assert read_lines(path) == []
    append_line(path, {"call": 0, "text": "a\nb"})
    append_line(path, {"call": 1, "loss": np.array([1.5, np.nan])})
    whole = path.read_bytes()
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        lines = read_lines(path)
        written = [json.loads(line) for line in whole[:cut].split(b"\n")[:-1]]
        assert all(len(line.pop("crc")) == 8 for line in written)
        assert lines == written
        append_line(path, {"call": 2})
        assert read_lines(path) == [*lines, {"call": 2}]
    path.write_bytes(b'{"call": 0}\n{"ca\n{"call": 1}\n')
    with pytest.raises(LossLedgerError, match="line 2") as caught:
        read_lines(path)
    assert caught.value.slug == "file-damaged"


def test_reading_small_files_needs_neither_numpy_nor_pyarrow():
    code = "import sys, lossledger.catalog\nprint({'numpy', 'pyarrow', 'keras'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
    code = (
        "import sys, lossledger.run, lossledger.store\nprint({'pyarrow', 'keras'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
