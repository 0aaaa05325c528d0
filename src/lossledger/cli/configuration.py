"""Settings: an option beats the environment, which beats `[tool.lossledger]`."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lossledger.errors import LossLedgerError
from lossledger.objects import is_uri

_TYPES: Mapping[str, type] = {"dir": str, "name": str, "quiet": bool}


class Configuration(NamedTuple):
    """What is in force where no option says otherwise.

    Args:
        directory: The folder that holds runs, or its URI on an object store.
        name: What runs are called; None takes the script's name.
        quiet: Whether `run` leaves out its line at the end.
    """

    directory: Path | str = Path("runs")
    name: str | None = None
    quiet: bool = False


def is_off(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether nothing is to be recorded: `LOSSLEDGER_OFF` is set, and not to 0."""
    return environment.get("LOSSLEDGER_OFF", "0") not in ("", "0")


def configuration(
    *, environment: Mapping[str, str] = os.environ, folder: Path | None = None
) -> Configuration:
    """Reads the settings.

    Args:
        environment: `LOSSLEDGER_DIR` of it.
        folder: Where to begin to look for the nearest `pyproject.toml`; the current folder.

    Raises:
        LossLedgerError: `[tool.lossledger]` holds what is no setting (`bad-configuration`).
    """
    file, table = _nearest_table(folder or Path.cwd())
    directory = table.get("dir", "runs")
    if "dir" in table and not is_uri(directory):
        directory = str(file.parent / directory)
    if environment.get("LOSSLEDGER_DIR"):
        directory = environment["LOSSLEDGER_DIR"]
    return Configuration(place_of(directory), table.get("name"), table.get("quiet", False))


def place_of(directory: str) -> Path | str:
    """A folder of runs as it was named: a URI stays text."""
    return directory if is_uri(directory) else Path(directory)


def _nearest_table(folder: Path) -> tuple[Path, dict[str, Any]]:
    for place in (folder, *folder.parents):
        file = place / "pyproject.toml"
        try:
            content = file.read_bytes()
        except OSError:
            continue
        # A file that never names us is none of our business, not even if it is no valid TOML.
        return file, _table(file, content) if b"lossledger" in content else {}
    return folder / "pyproject.toml", {}


def _table(file: Path, content: bytes) -> dict[str, Any]:
    import tomllib

    try:
        table = tomllib.loads(content.decode()).get("tool", {}).get("lossledger", {})
    except ValueError as error:
        raise _bad(file, str(error), "Write valid TOML.") from error
    for key, value in table.items():
        if key not in _TYPES:
            raise _bad(file, f"the key {key!r}", f"Known keys: {', '.join(_TYPES)}.")
        if not isinstance(value, _TYPES[key]):
            raise _bad(file, f"{key} = {value!r}", f"Write a {_TYPES[key].__name__} value.")
    return table


def _bad(file: Path, received: str, advice: str) -> LossLedgerError:
    return LossLedgerError(
        f"[tool.lossledger] in {file} can't be used. Received: {received}. {advice}",
        slug="bad-configuration",
        exit_code=2,
    )
