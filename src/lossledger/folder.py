"""The folder that holds runs, and a run's small files; needs neither pyarrow nor numpy.

A run is a folder named `2026-11-22_18-38-54-train`, sortable by time, in a folder of runs
(`runs` by default) whose `latest` points to the newest. File names are fixed or listed by a
pattern; none is ever taken from the content of a file.
"""

import contextlib
import json
import math
import os
import re
import stat
import unicodedata
import zlib
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, cast

from lossledger.errors import LossLedgerError

LATEST = "latest"
STAMP = re.compile(r"\d{4}-\d{2}-\d{2}_\d{2}-\d{2}-\d{2}-")
"""What the name of a run's folder starts with: when the run began."""

MOST_BYTES = 1 << 30
"""Of one file of a run: no segment and no record of calls grows to that."""
_RECORD_BYTES = 1 << 26
_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_NAME_BYTES = 80
_CRC = b'"crc": "'
_UNKNOWN = "00000000"


def create_folder(
    directory: Path, name: str, now: datetime, *, newest: bool = True, mark: str = ""
) -> Path:
    """Creates a new run's folder, never an existing one, and points `latest` to it.

    Args:
        directory: The folder that holds runs; created where missing.
        name: What the user calls the run; characters that file systems dislike become `-`.
        now: When the run begins.
        newest: Whether `latest` is to point to it.
        mark: What tells the folder from those of other machines, after the name.

    Returns:
        The path of the new, empty folder. A second run of one name in one second gets the
        suffix `-2`, the next `-3`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    base = f"{now:%Y-%m-%d_%H-%M-%S}-{readable(name)}{mark}"
    suffix = 1
    while True:
        folder = directory / (base if suffix == 1 else f"{base}-{suffix}")
        try:
            folder.mkdir()
        except FileExistsError:
            suffix += 1
        else:
            if newest:
                point_latest(directory, folder.name)
            return folder


def readable(name: str) -> str:
    """A run's name as a part of its folder's: characters that file systems dislike are `-`."""
    kept = re.sub(r"(?:[^\w.]|\.\.+)+", "-", unicodedata.normalize("NFC", name))
    short = kept.strip("-.").encode()[:_NAME_BYTES].decode(errors="ignore")
    return short.strip("-.") or "run"


def point_latest(directory: Path, target: str) -> None:
    """Lets `latest` point to a folder, where the file system can."""
    latest = directory / LATEST
    if latest.exists() and not latest.is_symlink():
        return  # somebody's own file or folder of that name
    aside = directory / f".{LATEST}-{os.getpid()}"
    # Readers find the newest folder by its name where a file system has no symlinks.
    with contextlib.suppress(OSError):
        aside.unlink(missing_ok=True)
        aside.symlink_to(target, target_is_directory=True)
        aside.replace(latest)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Replaces a JSON file in one step: a reader sees the old content or the new, whole."""
    aside = path.with_name(f"{path.name}.tmp")
    with aside.open("wb") as file:
        file.write(_text(content, indent=1))
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
    sync_directory(path.parent)


def append_line(path: Path, content: Mapping[str, Any], *, unless_last: bool = False) -> None:
    """Appends one JSON object as a line, in one write; drops a torn last line first.

    Args:
        path: The file.
        content: The object.
        unless_last: Does nothing where this is the last line already: a try that was broken off
            may have written it.
    """
    with path.open("a+b", buffering=0) as file:
        whole = _whole_lines(file.seek(0, os.SEEK_END), file)
        data = _text(content)
        if unless_last:
            file.seek(max(whole - len(data), 0))
            if file.readall() == data:
                return
        try:
            while data:
                data = data[file.write(data) :]
        except BaseException:
            file.truncate(whole)
            raise


def _text(content: Mapping[str, Any], indent: int | None = None) -> bytes:
    plain = {**_plain(content), "crc": _UNKNOWN}
    text = json.dumps(plain, indent=indent, ensure_ascii=False, allow_nan=False) + "\n"
    # A command line may hold bytes that are no text; JSON can escape what UTF-8 can't encode.
    data = text.encode(errors="backslashreplace")
    place = data.rindex(_CRC) + len(_CRC)
    return data[:place] + b"%08x" % zlib.crc32(data.rstrip()) + data[place + len(_UNKNOWN) :]


def _is_whole(data: bytes) -> bool:
    """Whether a record has the checksum that it was written with, or none."""
    place = data.rfind(_CRC) + len(_CRC)
    if place < len(_CRC):
        return True  # written by another program, or by hand
    end = place + len(_UNKNOWN)
    text = (data[:place] + _UNKNOWN.encode() + data[end:]).rstrip()
    return b"%08x" % zlib.crc32(text) == data[place:end]


def _whole_lines(size: int, file: Any) -> int:
    """Cuts off the rest of a write that a crash broke; the length of what is left in bytes."""
    if size == 0:
        return 0
    file.seek(size - 1)
    if file.read(1) == b"\n":
        return size
    file.seek(0)
    whole = file.readall().rfind(b"\n") + 1
    file.truncate(whole)
    return whole


def content_of(path: str | Path, most: int = _RECORD_BYTES) -> bytes:
    """What a file of a run holds; a pipe is not waited for, a device not read without end.

    Raises:
        FileNotFoundError: There is none; `NotADirectoryError` where its folder is none.
        ValueError: It is no file, can't be read, or is longer than `most` bytes.
    """
    try:
        descriptor = os.open(path, _READ)
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        raise ValueError(error.strerror) from error
    try:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            raise ValueError("no file, but a folder, a pipe or a device")
        if about.st_size > most:
            raise ValueError(f"{about.st_size} bytes are more than it can have")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read()
    finally:
        os.close(descriptor)


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        FileNotFoundError: There is no such file.
        LossLedgerError: It holds no JSON object (slug `file-damaged`).
    """
    try:
        text = content_of(path)
    except ValueError as error:
        raise _damaged(str(path), str(error)) from error
    return _object(text, str(path))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Reads a file of one JSON object a line; a torn last line is left out, no file is empty.

    Raises:
        LossLedgerError: A whole line is no JSON object (slug `file-damaged`).
    """
    try:
        lines = content_of(path, MOST_BYTES).split(b"\n")
    except FileNotFoundError:
        return []
    except ValueError as error:
        raise _damaged(str(path), str(error)) from error
    # What follows the last newline is empty or torn.
    return [_object(line, f"{path}, line {n}") for n, line in enumerate(lines[:-1], start=1)]


def _object(text: bytes, where: str) -> dict[str, Any]:
    try:
        content = parsed(text)
    except ValueError as error:
        raise _damaged(where, str(error)) from error
    if content is None:
        raise _damaged(where, "JSON, but no object")
    return content


def parsed(text: bytes) -> dict[str, Any] | None:
    """A JSON object without its checksum; `None` where the text is JSON of another kind.

    Raises:
        ValueError: It is no JSON, or not what was written.
    """
    try:
        content = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(content, dict):
        return None
    if not _is_whole(text):
        raise ValueError("its checksum does not match (without its key `crc` it is not checked)")
    found = cast("dict[str, Any]", content)
    found.pop("crc", None)
    return found


def _damaged(where: str, what: str) -> LossLedgerError:
    return LossLedgerError(
        f"A file of the run holds no readable record. Received: {where}: {what}. "
        "Restore the file from a copy.",
        slug="file-damaged",
    )


def _plain(value: Any) -> Any:
    """What JSON can hold: numpy values as numbers, non-finite ones as text, the rest as text."""
    if hasattr(value, "tolist"):  # numpy's, without importing it here
        value = value.tolist()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in cast("list[Any]", value)]
    return str(value)


def sync_directory(path: Path) -> None:
    """Makes renames and deletions in a folder survive a power cut, where the system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
