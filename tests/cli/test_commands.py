"""The command line from outside: what is printed where, exit codes, settings, start-up."""

import contextlib
import io
import json
import os
import resource
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from command import LOSSLEDGER, PYTHON, Outcome, environment, execute

from lossledger import cli
from lossledger import run as runs
from lossledger.cli import output
from lossledger.cli.list import READ
from lossledger.folder import append_line, create_folder, write_json
from lossledger.store import Writer

LOSSES = np.array([3.0, 2.0, 1.0, 0.5], "f4")


def record(directory: Path, name: str, second: int, losses: np.ndarray = LOSSES) -> Path:
    """Writes a complete run of one fit with one epoch; its batches have two rows each."""
    folder = create_folder(directory, name, datetime(2026, 11, 22, 18, 38, second))
    writer, size = Writer(folder), len(losses)
    writer.append(
        {
            "step": np.arange(size),
            "call": np.zeros(size, "i4"),
            "model": np.zeros(size, "i4"),
            "epoch": np.zeros(size, "i4"),
            "batch": np.arange(size, dtype="i4"),
            "loss": losses,
            "weight": np.full(size, 2.0),
            "rows": np.full(size, 2, "i4"),
            "time": np.arange(size),
            "updated": np.ones(size, bool),
        }
    )
    writer.close()
    append_line(folder / "calls.jsonl", {"call": 0, "model": 0, "driver": "fit"})
    about = {"format": 1, "id": folder.name, "name": name, "complete": True, "entries": size}
    created = f"2026-11-22T18:38:{second}+00:00"
    write_json(folder / "run.json", {**about, "created": created, "versions": {"keras": "3.15.1"}})
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pyproject.toml").write_text("")
    return tmp_path


@pytest.fixture
def recorded(folder: Path) -> Path:
    record(folder / "runs", "first", 10)
    record(folder / "runs", "second", 20, LOSSES * 2)
    return folder


def run(folder: Path, *arguments: str, **variables: str) -> Outcome:
    """What a command leaves, in this process: a new one imports for longer than all else takes."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in "oe"]
    with (
        contextlib.chdir(folder),
        mock.patch.dict(os.environ, environment(**variables), clear=True),
        contextlib.redirect_stdout(streams[0]),
        contextlib.redirect_stderr(streams[1]),
    ):
        try:
            status = cli.main([*arguments])
        except SystemExit as end:  # argparse's
            status = int(end.code or 0)
    return Outcome(status, *(stream.buffer.getvalue() for stream in streams))


def shown(folder: Path, *arguments: str, **variables: str) -> dict[str, Any]:
    outcome = run(folder, *arguments, "--json", **variables)
    assert (outcome.status, outcome.stderr) == (0, b"")
    return json.loads(outcome.stdout)


# main


def test_version(folder: Path) -> None:
    for option in ("-V", "--version"):
        printed = execute([*LOSSLEDGER, option], folder)
        assert printed == Outcome(0, b"lossledger 0.1.0\n", b"")


def test_no_command_prints_help_as_a_usage_error(folder: Path) -> None:
    outcome = execute(LOSSLEDGER, folder)
    assert (outcome.status, outcome.stdout) == (2, b"")
    assert b"examples:" in outcome.stderr


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_has_help_with_examples(folder: Path, command: Any) -> None:
    outcome = run(folder, command.name, "--help", COLUMNS="80")
    assert outcome.status == 0
    assert f"  lossledger {command.name}".encode() in outcome.stdout.split(b"examples:")[1]
    assert all(len(line) <= 100 for line in outcome.stdout.splitlines())


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["show", "--nonsense"],
        ["show", "--epoch", "x"],
        ["show", "--steps-per-epoch", "0"],
        ["list", "-n", "-1"],
        ["run"],
        ["run", "-m"],
        ["run", "-c"],
        ["run", "-"],
        ["run", "--na", "x", "y.py"],
        ["run", "--steps-per-epoch", "0", "x.py"],
        ["show", "--statistic", "nonsense"],
        ["show", "--statistic", "ema:beta"],
        ["show", "--statistic", "ema:beta=2"],
    ],
    ids=" ".join,
)
def test_usage_errors_go_to_stderr_with_status_2(recorded: Path, arguments: list[str]) -> None:
    outcome = run(recorded, *arguments)
    assert (outcome.status, outcome.stdout) == (2, b"")
    assert outcome.stderr.startswith(b"lossledger: error [")
    assert b"Traceback" not in outcome.stderr


def test_a_usage_error_names_the_command_that_it_is_of(recorded: Path) -> None:
    for argument in ("--nonsense", "one-run another"):
        outcome = run(recorded, "show", *argument.split())
        assert outcome.status == 2
        assert b"usage: lossledger show " in outcome.stderr
        assert b"lossledger show --help" in outcome.stderr


def test_what_cannot_be_done_is_one_message_with_its_slug(folder: Path) -> None:
    outcome = execute([*LOSSLEDGER, "show", "absent"], folder)
    assert (outcome.status, outcome.stdout) == (1, b"")
    assert outcome.stderr.startswith(b"lossledger: error [no-run]: ")
    assert b"absent" in outcome.stderr
    assert run(folder, "list").stderr.startswith(b"lossledger: error [no-run]: ")


def test_a_reader_that_stops_early_is_no_trouble(folder: Path) -> None:
    for second in range(10, 60):
        record(folder / "runs", f"run{second}", second)
    shell = f"{{ {' '.join(LOSSLEDGER)} list -n 0; echo $? >status; }} | true; cat status"
    outcome = execute(["bash", "-c", shell], folder)
    assert outcome.stderr == b""
    assert outcome.stdout in (b"0\n", b"141\n")


def test_an_interrupt_ends_a_command_quietly(folder: Path) -> None:
    script = """
import sys
from lossledger import cli
class Interrupted(cli.ListCommand):
    def run(self, options):
        raise KeyboardInterrupt
cli.COMMANDS = (Interrupted,)
sys.exit(cli.main(["list"]))
"""
    (folder / "x.py").write_text(script)
    assert execute([*PYTHON, "x.py"], folder) == Outcome(-2, b"", b"")


# show and list


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


# explain


def test_explain_says_what_a_file_is(folder: Path) -> None:
    (folder / "log.csv").write_text("epoch,loss\n0,0.75\n1,0.5\n")
    page = run(folder, "explain", "log.csv", "--keras", "3.8")
    assert (page.status, page.stderr) == (0, b"")
    assert b"loss is epoch_mean" in page.stdout
    assert b"\x1b" not in page.stdout
    printed = shown(folder, "explain", "log.csv")
    assert [each["statistic"] for each in printed["series"]] == ["epoch_mean"]


@pytest.mark.parametrize(
    ("arguments", "slug", "status"),
    [
        (["absent.csv"], b"no-file", 1),
        (["pyproject.toml"], b"file-unknown", 1),
        (["log.csv", "--keras", "1.2"], b"unknown-convention", 2),
        (["log.csv", "--keras", "newest"], b"unknown-convention", 2),
        ([], b"usage", 2),
    ],
)
def test_explain_has_one_message_for_what_it_cannot_do(
    folder: Path, arguments: list[str], slug: bytes, status: int
) -> None:
    (folder / "log.csv").write_text("epoch,loss\n0,0.75\n")
    outcome = run(folder, "explain", *arguments)
    assert (outcome.status, outcome.stdout) == (status, b"")
    assert outcome.stderr.startswith(b"lossledger: error [" + slug + b"]: ")
    assert b"Traceback" not in outcome.stderr


# who waits


def test_a_terminal_sees_that_a_command_is_at_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(output, "PATIENCE", 0.0)
    with output.working():
        pass
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    shown = ""
    with output.working():
        for _ in range(3000):
            shown += capsys.readouterr().err
            if shown:
                break
            time.sleep(0.01)
    assert shown == "\rlossledger: at work, 0 s"
    assert capsys.readouterr() == ("", "\r\x1b[K")


# start-up


@pytest.fixture(scope="module")
def bytecode(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Where it is kept, as an installed package has it."""
    return str(tmp_path_factory.mktemp("bytecode"))


@pytest.mark.parametrize(
    "arguments",
    [["show"], ["list"], ["show", "--json"], ["explain", "log.csv"]],
    ids=" ".join,
)
def test_reading_starts_quickly_and_without_keras(
    recorded: Path, bytecode: str, arguments: list[str]
) -> None:
    (recorded / "log.csv").write_text("epoch,loss\n0,0.75\n")
    code = "import sys\nfrom lossledger.cli import main\nmain(sys.argv[1:])\n"
    code += "print(*sys.modules, file=sys.stderr)"
    modules = set(execute([*PYTHON, "-c", code, *arguments], recorded).stderr.decode().split())
    assert not modules & {"keras", "tensorflow", "jax", "torch", "pandas", "scipy"}
    assert ("rich" in modules) is ("--json" not in arguments)
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        kept = environment(PYTHONPYCACHEPREFIX=bytecode, OPENBLAS_NUM_THREADS="1")
        del kept["PYTHONDONTWRITEBYTECODE"]
        subprocess.run([*LOSSLEDGER, *arguments], cwd=recorded, env=kept, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 0.5, "twice of what a person should wait, for slow machines"
