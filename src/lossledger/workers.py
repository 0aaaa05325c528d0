"""The shares of a run: one folder that one process wrote, or a folder `worker-N` a process.

Each worker's folder is a run's folder of its own, with one writer; the run's own `run.json` says
only how many workers there are. What a reader needs of all of them comes from here.
"""

import contextlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lossledger import copies, records
from lossledger.folder import read_json, write_json
from lossledger.lock import has_writer

WORKER = re.compile(r"worker-(\d{1,6})")
"""The name of a worker's folder; its number is the process's rank."""

_OF_THE_RUN = ("id", "name", "created", "format", "workers")
_OF_A_SHARE = ("entries", "lines", "summary")


def worker_folder(folder: Path, rank: int) -> Path:
    """Where the process of a rank writes."""
    return folder / f"worker-{rank}"


def join_folder(run: Path, rank: int, info: Mapping[str, Any]) -> Path:
    """Makes the folder of a worker in a run's folder, and what the run says of itself, once.

    Args:
        run: The run's folder, made if it isn't there: the workers may not share a disk.
        rank: The worker's.
        info: The run's `run.json`, the same whoever writes it.

    Raises:
        FileExistsError: The folder is another run's, or has this worker already.
    """
    own = worker_folder(run, rank)
    with contextlib.suppress(FileNotFoundError):
        if read_json(run / "run.json").get("workers") != info["workers"]:
            raise FileExistsError(f"{run} is another run.")
    own.mkdir(parents=True)
    aside = own / "run.json"
    write_json(aside, info)
    try:
        os.link(aside, run / "run.json")
    except FileExistsError:
        pass
    except OSError:  # a file system without hard links
        if not (run / "run.json").exists():
            (run / "run.json").write_bytes(aside.read_bytes())
    return own


def workers_of(folder: Path) -> dict[int, Path]:
    """The workers' folders that are there, by rank; none in a run that one process wrote."""
    try:
        count = read_json(folder / "run.json").get("workers")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    return _folders(folder) if isinstance(count, int) and count else {}


def _folders(folder: Path) -> dict[int, Path]:
    names = os.listdir(folder) if folder.is_dir() else []
    ranks = sorted(int(name[1]) for each in names if (name := WORKER.fullmatch(each)))
    shares = {rank: worker_folder(folder, rank) for rank in ranks}
    return {rank: path for rank, path in shares.items() if (path / "run.json").is_file()}


def is_written(folder: Path) -> bool:
    """Whether a process that lives writes to a run, or to the share of one of its workers."""
    copy = copies.of(folder)
    if copy is not None:
        return copy.is_written
    return any(has_writer(path) for _, path in entries_folders(folder))


def is_shared(folder: Path) -> bool:
    """Whether several rows may be one step: a row a replica, or a folder a worker."""
    try:
        version = read_json(folder / "run.json").get("format", 1)
    except FileNotFoundError:
        return False
    return isinstance(version, int) and version >= records.SHARED


def merged_info(folder: Path, info: Mapping[str, Any]) -> dict[str, Any]:
    """`run.json` with what its workers say, the lowest rank where they differ.

    `complete` is what all of them are; `warnings` and `unseen` are of all; `entries`, `lines` and
    `summary` are left out, since each is of one worker's share.

    Args:
        folder: The run's folder.
        info: Its own `run.json`.

    Raises:
        LossLedgerError: A worker's is damaged, or the folders can't be those of so many workers
            (slug `file-damaged`).
    """
    count = info.get("workers")
    if not count:
        return dict(info)
    if (folder / "entries").exists():
        raise records.damaged(f"{folder}: {count} workers, but entries in the run's own folder")
    own = {rank: read_json(path / "run.json") for rank, path in _folders(folder).items()}
    for rank, each in own.items():
        why = records.wrong(each) if rank < count else f"one of {count} workers"
        if why:
            raise records.damaged(f"{worker_folder(folder, rank) / 'run.json'}: {why}")
    first = next(iter(own.values()), {})
    found = {**first, **{key: info[key] for key in _OF_THE_RUN if key in info}}
    for key in _OF_A_SHARE:
        found.pop(key, None)
    found["complete"] = len(own) == count and all(each.get("complete") for each in own.values())
    for key, text in (("warnings", "message"), ("unseen", "what")):
        found[key] = [
            {**item, text: f"worker {rank}: {item.get(text)}"}
            for rank, each in own.items()
            for item in each.get(key, [])
        ]
    return found


def call_lines(folder: Path, promised: int = 0) -> Iterator[dict[str, Any]]:
    """The lines of `calls.jsonl`; of several workers those of the first that has the call.

    What a worker reports it reports of all, or of its own share alone: never is it the sum.

    Args:
        folder: The run's folder.
        promised: How many there must be at least, in a run that one process wrote; a worker's own
            `run.json` says how many it has.

    Raises:
        LossLedgerError: A line is damaged, or there are fewer (slug `file-damaged`).
    """
    shares = workers_of(folder)
    if not shares:
        yield from records.call_lines(folder, promised)
        return
    known: set[int] = set()
    for path in shares.values():
        own = records.call_lines(path, read_json(path / "run.json").get("lines") or 0)
        lines = [line for line in own if line["call"] not in known]
        for line in lines:
            if isinstance(line.get("weights_file"), str):
                line["weights_file"] = f"{path.name}/{line['weights_file']}"
            yield line
        known |= {line["call"] for line in lines}


def entries_folders(folder: Path) -> Sequence[tuple[int, Path]]:
    """Where a run's entries lie, each with the rank of its writer."""
    return [*workers_of(folder).items()] or [(0, folder)]
