"""Copies of remote runs, to be read as any run is.

A copy holds what the store had when it was last looked at; what is there already is not fetched
again. What promises is fetched first and put in place last (`run.json`, `calls.jsonl`, the
segments), so that a copy holds what it promises while the store and other readers move on. Only
names that a run's folder has are taken from the store, so none leads out of the copy.
"""

import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from lossledger.errors import LossLedgerError
from lossledger.objects import Found, Remote, kept_at, refuses

LOOK_SECONDS = 2.0
"""How often the store is asked whether a run has grown, in seconds."""
ALIVE_SECONDS = 60.0
"""How old the `writer.lock` of a run that grows gets on the store, in seconds."""
TRY_SECONDS = 10.0
"""How long after the first try the last one may begin, in seconds."""
TRIES = 5

_FILE = re.compile(
    r"((?:worker-\d{1,6}/)?)(run\.json|calls\.jsonl|writer\.lock"
    r"|entries/\d{6,9}\.(?:parquet|arrows)|weights/\d{6,9}\.npz)"
)
_RUN = re.compile(r"[^\\/:\0.][^\\/:\0]*")
_LATE = {"calls.jsonl": 1, "run.json": 2}
"""Files that promise others: put in place after them."""

_T = TypeVar("_T")


def _tried(action: Callable[[], _T], remote: Remote) -> _T:
    """What an action on the store gives, tried again where the store has trouble.

    Raises:
        LossLedgerError: It has it still (slug `store-unreachable`).
    """
    begun = time.monotonic()
    for attempt in range(TRIES):
        try:
            return action()
        except OSError as error:
            late = attempt == TRIES - 1 or time.monotonic() - begun > TRY_SECONDS
            if late or refuses(error):
                raise LossLedgerError(
                    f"The object store can't be read. Received: {remote}: {error}. See that the "
                    "folder's URI and the environment's credentials are right, and try again.",
                    slug="store-unreachable",
                ) from error
        time.sleep(0.2 * 2**attempt)
    raise AssertionError


class Copy:
    """A run of a store on this machine.

    Args:
        remote: The run's folder on the store.
        path: The folder of the copy.
    """

    def __init__(self, remote: Remote, path: Path) -> None:
        self.remote = remote
        self.path = path
        self._seen: Mapping[str, Found] = {}
        self._looked = 0.0

    @property
    def is_written(self) -> bool:
        """Whether a process that writes the run was alive when this was last looked at."""
        locks = [each for name, each in self._seen.items() if name.endswith("writer.lock")]
        return any(time.time() - each.modified / 1e9 < ALIVE_SECONDS for each in locks)

    def refresh(self) -> None:
        """Fetches what is new on the store, if it was not asked just now.

        Raises:
            LossLedgerError: The store can't be read (slug `store-unreachable`).
        """
        if time.monotonic() - self._looked >= LOOK_SECONDS or not self._looked:
            self._seen = _tried(self._fetched, self.remote)
            self._looked = time.monotonic()

    def _fetched(self) -> Mapping[str, Found]:
        there = _of_a_run(self.remote)
        if there == self._seen:
            return there
        aside = self.path.parent / f".{self.path.name}-{os.getpid()}"
        shutil.rmtree(aside, ignore_errors=True)
        try:
            # What promises, before what it promises is listed.
            for name in sorted(there, key=_late, reverse=True):
                if _late(name):
                    self._get(name, aside)
            known, there = there, _of_a_run(self.remote)
            for name, found in there.items():
                if not _late(name) and not self._has(name, found):
                    self._get(name, aside)
                    os.utime(aside / name, ns=(found.modified, found.modified))
            for name in sorted(there, key=_late):
                if (aside / name).is_file():
                    (self.path / name).parent.mkdir(parents=True, exist_ok=True)
                    (aside / name).replace(self.path / name)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        for path in self.path.rglob("*.*"):
            name = path.relative_to(self.path).as_posix()
            if name not in there and _FILE.fullmatch(name):
                path.unlink(missing_ok=True)  # a stream that was sealed since
        # What promises may be newer by now than what was fetched.
        promises = {name: found for name, found in known.items() if _late(name)}
        return {**{name: found for name, found in there.items() if not _late(name)}, **promises}

    def _has(self, name: str, found: Found) -> bool:
        if name.endswith("writer.lock"):
            return True  # read by its time alone
        try:
            here = (self.path / name).stat()
        except FileNotFoundError:
            return False
        return (here.st_size, here.st_mtime_ns) == found

    def _get(self, name: str, aside: Path) -> None:
        (aside / name).parent.mkdir(parents=True, exist_ok=True)
        self.remote.download(name, aside / name)


def _late(name: str) -> int:
    return _LATE.get(name.rpartition("/")[2], 0)


def _of_a_run(remote: Remote) -> dict[str, Found]:
    """The files of a run on the store, those of its workers among them."""
    return {name: found for name, found in remote.files().items() if _FILE.fullmatch(name)}


_copies: dict[Path, Copy] = {}


def fetch(remote: Remote) -> Path:
    """Brings a run here, or what is new of it; the folder of its copy.

    Raises:
        LossLedgerError: The store can't be read (slug `store-unreachable`).
    """
    path = kept_at(remote.parent, "read") / remote.name
    copy = _copies.setdefault(path, Copy(remote, path))
    copy.refresh()
    return path


def _head(remote: Remote) -> None:
    path = kept_at(remote.parent, "heads") / remote.name

    def fetched() -> bool:
        if not remote.has("run.json"):
            return False
        workers = [name for name in remote.folders() if _FILE.fullmatch(f"{name}/run.json")]
        for place in (path, *(path / name for name in workers)):
            place.mkdir(parents=True, exist_ok=True)
            aside = place / f".run.json-{os.getpid()}"
            source = remote if place == path else remote / place.name
            with suppress(FileNotFoundError):  # of a worker that has yet to begin
                source.download("run.json", aside)
                aside.replace(place / "run.json")
        return True

    if _tried(fetched, remote):
        _copies.setdefault(path, Copy(remote, path))
    else:
        shutil.rmtree(path, ignore_errors=True)


def heads(folder: Remote, names: Iterable[str]) -> Path:
    """Brings what runs of a folder say of themselves here; a folder that holds theirs."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: _head(folder / name), names))
    return kept_at(folder, "heads")


def runs_of(remote: Remote) -> list[str]:
    """Names of the folders in a folder of runs on a store."""
    names = _tried(remote.folders, remote)
    return [name for name in names if _RUN.fullmatch(name) and name.isprintable()]


def is_run(remote: Remote) -> bool:
    """Whether a folder on a store is a run's."""
    return _tried(lambda: remote.has("run.json"), remote)


def of(path: Path) -> Copy | None:
    """The copy whose folder, or whose worker's, this is; `None` for a run of this machine."""
    return _copies.get(path) or _copies.get(path.parent)


def whole(path: Path) -> Path:
    """The folder of all of a run, of which this may be what it says of itself alone."""
    copy = _copies.get(path)
    return path if copy is None else fetch(copy.remote)


def refresh(path: Path) -> None:
    """Fetches what is new of a run that is a copy; of any other, nothing is to be done."""
    copy = of(path)
    if copy is not None:
        copy.refresh()


def where(path: Path) -> str:
    """How a run's folder is shown: a copy by what it is a copy of."""
    copy = _copies.get(path)
    return str(path if copy is None else copy.remote)
