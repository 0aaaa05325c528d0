"""The run folder as it is being written."""

import hashlib
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from lossledger.entry import FORMAT, PLAIN_FORMAT
from lossledger.folder import LATEST, append_line, create_folder, point_latest, write_json
from lossledger.recorder.trouble import Trouble
from lossledger.recorder.world import World, find_world
from lossledger.workers import join_folder

if TYPE_CHECKING:
    from lossledger.store import Writer

WEIGHTS_LIMIT = 2**20
"""Bytes of initial weights up to which a call keeps a copy of them."""

_begun = 0
"""Runs that this process has begun together with others."""


class Output:
    """One run's folder, created when something trains; all its trouble is one warning.

    Args:
        directory: Folder that holds the runs.
        name: Name of the run.
        script: The script that trains, if it was started by `lossledger run`.
        command: Its command line.
        trouble: Where to say what can't be written.
    """

    def __init__(
        self,
        directory: Path,
        name: str,
        script: Path | None,
        command: Sequence[str],
        trouble: Trouble,
    ) -> None:
        self.path: Path | None = None
        self.began = time.perf_counter_ns()
        self._directory = directory
        self._name = name
        self._script = script
        self._command = list(command)
        self._trouble = trouble
        self._own: Path | None = None
        self._world: World | None = None
        self._writer: Writer | None = None
        self._created = ""
        self._entries = 0
        self._format = PLAIN_FORMAT

    @property
    def open(self) -> bool:
        """Whether entries can be appended."""
        return self._writer is not None

    @property
    def leads(self) -> bool:
        """Whether this process is the only one that records the run, or the first of several."""
        return self._world is None or self._world.rank == 0

    def now(self) -> int:
        """Nanoseconds since the run began."""
        return time.perf_counter_ns() - self.began

    def begin(self) -> Path:
        """Create the folder, or go on in it; gives its path."""
        from lossledger.store import Writer

        own = self._own
        if own is None:
            with self._trouble.guarded("workers-apart"):
                self._world = find_world()
            created = datetime.now(UTC).astimezone()
            self._created = created.isoformat(timespec="seconds")
            own = None if self._world is None else self._joined(self._world, created)
            if own is None:
                self._world = None
                self.path = own = create_folder(self._directory, self._name, created)
            self._own = own
        self._writer = Writer(own)
        self._write_run(complete=False)
        return own if self._world is None else own.parent

    def _joined(self, world: World, now: datetime) -> Path | None:
        """This process's folder in one that all who train together share; `None` without one."""
        global _begun
        key, _begun = f"lossledger/run/{_begun}", _begun + 1
        with self._trouble.guarded("workers-apart"):
            mine = create_folder(self._directory, self._name, now, newest=False)
            name = created = ""
            try:
                said = world.agree(key, f"{mine.name} {self._created}")
                name, _, created = said.partition(" ")
            finally:
                if name != mine.name:
                    mine.rmdir()
            name = Path(name).name  # what another process said is no path
            if name in ("", "..", LATEST):
                raise ValueError(f"The run's folder can't be called {name!r}.")
            self.path = self._directory / name
            about = {"format": FORMAT, "id": self.path.name, "name": self._name}
            about |= {"created": created or self._created, "workers": world.size}
            own = join_folder(self.path, world.rank, about)
            point_latest(self._directory, self.path.name)
            self._format = FORMAT
            return own
        return None

    def append(self, blocks: Iterable[Mapping[str, np.ndarray]]) -> None:
        """Append blocks of entries; they survive the death of the process afterwards."""
        if self._writer is None:
            return
        try:
            for block in blocks:
                if "replica" in block:
                    self._is_shared()
                self._writer.append({**block, "time": block["time"] - self.began})
                self._entries += len(np.unique(block["step"]))
        except BaseException:
            # A ledger may end early, but never has a hole.
            self._writer = None
            raise
        self._writer.flush()

    def _is_shared(self) -> None:
        """Say so before the first step of several rows: a reader must not count it twice."""
        if self._format != FORMAT:
            self._format = FORMAT
            self._write_run(complete=False)

    def call(self, index: int, values: Mapping[str, Any]) -> None:
        """Append what is known of a call."""
        if self._own is not None:
            with self._trouble.guarded("cannot-write"):
                append_line(self._own / "calls.jsonl", {"call": index, **values})

    def weights(self, index: int, weights: Sequence[np.ndarray]) -> None:
        """Keep the fingerprint of a call's initial weights, and a copy where they are few."""
        from lossledger.keras import describe

        self.call(index, {"initial_weights": describe.weights_fingerprint(weights)})
        if self._own is not None and sum(weight.nbytes for weight in weights) <= WEIGHTS_LIMIT:
            (self._own / "weights").mkdir(exist_ok=True)
            file = f"weights/{index:06d}.npz"
            np.savez(self._own / file, *weights)
            self.call(index, {"weights_file": file})

    def close(self) -> None:
        """Seal what was written."""
        if self._writer is not None:
            with self._trouble.guarded("cannot-write"):
                self._writer.close()
                self._write_run(complete=True, summary=self._summary())
            self._writer = None

    def _summary(self) -> dict[str, Any]:
        from lossledger.run import summary

        assert self._own is not None
        with self._trouble.guarded("no-summary"):
            return {"summary": summary(self._own)}
        return {}

    def _write_run(
        self, *, complete: bool, summary: Mapping[str, Any] = MappingProxyType({})
    ) -> None:
        assert self.path is not None
        assert self._own is not None
        ended = datetime.now(UTC).astimezone().isoformat(timespec="seconds")
        write_json(
            self._own / "run.json",
            {
                "format": self._format,
                "id": self.path.name,
                "name": self._name,
                "created": self._created,
                "ended": ended if complete else None,
                "complete": complete,
                "entries": self._entries,
                "command": self._command,
                "script": _script(self._script),
                "git": _git_commit(self._script),
                "pid": os.getpid(),
                **({} if self._world is None else {"worker": self._world.rank}),
                **_machine(),
                "warnings": [{"slug": s, "message": m} for s, m in self._trouble.told.items()],
                "unseen": [{"where": w, "what": m} for w, m in self._trouble.unseen.items()],
                **summary,
            },
        )


def _machine() -> dict[str, Any]:
    """Versions, device and settings; Keras isn't imported for it, where a loop has none."""
    if "keras" not in sys.modules:
        return {"versions": {"python": platform.python_version(), "numpy": np.__version__}}
    from lossledger.keras import describe

    return {
        "versions": describe.versions(),
        "device": describe.device(),
        "environment": describe.environment(),
    }


def _script(path: Path | None) -> dict[str, str] | None:
    if path is None or not path.is_file():
        return None
    return {"path": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def _git_commit(script: Path | None) -> str | None:
    folder = script.parent if script is not None else Path.cwd()
    command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=2, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip() or None
