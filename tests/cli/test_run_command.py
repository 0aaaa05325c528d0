"""`lossledger run` before the script begins: which options and settings reach the recording."""

from pathlib import Path
from typing import Any

import pytest

from lossledger import runner
from lossledger.cli import main
from lossledger.recorder import deferred


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pyproject.toml").write_text("")
    return tmp_path


class Stub:
    """What `run` asks of a recording; keeps what it was made with."""

    made: list[tuple[tuple[Any, ...], dict[str, Any]]]

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self.made.append((arguments, named))


@pytest.fixture
def made(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What recordings were made with; nothing is run."""
    Stub.made = []
    monkeypatch.chdir(folder)
    monkeypatch.delenv("LOSSLEDGER_DIR", raising=False)
    monkeypatch.delenv("LOSSLEDGER_OFF", raising=False)
    monkeypatch.setattr(deferred, "DeferredRecording", Stub)

    def instead(target: runner.Target, made: Any, *, quiet: bool = False) -> int:
        Stub.made.append((target, made is not None, quiet))
        return 17

    monkeypatch.setattr(runner, "run", instead)
    return Stub.made


def test_options_reach_the_recording(made: list[Any], folder: Path) -> None:
    exports = ["--export", "csv", "--export", "tensorboard=logs"]
    options = ["-o", "d", "--name", "n", "--steps-per-epoch", "7", *exports, "-q"]
    assert main(["run", *options, "s.py", "-q"]) == 17
    named = {
        "steps_per_epoch": 7,
        "export": {"csv": Path("exports/csv"), "tensorboard": Path("logs")},
    }
    assert made[0] == ((Path("d"), "n", Path("s.py"), ["s.py", "-q"]), named)
    assert made[1] == (runner.Target("s.py", ("-q",)), True, True)


def test_an_export_to_nowhere_is_refused(made: list[Any], capsys: Any) -> None:
    assert main(["run", "--export", "excel", "s.py"]) == 2
    assert "[unknown-tracker]" in capsys.readouterr().err
    assert made == []


def test_settings_reach_the_recording(
    made: list[Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "pyproject.toml").write_text("[tool.lossledger]\ndir='d'\nname='n'\nquiet=true\n")
    main(["run", "s.py"])
    assert made[0][0][:2] == (folder / "d", "n")
    assert made[1][2] is True
    monkeypatch.setenv("LOSSLEDGER_DIR", "e")
    main(["run", "--name", "m", "s.py"])
    assert made[2][0][:2] == (Path("e"), "m")
    monkeypatch.setenv("LOSSLEDGER_OFF", "1")
    main(["run", "s.py"])
    assert made[4] == (runner.Target("s.py"), False, False)


@pytest.mark.parametrize(
    ("arguments", "target", "name"),
    [
        (["s.py"], runner.Target("s.py"), "s"),
        (["a/b.c.py", "--help"], runner.Target("a/b.c.py", ("--help",)), "b.c"),
        (["s.py", "-m", "x"], runner.Target("s.py", ("-m", "x")), "s"),
        (["s.py", "--", "-o"], runner.Target("s.py", ("--", "-o")), "s"),
        (["-m", "p.q", "-o", "x"], runner.Target("p.q", ("-o", "x"), "-m"), "q"),
        (["-m", "p.__main__"], runner.Target("p.__main__", (), "-m"), "p"),
        (["-c", "1", "-m", "x"], runner.Target("1", ("-m", "x"), "-c"), "code"),
        (["-c", ""], runner.Target("", (), "-c"), "code"),
    ],
)
def test_what_follows_the_target_is_its_own(
    made: list[Any], arguments: list[str], target: runner.Target, name: str
) -> None:
    main(["run", *arguments])
    assert made[1][0] == target
    assert made[0][0][1] == name


def test_a_recording_that_cannot_be_made_costs_one_warning(
    made: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise OSError("no room")

    monkeypatch.setattr(deferred, "DeferredRecording", fails)
    assert main(["run", "s.py"]) == 17
    assert made == [(runner.Target("s.py"), False, False)]
    assert capsys.readouterr().err == (
        "lossledger: warning [not-recording]: the script runs, but is not recorded. no room\n"
    )
