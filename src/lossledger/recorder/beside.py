"""Processes beside a recording: they follow the run as it grows, to export and to upload it.

The training's own process imports no tracker, opens no connection, waits for none, and can't be
broken by one.
"""

import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, NamedTuple, TypeAlias

from lossledger.objects import Remote
from lossledger.recorder.trouble import Trouble
from lossledger.words import command_line

Exports: TypeAlias = Iterable[str] | Mapping[str, str | os.PathLike[str]]

_NICE = 10
PATIENCE = 10.0
"""How long the end of a recording waits for the last numbers to be exported, in seconds."""
UPLOAD_PATIENCE = 60.0
"""How long it waits for the last of the run to be uploaded, in seconds."""


class _Running(NamedTuple):
    """A process, where its errors are, the slug for its trouble, and what else to say of it."""

    process: subprocess.Popen[bytes]
    errors: IO[bytes]
    slug: str
    later: str
    patience: float


class Beside:
    """The processes beside one recording; the trouble of each kind is one warning.

    Args:
        export: Names of trackers; or by name the folder of each.
        trouble: Where to say what failed.
        remote: The folder of runs on an object store to which the run is uploaded.

    Raises:
        LossLedgerError: There is no such tracker (slug `unknown-tracker`).
    """

    def __init__(self, export: Exports, trouble: Trouble, remote: Remote | None = None) -> None:
        names = [export] if isinstance(export, str) else list(export)
        folders = export if isinstance(export, Mapping) else {}
        # Absolute: the script may change the working directory.
        self._folders = {
            name: Path(folders.get(name, Path("exports", name))).absolute() for name in names
        }
        self._trouble = trouble
        self._remote = remote
        self._running: dict[str, _Running] = {}
        if names:
            from lossledger.export.exporting import tracker_class

            for name in names:
                tracker_class(name)

    def start(self, run: Path | None, own: Path) -> None:
        """Begin to follow a run.

        Args:
            run: Its folder, to be exported; `None` where another process does that.
            own: The folder that this process writes, to be uploaded: the run's, or its worker's.
        """
        if run is not None:
            for name, folder in self._folders.items():
                command = ["export", str(run.absolute()), "--to", name, "-o", str(folder)]
                self._begin(name, [*command, "--follow"], "export-failed", "", PATIENCE)
        if self._remote is not None:
            delete = ["--delete"] if os.environ.get("LOSSLEDGER_DELETE_UPLOADED") == "1" else []
            command = ["push", str(own.absolute()), "-", "--follow", *delete]
            later = f"It is kept here; upload it later: {command_line('push', own, self._remote)}"
            # Not as an argument: other users of the machine see those.
            uri = self._remote.uri.encode()
            self._begin("upload", command, "not-uploaded", later, UPLOAD_PATIENCE, uri)

    def _begin(
        self,
        name: str,
        command: Sequence[str],
        slug: str,
        later: str,
        patience: float,
        said: bytes = b"",
    ) -> None:
        with self._trouble.guarded(slug):
            import tempfile  # it brings `random`, of which a script may have its own

            errors = tempfile.TemporaryFile()  # noqa: SIM115 # closed when the process ends
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "lossledger", *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                # Ctrl-C is for the training: what it leaves is still to be exported.
                start_new_session=True,
            )
            self._running[name] = _Running(process, errors, slug, later, patience)
            if hasattr(os, "setpriority"):
                os.setpriority(os.PRIO_PROCESS, process.pid, _NICE)
            assert process.stdin is not None
            with suppress(BrokenPipeError), process.stdin:  # it says itself why it has ended
                process.stdin.write(said)

    def check(self) -> None:
        """Say which have failed by now, while the run's own record is still open."""
        for name in [name for name, each in self._running.items() if each.process.poll()]:
            self._end(name, 0)

    def wait(self) -> None:
        """Wait a while for them to end with their run; they go on alone after that."""
        for name, each in list(self._running.items()):
            self._end(name, each.patience)

    def _end(self, name: str, seconds: float) -> None:
        process, errors, slug, later, _ = self._running.pop(name)
        with self._trouble.guarded(slug), errors:
            try:
                status = process.wait(seconds)
            except subprocess.TimeoutExpired:
                process.returncode = 0  # left alone: not to be warned of when it is let go of
                if later:
                    said = _last_line(errors) or "the object store is slow"
                    self._trouble.warn(slug, f"not all yet, and goes on beside: {said}. {later}")
                return
            if status:
                said = _last_line(errors) or f"it ended with status {status}"
                more = f". {later}" if later and later not in said else ""
                self._trouble.warn(slug, f"{name}: {said}{more}")


def _last_line(errors: IO[bytes]) -> str:
    errors.seek(0, os.SEEK_END)
    errors.seek(max(errors.tell() - 4096, 0))
    text = errors.read().decode(errors="replace").strip()
    return text.splitlines()[-1] if text else ""
