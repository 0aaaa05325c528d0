"""Exports beside a recording: a process a tracker, which follows the run as it grows.

The training's own process imports no tracker, waits for none, and can't be broken by one.
"""

import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, TypeAlias

from lossledger.recorder.trouble import Trouble

Exports: TypeAlias = Iterable[str] | Mapping[str, str | os.PathLike[str]]

_NICE = 10
PATIENCE = 10.0
"""How long the end of a recording waits for the last numbers to be exported, in seconds."""


class Beside:
    """The exports of one recording; its trouble is one warning.

    Args:
        export: Names of trackers; or by name the folder of each.
        trouble: Where to say what failed.

    Raises:
        LossLedgerError: There is no such tracker (slug `unknown-tracker`).
    """

    def __init__(self, export: Exports, trouble: Trouble) -> None:
        names = [export] if isinstance(export, str) else list(export)
        folders = export if isinstance(export, Mapping) else {}
        # Absolute: the script may change the working directory.
        self._folders = {
            name: Path(folders.get(name, Path("exports", name))).absolute() for name in names
        }
        self._trouble = trouble
        self._running: dict[str, tuple[subprocess.Popen[bytes], IO[bytes]]] = {}
        if names:
            from lossledger.export.exporting import tracker_class

            for name in names:
                tracker_class(name)

    def start(self, run: Path) -> None:
        """Begin to follow a run."""
        for name, folder in self._folders.items():
            with self._trouble.guarded("export-failed"):
                import tempfile  # it brings `random`, of which a script may have its own

                errors = tempfile.TemporaryFile()  # noqa: SIM115 # closed when the export ends
                command = [sys.executable, "-P", "-m", "lossledger", "export", str(run.absolute())]
                process = subprocess.Popen(
                    [*command, "--to", name, "-o", str(folder), "--follow"],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                    # Ctrl-C is for the training: what it leaves is still to be exported.
                    start_new_session=True,
                )
                self._running[name] = (process, errors)
                if hasattr(os, "setpriority"):
                    os.setpriority(os.PRIO_PROCESS, process.pid, _NICE)

    def check(self) -> None:
        """Say which exports have failed by now, while the run's own record is still open."""
        for name in [name for name, (process, _) in self._running.items() if process.poll()]:
            self._end(name, 0)

    def wait(self, seconds: float = PATIENCE) -> None:
        """Wait a while for the exports to end with their run; they go on alone after that."""
        for name in list(self._running):
            self._end(name, seconds)

    def _end(self, name: str, seconds: float) -> None:
        process, errors = self._running.pop(name)
        with self._trouble.guarded("export-failed"), errors:
            try:
                status = process.wait(seconds)
            except subprocess.TimeoutExpired:
                process.returncode = 0  # left alone: not to be warned of when it is let go of
                return
            if status:
                errors.seek(0)
                text = errors.read()[-4096:].decode(errors="replace").strip()
                said = text.splitlines()[-1] if text else f"it ended with status {status}"
                self._trouble.warn("export-failed", f"{name}: {said}")
