"""`show` and `list`: which runs, what of them, and in which form."""

import json
from pathlib import Path
from typing import Any

import pytest
from command import LOSSLEDGER, PYTHON, execute
from here import LOSSES, record, run, shown

from lossledger import run as runs
from lossledger.cli.list import READ
from lossledger.folder import write_json


def test_show_prints_the_newest_run_to_stdout(recorded: Path) -> None:
    outcome = execute([*LOSSLEDGER, "show"], recorded)
    assert (outcome.status, outcome.stderr) == (0, b"")
    text = outcome.stdout.decode()
    assert "second" in text.splitlines()[0]
    assert "\x1b" not in text
    row = next(line for line in text.splitlines() if line.split()[:2] == ["0", "4"])
    assert float(row.split()[-1]) == pytest.approx(float(LOSSES.mean() * 2))


@pytest.mark.parametrize(
    "name", ["first", "latest~1", "2026-11-22_18-38-10-first", "runs/2026-11-22_18-38-10-first"]
)
def test_a_run_is_found_by_its_names(recorded: Path, name: str) -> None:
    assert shown(recorded, "show", name)["run"]["name"] == "first"


def test_show_takes_statistics_with_parameters(recorded: Path) -> None:
    names = ["window_mean:n=2", "ema:beta=0.0", "epoch_mean"]
    arguments = [word for name in names for word in ("--statistic", name)]
    found = shown(recorded, "show", "first", *arguments)["statistics"]
    assert list(found) == names
    assert found["window_mean:n=2"] == pytest.approx([3.0, 2.5, 1.5, 0.75])
    assert found["ema:beta=0.0"] == pytest.approx(LOSSES.tolist())
    assert found["epoch_mean"] == pytest.approx([LOSSES.mean()])


def test_list_has_the_newest_last(recorded: Path) -> None:
    outcome = run(recorded, "list")
    assert (outcome.status, outcome.stderr) == (0, b"")
    rows = [line.split() for line in outcome.stdout.decode().splitlines()]
    assert rows[0] == ["name", "when", "calls", "steps", "epoch_mean", "complete"]
    assert [row[0] for row in rows[1:]] == ["first", "second"]
    assert rows[2][1:] == ["2026-11-22", "18:38:20", "1", "4", "3.25000", "complete"]


def test_list_takes_a_number_and_a_folder(recorded: Path) -> None:
    found = shown(recorded, "list", "-n", "1")
    assert ([each["name"] for each in found["runs"]], found["older"]) == (["second"], 1)
    record(recorded / "other", "third", 30)
    found = shown(recorded, "list", "other")
    assert [(each["name"], each["steps"]) for each in found["runs"]] == [("third", 4)]


def test_list_goes_on_where_a_run_cannot_be_read(recorded: Path) -> None:
    folders = sorted((recorded / "runs").glob("2026*"))
    (folders[0] / "run.json").write_text("{")
    (folders[1] / "run.json").write_text('{"format": 99}')
    found = shown(recorded, "list")["runs"]
    assert all(each["problem"] for each in found)
    assert run(recorded, "list").stdout.count(b"unreadable") == 2


def summarized(folder: Path, **summary: Any) -> None:
    info = json.loads((folder / "run.json").read_text())
    write_json(folder / "run.json", {**info, "summary": summary})


def test_list_believes_a_summary_and_reads_no_entries(recorded: Path) -> None:
    for path in (recorded / "runs").glob("2026*"):
        summarized(path, calls=7, steps=8, epoch_mean="nan")
        (path / "entries" / "000000.parquet").write_bytes(b"")
    found = shown(recorded, "list")["runs"]
    assert [(each["calls"], each["steps"], each["epoch_mean"]) for each in found] == [
        (7, 8, "nan")
    ] * 2
    code = "import sys\nfrom lossledger.cli import main\nmain(['list'])\n"
    code += "print(*sys.modules, file=sys.stderr)"
    modules = set(execute([*PYTHON, "-c", code], recorded).stderr.decode().split())
    assert not modules & {"numpy", "pyarrow", "keras"}


def test_a_summary_says_what_list_would_read(recorded: Path) -> None:
    read = shown(recorded, "list")["runs"]
    for path in (recorded / "runs").glob("2026*"):
        summarized(path, **runs.summary(path))
        assert runs.summary(path)["epoch_mean"] in (LOSSES.mean(), 2 * LOSSES.mean())
    assert shown(recorded, "list")["runs"] == read


def test_list_reads_only_a_few_runs_without_a_summary(folder: Path) -> None:
    for second in range(10, 14 + READ):
        record(folder / "runs", f"run{second}", second)
    found = shown(folder, "list")["runs"]
    assert [each["steps"] for each in found] == [None] * 4 + [4] * READ
    assert run(folder, "list").stdout.count(b"  -  ") >= 4


def test_settings_name_the_folder(recorded: Path) -> None:
    record(recorded / "far", "third", 30)
    record(recorded / "near", "fourth", 40)
    (recorded / "pyproject.toml").write_text("[tool.lossledger]\ndir = 'far'\n")
    assert shown(recorded, "show")["run"]["name"] == "third"
    assert shown(recorded, "show", LOSSLEDGER_DIR="near")["run"]["name"] == "fourth"
    assert shown(recorded, "show", LOSSLEDGER_OFF="1")["run"]["name"] == "third"
    assert shown(recorded, "list", "runs", LOSSLEDGER_DIR="near")["runs"][0]["name"] == "first"


def test_the_width_is_that_of_the_terminal(recorded: Path) -> None:
    narrow, wide = (run(recorded, "show", COLUMNS=columns).stdout for columns in ("60", "200"))
    assert max(len(line) for line in narrow.decode().splitlines()) <= 60
    assert b"running_std" not in narrow.split(b"\n\n")[1]
    assert b"running_std" in wide


def test_an_output_that_is_not_unicode_gets_ascii(recorded: Path) -> None:
    outcome = execute([*LOSSLEDGER, "show"], recorded, PYTHONIOENCODING="ascii")
    assert outcome.status == 0
    assert outcome.stdout.isascii()
    assert b"?" not in outcome.stdout


@pytest.mark.parametrize(
    ("no_color", "term", "escapes"),
    [("", "xterm", True), ("1", "xterm", False), ("", "dumb", False)],
)
def test_a_terminal_gets_styles(recorded: Path, no_color: str, term: str, escapes: bool) -> None:
    script = """
import pty, sys
written = []
def read(fd):
    import os
    data = os.read(fd, 1024)
    written.append(data)
    return data
pty.spawn(sys.argv[1:], read)
"""
    command = [*PYTHON, "-c", script, *LOSSLEDGER, "show"]
    outcome = execute(command, recorded, NO_COLOR=no_color, TERM=term)
    assert b"epoch_mean" in outcome.stdout
    assert (b"\x1b[" in outcome.stdout) is escapes
