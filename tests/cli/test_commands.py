"""The command line from outside: what is printed where, exit codes, signs of life, start-up."""

import sys
import time
from pathlib import Path
from typing import Any

import pytest
from command import LOSSLEDGER, PYTHON, Outcome, execute
from here import record, run, shown

from lossledger import cli
from lossledger.cli import output

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
        ["show", "--call", "-1"],
        ["show", "--follow", "--json"],
        ["show", "--steps-per-epoch", "0"],
        ["reconcile", "first", "second", "--epoch", "last"],
        ["report", "--port", "8000"],
        ["report", "--live", "--port", "65536"],
        ["report", "--live", "-o", "page.html"],
        ["report", "-o", "page.pdf"],
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
    assert not (recorded / "page.html").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["show", ""], "Received: ''. The folder runs has 2026-11-22_18-38-20-second, 2026"),
        (["show", "first", "--call", "7"], "Received: call=7. It has: call 0 of model 0."),
        (["show", "--statistic", "x"], "last, evaluate."),
        (["reconcile", "first:val_loss", "second"], "last, reported, returned, evaluate, tested."),
        (["report", "-o", "runs", "--force"], "There is a folder of this name. Received: runs."),
        (["demo", "-o", "pyproject.toml"], "can't be made. Received: pyproject.toml: File exists."),
    ],
)
def test_an_error_says_what_there_is(recorded: Path, arguments: list[str], told: str) -> None:
    outcome = run(recorded, *arguments)
    assert outcome.status in (1, 2)
    assert told in outcome.stderr.decode()


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


@pytest.mark.parametrize(
    "arguments",
    [["show"], ["list"], ["show", "--json"], ["explain", "log.csv"]],
    ids=" ".join,
)
def test_reading_imports_no_keras(recorded: Path, arguments: list[str]) -> None:
    (recorded / "log.csv").write_text("epoch,loss\n0,0.75\n")
    code = "import sys\nfrom lossledger.cli import main\nmain(sys.argv[1:])\n"
    code += "print(*sys.modules, file=sys.stderr)"
    modules = set(execute([*PYTHON, "-c", code, *arguments], recorded).stderr.decode().split())
    assert not modules & {"keras", "tensorflow", "jax", "torch", "pandas", "scipy"}
    assert ("rich" in modules) is ("--json" not in arguments)
