"""The demonstration where something is missing or fails, and how it shows that it is at work."""

import os
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lossledger.cli import main
from lossledger.demo import programs
from lossledger.demo.programs import EPOCHS, FIT
from lossledger.errors import LossLedgerError

BACKEND = os.environ.get("KERAS_BACKEND") or "jax"
EXAMPLES = Path(__file__).parents[2] / "examples"


def test_no_backend_is_installed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(programs, "installed", list)
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    assert main(["demo"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("lossledger: error [no-backend]: ")
    assert "pip install 'lossledger[jax]'" in error


def test_the_backend_that_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "installed", lambda: ["jax", "torch"])
    assert programs.backend({}) == "jax"
    assert programs.backend({"KERAS_BACKEND": "torch"}) == "torch"
    for name in ("tensorflow", "numpy"):
        with pytest.raises(LossLedgerError, match=f"KERAS_BACKEND={name}"):
            programs.backend({"KERAS_BACKEND": name})


def test_a_program_that_fails_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fit_average.py").write_text("import sys\nsys.exit('no such weather')\n")
    monkeypatch.setattr(programs, "folder", lambda: tmp_path)
    told: list[bool] = []
    with pytest.raises(LossLedgerError, match=r"status 1, 0 runs.*\nno such weather") as caught:
        programs.train(FIT, tmp_path / "runs", BACKEND, lambda _, __, ended: told.append(ended))
    assert caught.value.slug == "demo-failed"
    assert told[-1] is True


def test_where_the_programs_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert programs.folder() == EXAMPLES
    package = tmp_path / "site-packages" / "lossledger"
    installed = SimpleNamespace(__file__=str(package / "__init__.py"))
    monkeypatch.setattr(programs, "lossledger", installed)
    with pytest.raises(LossLedgerError, match=re.escape(str(package / "examples"))):
        programs.folder()
    (package / "examples").mkdir(parents=True)
    (package / "examples" / "fit_average.py").touch()
    assert programs.folder() == package / "examples"


def test_a_terminal_sees_the_seconds_pass(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    from lossledger.cli.demo import _Life

    life = _Life(2, 5)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    for seconds, ended in ((0.5, False), (1.0, True)):
        life(EPOCHS, seconds, ended)
    shown = capsys.readouterr().err
    assert [part.split()[-2:] for part in shown.split("\r")[1:]] == [["0.5", "s"], ["1.0", "s"]]
    assert shown.endswith("1.0 s\n")
