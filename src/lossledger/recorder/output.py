"""The run folder as it is being written."""

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from lossledger.entry import FORMAT, PLAIN_FORMAT
from lossledger.folder import LATEST, append_line, create_folder, point_latest, write_json
from lossledger.recorder.before import Before
from lossledger.recorder.redacted import redacted
from lossledger.recorder.surroundings import git_commit, machine, script_of
from lossledger.recorder.trouble import Trouble
from lossledger.recorder.world import World, find_world
from lossledger.records import call_lines
from lossledger.vectors import distinct
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
        command: Its command line; what looks like a secret in it is not kept.
        trouble: Where to say what can't be written.
        resume: The folder of a run to go on in, instead of a new one.
        mark: What tells the run's folder from those of other machines.
    """

    def __init__(
        self,
        directory: Path,
        name: str,
        script: Path | None,
        command: Sequence[str],
        trouble: Trouble,
        resume: Path | None = None,
        mark: str = "",
    ) -> None:
        self.path: Path | None = None
        self.began = time.perf_counter_ns()
        self._directory = directory
        self._name = name
        self._script = script
        self._command = redacted(command)
        self.failed = False
        self._trouble = trouble
        self._resume = resume
        self._mark = mark
        self._before: Before | None = None
        self._attempts: list[Any] = []
        self.own: Path | None = None
        """The folder that this process writes: the run's, or its worker's in it."""
        self._made: tuple[Path | None, Path] | None = None
        self._world: World | None = None
        self._writer: Writer | None = None
        self._refused = False
        self.waiting: list[Mapping[str, np.ndarray]] = []
        self._before_block: int | None = None
        self._last: dict[int, int] = {}
        # Lines of calls that wait for the disk, and whether the first of them may be there already.
        self._lines: deque[dict[str, Any]] = deque()
        self._unsure = False
        self._appending = threading.Lock()
        self._created = ""
        self._entries = 0
        self._format = PLAIN_FORMAT

    @property
    def open(self) -> bool:
        """Whether a writer is at work in the folder."""
        return self._writer is not None

    @property
    def leads(self) -> bool:
        """Whether this process is the only one that records the run, or the first of several."""
        return self._world is None or self._world.rank == 0

    @property
    def attempt(self) -> int:
        """How often the run was resumed."""
        return len(self._attempts)

    def now(self) -> int:
        """Nanoseconds since the run began."""
        return time.perf_counter_ns() - self.began

    def begin(self) -> Before | None:
        """Create the folder, or go on in it; returns what was there of a run that is resumed.

        What it raises leaves nothing begun; a later go takes the folder that this one made.
        """
        try:
            before = self._begin()
        except Exception:
            self.failed = True
            if self.own is None:
                self.path = None
            raise
        self.failed = False
        return before

    def _begin(self) -> Before | None:
        from lossledger.store import Writer

        own, first = self.own, self.own is None
        if own is None:
            self._made = self._made or self._new()
            self.path, own = self._made
        writer = Writer(own, shared=self._is_shared)
        try:
            if first and own == self._resume:
                self._go_on(Before.of(own))
            self._write_run(own, complete=False)
        except BaseException:
            if first:
                self.path, self._before, self._attempts = None, None, []
            with contextlib.suppress(OSError):
                writer.close()
            raise
        self.own, self._writer = own, writer
        return self._before if first else None

    def _new(self) -> tuple[Path | None, Path]:
        with self._trouble.guarded("workers-apart"):
            self._world = find_world()
        own = self._found() or self._created_now()
        path, self.path = self.path or own, None
        return path, own

    def _found(self) -> Path | None:
        """The folder of the run that is resumed."""
        if self._resume is not None and self._world is not None:
            self._trouble.warn(
                "workers-apart",
                "Processes that train together can't go on in a run. "
                f"Received: {self._resume}. They record a new one; `reconcile` takes both.",
            )
            return None
        return self._resume

    def _created_now(self) -> Path:
        created = datetime.now(UTC).astimezone()
        self._created = created.isoformat(timespec="seconds")
        own = None if self._world is None else self._joined(self._world, created)
        if own is None:
            self._world = None
            self.path = own = create_folder(self._directory, self._name, created, mark=self._mark)
        return own

    def _joined(self, world: World, now: datetime) -> Path | None:
        """This process's folder in one that all who train together share; `None` without one."""
        global _begun
        key, _begun = f"lossledger/run/{_begun}", _begun + 1
        with self._trouble.guarded("workers-apart"):
            mark = self._mark
            mine = create_folder(self._directory, self._name, now, newest=False, mark=mark)
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

    def _go_on(self, before: Before) -> None:
        self._before = before
        self._entries = before.entries
        self._format = before.info.get("format", PLAIN_FORMAT)
        self.began = time.perf_counter_ns() - before.elapsed
        more = {"git": git_commit(self._script), "pid": os.getpid(), **machine()}
        self._attempts = [*before.attempts, before.resumed(self._command, **more)]

    def append(self) -> None:
        """Append the blocks that wait; they survive the death of the process afterwards.

        Where the disk refuses, the writer keeps them and tries again at the next call. What an
        interrupt leaves goes on there, too.
        """
        writer = self._writer
        if writer is None or self._refused:
            self.waiting.clear()
        waits: OSError | None = None
        while self.waiting and writer is not None:
            block = self.waiting[0]
            try:
                self._append(writer, block)
            except OSError as error:
                waits = error
            except Exception:
                self._refused = True
                raise
            # A ledger may end early, but never has a hole. What it took, it still writes.
            self._refused = writer.refuses
            steps, call, last = self._counted(block)
            self._entries, self._last[call], self._before_block, self.waiting[:1] = (
                self._entries + steps, last, None, [],
            )  # fmt: skip
            if self._refused:
                raise waits or OSError("the writer takes no more")
        if waits is not None:
            raise waits
        self._append_lines()
        if writer is not None:
            writer.flush()

    def _append(self, writer: "Writer", block: Mapping[str, np.ndarray]) -> None:
        """Append a block, unless a go that was interrupted has."""
        if self._before_block is None:
            self._before_block = writer.rows
        if writer.rows == self._before_block:
            writer.append({**block, "time": block["time"] - self.began})

    def _counted(self, block: Mapping[str, np.ndarray]) -> tuple[int, int, int]:
        """How many steps begin in a block, its call, and its last step, which may go on."""
        step, call = block["step"], int(block["call"][0])
        goes_on = self._last.get(call) == step[0]
        return distinct(step) - goes_on, call, int(step[-1])

    def _is_shared(self) -> None:
        """Say so before the first step of several rows: a reader must not count it twice."""
        if self._format == FORMAT:
            return
        assert self.own is not None
        before, self._format = self._format, FORMAT
        try:
            self._write_run(self.own, complete=False)
        except BaseException:
            self._format = before
            raise

    def call(self, index: int, values: Mapping[str, Any]) -> None:
        """Keep what is known of a call; it is written with the next entries, before them."""
        if self.own is not None:
            self._lines.append({"call": index, **values})

    def _append_lines(self) -> None:
        with self._appending:
            while self._lines and self.own is not None:
                unsure, self._unsure = self._unsure, True
                append_line(self.own / "calls.jsonl", self._lines[0], unless_last=unsure)
                self._lines.popleft()
                self._unsure = False

    def weights(self, index: int, weights: Sequence[np.ndarray] | None, when: str) -> None:
        """Keep the fingerprint of weights; a copy, too, of few that a call begins from.

        Args:
            index: The call.
            weights: What they are; `None` where they are too many.
            when: `"initial"` or `"final"`.
        """
        from lossledger.keras import describe

        told = None if weights is None else describe.weights_fingerprint(weights)
        self.call(index, {f"{when}_weights": told})
        if not weights or when != "initial" or self.own is None:
            return
        if sum(weight.nbytes for weight in weights) <= WEIGHTS_LIMIT:
            (self.own / "weights").mkdir(exist_ok=True)
            file = f"weights/{index:06d}.npz"
            try:
                np.savez(self.own / file, *weights)
            except BaseException:
                with contextlib.suppress(OSError):
                    (self.own / file).unlink()
                raise
            self.call(index, {"weights_file": file})

    def close(self) -> None:
        """Seal what was written."""
        if self._writer is not None:
            assert self.own is not None
            with self._trouble.guarded("cannot-write"):
                try:
                    self._append_lines()
                finally:
                    # What reads an entry needs to know its call.
                    self._writer.close(flush=not self._lines)
                lines = {"lines": len(call_lines(self.own))}
                self._write_run(self.own, complete=True, more={**lines, **self._summary()})
            self._writer = None

    def _summary(self) -> dict[str, Any]:
        from lossledger.run import summary

        assert self.own is not None
        with self._trouble.guarded("no-summary"):
            return {"summary": summary(self.own)}
        return {}

    def _write_run(
        self, own: Path, *, complete: bool, more: Mapping[str, Any] = MappingProxyType({})
    ) -> None:
        assert self.path is not None
        before: Mapping[str, Any] = self._before.info if self._before else {}
        ended = datetime.now(UTC).astimezone().isoformat(timespec="seconds")
        warnings = [{"slug": s, "message": m} for s, m in self._trouble.told.items()]
        unseen = [{"where": w, "what": m} for w, m in self._trouble.unseen.items()]
        info = {
            "id": self.path.name,
            "name": self._name,
            "created": self._created,
            "command": self._command,
            "script": script_of(self._script),
            "git": git_commit(self._script),
            "pid": os.getpid(),
            **({} if self._world is None else {"worker": self._world.rank}),
            **machine(),
            **before,
            "format": self._format,
            "ended": ended if complete else None,
            "complete": complete,
            "entries": self._entries,
            "warnings": _joined(before.get("warnings"), warnings, "slug"),
            "unseen": _joined(before.get("unseen"), unseen, "where"),
            **({"resumed": self._attempts} if self._attempts else {}),
            **more,
        }
        write_json(own / "run.json", info)


def _joined(before: Any, now: Sequence[Mapping[str, Any]], key: str) -> list[Any]:
    """What was told before the run was resumed, and what is told now."""
    earlier: list[Any] = before if isinstance(before, list) else []
    known = {each.get(key) for each in earlier}
    return [*earlier, *(each for each in now if each[key] not in known)]
