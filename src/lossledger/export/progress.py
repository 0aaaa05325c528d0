"""How much of a run a tracker has, and the folder of an export, which keeps that in a file."""

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from lossledger.errors import LossLedgerError
from lossledger.folder import read_json, write_json
from lossledger.lock import Lock
from lossledger.run import Run

FILE = "lossledger.json"


@dataclass
class Done:
    """How much of one call a tracker has: entries, running means, epochs, reported numbers."""

    steps: int = 0
    running: int = 0
    epochs: int = 0
    shown: int = 0


@dataclass
class Progress:
    """How much of a run a tracker has.

    Args:
        run: Which run, as `identity` has it.
        calls: Of each call.
        prefixes: What the names of each model's numbers begin with.
    """

    run: Mapping[str, Any]
    calls: dict[int, Done] = field(default_factory=dict[int, Done])
    prefixes: dict[int, str] = field(default_factory=dict[int, str])

    @property
    def entries(self) -> int:
        """Entries that it has."""
        return sum(done.steps for done in self.calls.values())

    def to_object(self) -> dict[str, Any]:
        """What a file keeps of it."""
        calls = {str(number): dict(vars(done)) for number, done in self.calls.items()}
        return {"run": self.run, "calls": calls, "prefixes": dict(self.prefixes)}

    @classmethod
    def of(cls, kept: Mapping[str, Any], run: Run, where: str) -> "Progress":
        """Reads what a file or a tag kept.

        Raises:
            LossLedgerError: It is of another run, or read otherwise (slug `export-differs`).
        """
        if kept.get("run") != identity(run):
            raise differs(where, f"it has {kept.get('run')}, and the run is {identity(run)}")
        try:
            return cls(
                identity(run),
                {int(number): Done(**done) for number, done in kept["calls"].items()},
                {int(model): str(prefix) for model, prefix in kept["prefixes"].items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise differs(where, f"it does not say how much it has: {error!r}") from error


def identity(run: Run) -> dict[str, Any]:
    """What tells a run from others of its name, and how its epochs are counted."""
    told = {name: run.info.get(name) for name in ("created", "pid")}
    return {"id": run.id, **told, "steps_per_epoch": run.steps_per_epoch}


def differs(where: str, what: str) -> LossLedgerError:
    """The error for an export that can't be gone on with."""
    return LossLedgerError(
        f"What was exported before is not of this run as it is. Received: {where}: {what}. "
        "Write it anew with --force, or name another folder with -o.",
        slug="export-differs",
    )


class ExportFolder:
    """A folder of files that only grow; what was not committed is cut off when it is opened.

    Args:
        folder: The folder; created.
        run: The run.
        force: Whether to delete what an export left there.

    Raises:
        LossLedgerError: See `Tracker.open`; or another export is at work (`export-in-use`).

    `sizes` has the bytes of each file that were committed, by its name.
    """

    def __init__(self, folder: Path, run: Run, *, force: bool) -> None:
        self.folder = folder
        self._open: dict[str, BinaryIO] = {}
        self._put: dict[str, int] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = Lock(folder)
        except LossLedgerError as error:
            raise LossLedgerError(
                f"Another process exports into this folder. Received: {folder}. "
                "Wait until it ends, or name another folder with -o.",
                slug="export-in-use",
            ) from error
        except OSError as error:
            raise LossLedgerError(
                f"The folder can't be written. Received: {folder}: {error}. Name another with -o.",
                slug="export-failed",
            ) from error
        self.kept: dict[str, Any] = {}
        try:
            self.sizes, self.progress = self._resumed(run, force=force)
            self._committed = self.progress.to_object()
            self._save()
        except BaseException:
            self.close()
            raise

    def _resumed(self, run: Run, *, force: bool) -> tuple[dict[str, int], Progress]:
        try:
            kept = read_json(self.folder / FILE)
            sizes = {os.path.basename(name): int(size) for name, size in kept["files"].items()}
        except FileNotFoundError:
            return {}, Progress(identity(run))
        except (LossLedgerError, KeyError, TypeError, ValueError, AttributeError) as error:
            # Even with --force: which of the files in the folder are the export's isn't known.
            raise LossLedgerError(
                f"The note of what was exported is damaged. Received: {self.folder / FILE}: "
                f"{error!r}. Delete the folder, or name another with -o.",
                slug="export-differs",
            ) from error
        self.kept = kept.get("kept", {})
        if force:
            for name in sizes:
                (self.folder / name).unlink(missing_ok=True)
            return {}, Progress(identity(run))
        progress = Progress.of(kept, run, str(self.folder))
        for name, size in list(sizes.items()):
            path = self.folder / name
            if not size:  # noted, and perhaps written, but not committed
                path.unlink(missing_ok=True)
                del sizes[name]
                continue
            there = path.stat().st_size if path.is_file() else 0
            if there < size:
                raise differs(str(path), f"{there:,} bytes, of {size:,} that were written")
            if there > size:
                os.truncate(path, size)
        return sizes, progress

    def append(self, name: str, data: bytes | memoryview) -> None:
        """Adds to the end of a file; a new one is noted before it is there."""
        file = self._open.get(name)
        if file is None:
            self._note(name)
            mode = "ab" if self.sizes[name] else "wb"
            file = self._open[name] = (self.folder / name).open(mode)
        file.write(data)

    def put(self, name: str, data: bytes | memoryview) -> None:
        """Writes a new file, which is whole when it is there."""
        self._note(name)
        aside = self.folder / f"{name}.tmp"
        with aside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(self.folder / name)
        self._put[name] = len(data)

    def _note(self, name: str) -> None:
        if name not in self.sizes:
            self.sizes[name] = 0
            self._save()

    def commit(self, progress: Progress) -> None:
        """Makes what was written last, and notes it."""
        for name, file in self._open.items():
            file.flush()
            os.fsync(file.fileno())
            self.sizes[name] = file.tell()
        self.sizes |= self._put
        self._committed = progress.to_object()
        self._save()

    def keep(self, **values: Any) -> None:
        """Notes something of the tracker's own, at once; `kept` has it."""
        self.kept |= values
        self._save()

    def _save(self) -> None:
        write_json(self.folder / FILE, {**self._committed, "files": self.sizes, "kept": self.kept})

    def close(self) -> None:
        """Closes the files and lets another export in."""
        for file in self._open.values():
            with contextlib.suppress(OSError):
                file.close()
        self._open = {}
        self._lock.release()
