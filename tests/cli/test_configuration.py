"""Settings: an option beats the environment, which beats the nearest `pyproject.toml`."""

from pathlib import Path

import pytest

from lossledger.cli.configuration import Configuration, configuration, is_off
from lossledger.errors import LossLedgerError


def write(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pyproject.toml").write_text(text)
    return folder


def test_defaults(tmp_path: Path) -> None:
    write(tmp_path, "")
    found = configuration(environment={}, folder=tmp_path)
    assert found == Configuration(Path("runs"), None, False)


def test_the_nearest_file_counts_and_its_folder_is_where_dir_begins(tmp_path: Path) -> None:
    write(tmp_path, "[tool.lossledger]\ndir = 'far'\nname = 'far'\n")
    near = write(tmp_path / "near", "[tool.lossledger]\ndir = 'kept'\nquiet = true\n")
    deep = near / "a" / "b"
    deep.mkdir(parents=True)
    found = configuration(environment={}, folder=deep)
    assert found == Configuration(near / "kept", None, True)


def test_the_environment_beats_the_file(tmp_path: Path) -> None:
    write(tmp_path, "[tool.lossledger]\ndir = 'kept'\nname = 'n'\n")
    found = configuration(environment={"LOSSLEDGER_DIR": "mine"}, folder=tmp_path)
    assert found == Configuration(Path("mine"), "n", False)


@pytest.mark.parametrize(("value", "off"), [("1", True), ("0", False), ("", False)])
def test_off(value: str, off: bool) -> None:
    assert is_off({"LOSSLEDGER_OFF": value}) is off
    assert is_off({}) is False


@pytest.mark.parametrize(
    "text", ["dir = 1", "quiet = 'yes'", "folder = 'x'", "dir ="], ids=lambda text: text
)
def test_what_is_no_setting_is_refused(tmp_path: Path, text: str) -> None:
    write(tmp_path, f"[tool.lossledger]\n{text}\n")
    with pytest.raises(LossLedgerError, match=r"pyproject\.toml") as caught:
        configuration(environment={}, folder=tmp_path)
    assert (caught.value.slug, caught.value.exit_code) == ("bad-configuration", 2)


def test_a_broken_file_that_does_not_name_us_is_left_alone(tmp_path: Path) -> None:
    write(tmp_path, "[tool.other\n")
    assert configuration(environment={}, folder=tmp_path) == Configuration()
