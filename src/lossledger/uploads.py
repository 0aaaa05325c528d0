"""A run's folder copied to an object store, once or while the run grows.

Whoever reads the store sees a run that holds what it promises: what promises (`run.json`, then
`calls.jsonl`) is read here first, and uploaded after the segments that it promises. A sealed
segment is uploaded once. Nothing there is changed but by whole objects.
"""

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from lossledger.errors import LossLedgerError, printable
from lossledger.folder import parsed, read_json
from lossledger.growth import growth, is_over
from lossledger.objects import Remote, refuses
from lossledger.words import command_line
from lossledger.workers import WORKER, workers_of

PAUSE_SECONDS = 5.0
"""How often what has grown is uploaded, in seconds, unless `LOSSLEDGER_UPLOAD_SECONDS` is set."""
BEAT_SECONDS = 15.0
"""How often a growing run's `writer.lock` is written anew on the store, in seconds."""
PATIENCE = 600.0
"""How long an upload is tried again after the run is over, in seconds."""
SHARE = 4
"""Uploading takes at most one part in so many of the time, while the run grows."""

_FIRST, _LONGEST = 0.5, 30.0
_PROMISES = ("run.json", "calls.jsonl")
_PARQUET, _STREAM, _WEIGHTS = "*.parquet", "*.arrows", "*.npz"


class Uploaded(NamedTuple):
    """What an upload did.

    Args:
        to: The run's folder on the store.
        files: Objects written.
        bytes: Their bytes.
        deleted: Whether the run's folder here was deleted afterwards.
    """

    to: Remote
    files: int
    bytes: int
    deleted: bool


def upload(
    folder: Path,
    to: Remote,
    *,
    follow: bool = False,
    delete: bool = False,
    patience: float = PATIENCE,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Uploaded:
    """Uploads what the store lacks of a run.

    Args:
        folder: The run's folder, or a worker's in it.
        to: The folder of runs on the store.
        follow: Whether to go on while the run grows, until it is over.
        delete: Whether to delete the run's folder here, once it is closed and all uploaded.
        patience: How long to try again once the run is over, in seconds.
        sleep: Waits for so many seconds.
        clock: Tells the time in seconds.

    Raises:
        LossLedgerError: The store took not all of it (slug `not-uploaded`), or has another run of
            that name (`upload-differs`).
    """
    job = _Upload(folder, to, patience, sleep, clock)
    try:
        for _ in growth(folder, sleep=job.rest) if follow else (True,):
            job.sync()
        job.end()
        deleted = delete and job.is_whole()
    except OSError as error:  # those of the store are tried again
        raise job.failed(str(error)) from error
    if deleted:
        job.delete()
    return Uploaded(job.to, job.files, job.bytes, deleted)


class _Upload:
    """See `upload`."""

    def __init__(
        self,
        folder: Path,
        to: Remote,
        patience: float,
        sleep: Callable[[float], None],
        clock: Callable[[], float],
    ) -> None:
        folder = folder.resolve()
        run = folder.parent if WORKER.fullmatch(folder.name) else folder
        workers = [folder] if run != folder else [*workers_of(run).values()]
        self.to = to / run.name
        self._store, self._folder, self._run = to, folder, run
        shares = [(path, self.to / path.name) for path in workers] or [(run, self.to)]
        self._shares = [_Share(path, place) for path, place in shares]
        self._top = _Share(run, self.to) if workers else None
        self._patience, self._sleep, self._clock = patience, sleep, clock
        self._beaten: float | None = None
        self._over: float | None = None
        self._took = 0.0

    @property
    def _all(self) -> "list[_Share]":
        return self._shares + ([self._top] if self._top else [])

    @property
    def files(self) -> int:
        """Objects written."""
        return sum(share.files for share in self._all)

    @property
    def bytes(self) -> int:
        """Their bytes."""
        return sum(share.bytes for share in self._all)

    def sync(self) -> None:
        """Uploads what there is by now; tries again until it is done."""
        self._took = 0.0
        for share in self._shares:
            self._tried(share.sync)
        if self._top is not None:
            self._tried(self._top.promise)

    def rest(self, seconds: float) -> None:
        """Waits while the run grows, in pieces of some seconds; longer after a long upload."""
        begun, pause = self._clock(), max(_pause(), (SHARE - 1) * self._took)
        while self._clock() - begun < pause and not is_over(self._folder):
            self._beat()
            self._sleep(min(seconds, pause))

    def _beat(self) -> None:
        """Says on the store now and then that the run is being written."""
        if self._beaten is None or self._clock() - self._beaten >= BEAT_SECONDS:
            self._beaten = self._clock()
            with suppress(OSError):  # the next one may go through
                for share in self._shares:
                    share.to.write("writer.lock", b"")

    def end(self) -> None:
        """Says on the store that nobody writes the run any more."""
        for share in self._shares:
            self._tried(lambda to=share.to: to.delete("writer.lock"))

    def is_whole(self) -> bool:
        """Whether the run is closed and the store has all of it."""
        infos = [read_json(share.folder / "run.json") for share in self._shares]
        return all(info.get("complete") for info in infos) and all(
            share.is_there() for share in self._shares
        )

    def delete(self) -> None:
        """Deletes what was uploaded; a run that several processes write, when it is the last."""
        for share in self._shares:
            shutil.rmtree(share.folder)
        if self._top is not None and not workers_of(self._run):
            shutil.rmtree(self._run)

    def _tried(self, action: Callable[[], None]) -> None:
        wait = _FIRST
        while True:
            done, begun = self.files, self._clock()
            try:
                action()
            except OSError as error:
                if (not self.files and refuses(error)) or self._is_late():
                    raise self.failed(str(error)) from error
                wait = _FIRST if self.files > done else wait
                text = printable(f"{error}")
                print(f"lossledger: trying again in {wait:g} s: {text}", file=sys.stderr)
                self._sleep(wait)
                wait = min(2 * wait, _LONGEST)
            else:
                self._took += self._clock() - begun
                return

    def _is_late(self) -> bool:
        if self._over is None and is_over(self._folder):
            self._over = self._clock()
        return self._over is not None and self._clock() - self._over >= self._patience

    def failed(self, why: str) -> LossLedgerError:
        """The error for a run that is not all there."""
        return LossLedgerError(
            f"The run is not all on the object store. Received: {self._store}: {why}. "
            f"It is kept here; upload it later: {command_line('push', self._folder, self._store)}",
            slug="not-uploaded",
        )


class _Share:
    """The files that one process writes, and what the store has of them by now."""

    def __init__(self, folder: Path, to: Remote) -> None:
        self.folder = folder
        self.to = to
        self.files = self.bytes = 0
        self._sent: dict[str, Any] = {}
        self._looked = False

    def sync(self) -> None:
        """Uploads what is new; what it promises last."""
        self._look()
        promises = {name: self._content(name) for name in _PROMISES}
        for _ in range(3):
            # A stream is sealed while this looks: its Parquet file is there by now.
            with suppress(_Gone):
                self._segments()
                break
        for path in sorted((self.folder / "weights").glob(_WEIGHTS)):
            self._send(f"weights/{path.name}", path.stat().st_size)
        for name in reversed(promises):
            if promises[name]:
                self._put(name, promises[name], promises[name])

    def promise(self) -> None:
        """Uploads `run.json` alone, once: the first of several processes says what the run is."""
        if not self._looked and not self.to.has("run.json"):
            data = self._content("run.json")
            self._put("run.json", data, data)
        self._looked = True

    def is_there(self) -> bool:
        """Whether the store has each file, as long as it is here."""
        there = self.to.files()
        return all(
            name in there and there[name].size == path.stat().st_size
            for name, path in self._present()
        )

    def _present(self) -> Iterator[tuple[str, Path]]:
        for pattern in (*_PROMISES, f"entries/{_PARQUET}", f"weights/{_WEIGHTS}"):
            for path in self.folder.glob(pattern):
                yield path.relative_to(self.folder).as_posix(), path

    def _look(self) -> None:
        """Asks once what the store has: sealed segments of an upload that was cut short stay."""
        if self._looked:
            return
        there = self.to.files()
        if "run.json" in there:
            promises = [name for name in _PROMISES if name in there]
            self._sent = {name: self.to.read(name) for name in promises}
            self._check(_info(self._sent["run.json"]))
            self._sent |= {
                name: found.size
                for name, found in there.items()
                if name.startswith(("entries/", "weights/"))
            }
        self._looked = True

    def _check(self, theirs: Mapping[str, Any]) -> None:
        ours = read_json(self.folder / "run.json")
        if any(theirs.get(key) != ours.get(key) for key in ("id", "created", "pid", "worker")):
            raise LossLedgerError(
                f"The store has another run of this name. Received: {self.to}. "
                "Rename this run's folder, or upload it to another folder of runs.",
                slug="upload-differs",
            )

    def _segments(self) -> None:
        entries = self.folder / "entries"
        sealed = sorted(entries.glob(_PARQUET))
        streams = sorted(entries.glob(_STREAM))
        for path in sealed:
            self._send(f"entries/{path.name}", path.stat().st_size)
            stream = f"entries/{path.stem}.arrows"
            if self._sent.pop(stream, None) is not None:
                self.to.delete(stream)
        for path in streams:
            if not path.with_suffix(".parquet").exists():
                with suppress(FileNotFoundError):
                    size = path.stat().st_size
                    self._send(f"entries/{path.name}", size)
                    continue
                raise _Gone

    def _send(self, name: str, size: int) -> None:
        if self._sent.get(name) != size:
            data = (self.folder / name).read_bytes()
            self._put(name, data, len(data))

    def _put(self, name: str, data: bytes, mark: object) -> None:
        if self._sent.get(name) == mark:
            return
        self.to.write(name, data)
        self._sent[name] = mark
        self.files += 1
        self.bytes += len(data)

    def _content(self, name: str) -> bytes:
        with suppress(FileNotFoundError):
            return (self.folder / name).read_bytes()
        return b""


def _pause() -> float:
    try:
        return float(os.environ["LOSSLEDGER_UPLOAD_SECONDS"])
    except (KeyError, ValueError):
        return PAUSE_SECONDS


class _Gone(Exception):
    """A stream was sealed while it was to be read."""


def _info(data: bytes) -> Mapping[str, Any]:
    with suppress(ValueError):
        return parsed(data) or {}
    return {}
