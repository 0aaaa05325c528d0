"""Which runs a folder of runs has, and which one a user means; reads each `run.json` at most."""

import itertools
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lossledger import copies
from lossledger.errors import LossLedgerError
from lossledger.folder import LATEST, STAMP, content_of, parsed, read_json, readable
from lossledger.objects import Remote, remote_of
from lossledger.records import damaged, wrong
from lossledger.workers import merged_info

READS = 2
"""The newest format of a run's folder that this version reads; see `lossledger.entry`."""

_UPGRADE = "Upgrade: pip install -U lossledger."
_LISTED = 5
_BACK = re.compile(r"(.+?)(?:~(\d+))?")


@dataclass(frozen=True)
class RunInfo:
    """What `run.json` says of a run.

    Args:
        path: The run's folder.
        id: The folder's name.
        name: What the user calls the run.
        created: When it began, ISO 8601, or "".
        complete: Whether the recorder closed it.
        entries: How many entries it has, where complete.
        info: All of `run.json`; empty where it can't be read.
        problem: Why it can't be read, or `None`.
    """

    path: Path
    id: str
    name: str
    created: str
    complete: bool
    entries: int | None
    info: Mapping[str, Any]
    problem: str | None = None


def runs_in(directory: str | Path) -> list[RunInfo]:
    """The runs in a folder, oldest first; reads no entries and imports neither numpy nor pyarrow.

    A run whose `run.json` is damaged is listed with its `problem`.

    Raises:
        LossLedgerError: There is no such folder (slug `no-run`).
    """
    return newest(directory, 0)[0]


def newest(directory: str | Path, number: int) -> tuple[list[RunInfo], int]:
    """The newest runs in a folder, oldest first, and how many older ones there are; as `runs_in`.

    Args:
        directory: The folder, or its URI on an object store.
        number: How many to read, all where 0.
    """
    remote = remote_of(directory)
    if remote is not None:
        there = _remote_ids(remote)
        return _remote_infos(remote, there[-number:]), len(there[:-number] if number else [])
    found: list[RunInfo] = []
    names = _ids(Path(directory))
    while names and (len(found) < number or not number):
        info = _info(directory, names.pop())
        if info is not None:
            found.append(info)
    older = (os.path.lexists(os.path.join(directory, name, "run.json")) for name in names)
    return found[::-1], sum(older)


def _ids(directory: Path) -> list[str]:
    """Names of the folders in it that may hold a run, oldest first."""
    try:
        with os.scandir(directory) as entries:
            names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except (FileNotFoundError, NotADirectoryError) as error:
        raise LossLedgerError(
            f"There is no such folder of runs. Received: {directory}. "
            "Record a run with `lossledger run script.py`, or name the folder that holds them.",
            slug="no-run",
        ) from error
    return sorted(names, key=_age)


def _remote_ids(remote: Remote) -> list[str]:
    return sorted(copies.runs_of(remote), key=_age)


def _remote_infos(remote: Remote, names: Sequence[str]) -> list[RunInfo]:
    """What runs on an object store say of themselves; those that are none are left out."""
    heads = copies.heads(remote, names)
    infos = (_info(heads, name) for name in names)
    return [info for info in infos if info is not None]


def _age(name: str) -> tuple[str, str, int, str]:
    """Sorts by time, and `train-10` after `train-2` within a second."""
    stamp = STAMP.match(name)
    rest = name[stamp.end() :] if stamp else name
    base, _, suffix = rest.rpartition("-")
    if base and suffix.isdecimal():
        return (stamp[0] if stamp else "", base, int(suffix), name)
    return (stamp[0] if stamp else "", rest, 1, name)


def _info(directory: str | Path, name: str) -> RunInfo | None:
    path = os.path.join(directory, name)  # pathlib's joins would dominate ten thousand of these
    info: dict[str, Any] = {}
    try:
        info = parsed(content_of(os.path.join(path, "run.json"))) or {}
        problem = None if info else "run.json holds no JSON object"
        if newer := _newer(info):
            info, problem = {}, f"a newer lossledger recorded it: {newer}. {_UPGRADE}"
        elif why := wrong(info):
            info, problem = {}, f"run.json is damaged: {why}"
        elif info.get("workers"):
            info = merged_info(Path(path), info)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, LossLedgerError) as error:
        problem = f"run.json can't be read: {error}"
    return RunInfo(
        path=Path(path),
        id=name,
        name=(info.get("name") or STAMP.sub("", name)),
        created=info.get("created") or "",
        complete=bool(info.get("complete")),
        entries=info.get("entries"),
        info=info,
        problem=problem,
    )


def find(run: str | Path, directory: str | Path = "runs") -> Path:
    """The folder of the run that a user means.

    Args:
        run: A run's folder, or a name: the folder's, or the one that the run was given, of which
            the newest is meant; `latest`; or `name~1` and `latest~1` for the one before. A name
            may have a folder of runs before it. That may be a URI: what an object store has of the
            run is then fetched.
        directory: The folder of runs in which a bare name is looked up, or its URI.

    Raises:
        LossLedgerError: There is none (slug `no-run`).
    """
    remote = remote_of(run)
    if remote is not None:
        return _find_remote(remote)
    path = Path(run)
    if (path / "run.json").is_file():
        # The run's own name, not `latest`, where the link stays in the folder of runs.
        target = path.parent / path.resolve().name
        return target if path.is_symlink() and target.is_dir() else path
    bare = path.parent == Path() and not path.is_absolute() and path.name == str(run)
    remote = remote_of(directory)
    if remote is not None and bare:
        return _find_remote(remote / path.name)
    where = Path(directory) if bare else path.parent
    if path.is_dir() and not bare:
        raise _no_run(run, path)
    if not where.is_dir():
        raise _no_run(run, where)
    name, back = _asked(path.name)
    if name == LATEST:
        return _latest(run, where, back)
    if (where / path.name / "run.json").is_file():
        return where / path.name
    return _named(run, where, runs_in(where), path.name).path


def _asked(name: str) -> tuple[str, int]:
    """A name, and how many runs of that name back: `latest~1`."""
    found = _BACK.fullmatch(name)
    return (found[1], int(found[2] or 0)) if found else (name, 0)


def _find_remote(run: Remote) -> Path:
    """As `find`; on an object store `latest` is what its name says, since it has no links."""
    if copies.is_run(run):
        return copies.fetch(run)
    inside = _remote_ids(run)
    if inside or not run.parent.name:
        raise _no_run(run, run, inside)
    where, ids = run.parent, _remote_ids(run.parent)
    name, back = _asked(run.name)
    if name == LATEST:
        newest = (where / name for name in reversed(ids) if copies.is_run(where / name))
        chosen = next(itertools.islice(newest, back, None), None)
        if chosen is None:
            raise _no_run(run, where, ids)
        return copies.fetch(chosen)
    # A folder's name begins with the run's: the others need not be asked.
    may = [each for each in ids if STAMP.sub("", each).startswith(readable(name))]
    named = _named(run, where, _remote_infos(where, may), run.name, ids)
    return copies.fetch(where / named.id)


def _latest(run: str | Path, where: Path, back: int) -> Path:
    ids = [name for name in _ids(where) if (where / name / "run.json").is_file()]
    pointed = where / LATEST
    newest = pointed.resolve().name if pointed.is_symlink() else None
    place = (ids.index(newest) if newest in ids else len(ids) - 1) - back
    if place < 0:
        raise _no_run(run, where)
    return where / ids[place]


def _named(
    run: str | Path | Remote,
    where: Path | Remote,
    infos: Sequence[RunInfo],
    name: str,
    ids: Sequence[str] | None = None,
) -> RunInfo:
    """The one of some runs, oldest first, that a name means; `ids` has all that there are."""
    for base, back in ((name, 0), _asked(name)):  # a run may be called `a~1`
        found = [info for info in infos if base in (info.name, STAMP.sub("", info.id))]
        if len(found) > back:
            return found[-1 - back]
    raise _no_run(run, where, [info.id for info in infos] if ids is None else ids)


def _no_run(
    run: str | Path | Remote, where: Path | Remote, there: Sequence[str] | None = None
) -> LossLedgerError:
    if there is None and isinstance(where, Path) and where.is_dir():
        there = [info.id for info in runs_in(where)]
    if there:
        way = f"The folder {where} has {_listed(there)}. Name one of those, or another folder."
    else:
        has = "does not exist" if there is None else "has no runs"
        record = "Record one with `lossledger run script.py`, or name another folder"
        way = f"The folder {where} {has}. {record}."
    return LossLedgerError(f"There is no such run. Received: {str(run)!r}. {way}", slug="no-run")


def _listed(names: Sequence[str]) -> str:
    """The newest first."""
    more = [f"and {len(names) - _LISTED} older"] if len(names) > _LISTED else []
    return ", ".join([*reversed(names[-_LISTED:]), *more])


def read_info(folder: Path) -> dict[str, Any]:
    """A run's `run.json`, if this version reads its format.

    Raises:
        LossLedgerError: The format is newer (slug `format-newer`), or the file is damaged.
    """
    info = read_json(folder / "run.json")
    newer = _newer(info)
    if newer:
        raise LossLedgerError(
            f"A newer lossledger recorded this run. Received: {folder}, {newer}. {_UPGRADE}",
            slug="format-newer",
        )
    if why := wrong(info):
        raise damaged(f"{folder / 'run.json'}: {why}")
    return merged_info(folder, info)


def _newer(info: Mapping[str, Any]) -> str | None:
    """Which format a run has, where it is newer than what this version reads."""
    version = info.get("format", 1)
    if isinstance(version, int) and version <= READS:
        return None
    return f"format {version}; this version reads up to {READS}"
