"""One writer a folder: the system's lock on a file in it."""

import contextlib
import os
import sys
from pathlib import Path
from typing import Any, cast

from lossledger.errors import LossLedgerError


class Lock:
    """One writer a folder: held by a living process, let go by the system when it dies.

    Args:
        folder: The run's folder; the lock is its file `writer.lock`.

    Raises:
        LossLedgerError: Another writer holds it (slug `folder-in-use`).
    """

    # The system's record locks belong to a process: they don't pass to a forked data loader,
    # which may outlive its parent, but neither do they tell two writers of one process apart.
    _held: dict[Path, int] = {}  # noqa: RUF012

    def __init__(self, folder: Path) -> None:
        self._key = folder.resolve()
        self._path = self._key / "writer.lock"
        if Lock._held.get(self._key) == os.getpid():
            raise _in_use(folder)
        while True:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                _lock(descriptor)
            except (BlockingIOError, PermissionError) as error:
                os.close(descriptor)
                raise _in_use(folder) from error
            except OSError:
                pass  # a file system without locks: better recorded than refused
            if self._is_current(descriptor):
                break
            os.close(descriptor)  # its last holder deleted the file in between
        self._descriptor = descriptor
        Lock._held[self._key] = os.getpid()

    def _is_current(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(descriptor))
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Lets another writer in; in a forked child nothing, since the parent holds the lock."""
        if Lock._held.get(self._key) != os.getpid():
            return
        del Lock._held[self._key]
        with contextlib.suppress(OSError):
            self._path.unlink()
        os.close(self._descriptor)


def _lock(descriptor: int) -> None:
    if os.name == "nt":
        import msvcrt

        cast("Any", msvcrt).locking(descriptor, cast("Any", msvcrt).LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def has_writer(folder: Path) -> bool:
    """Whether a living process writes into a run's folder; where that can't be told, true.

    The lock is only asked after, never taken: that could turn away a writer which begins.
    """
    path = folder.resolve() / "writer.lock"
    if Lock._held.get(path.parent) == os.getpid():  # pyright: ignore[reportPrivateUsage]
        return True  # to its own process a lock looks free, and a look would let it go
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        return _is_locked(descriptor)
    except OSError:
        return True
    finally:
        os.close(descriptor)


def _is_locked(descriptor: int) -> bool:
    if os.name == "nt":
        import msvcrt

        try:
            cast("Any", msvcrt).locking(descriptor, cast("Any", msvcrt).LK_NBLCK, 1)
        except OSError:
            return True
        cast("Any", msvcrt).locking(descriptor, cast("Any", msvcrt).LK_UNLCK, 1)
        return False
    import fcntl
    import struct

    # struct flock begins with its type on Linux; elsewhere (macOS, BSD) its type comes fourth.
    linux = sys.platform == "linux"
    layout, place = ("hhqqi", 0) if linux else ("qqihh", 3)
    request = [fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0] if linux else [0, 0, 0, fcntl.F_WRLCK, 0]
    # Room to spare: the system may know a longer one.
    answer = fcntl.fcntl(descriptor, fcntl.F_GETLK, struct.pack(f"{layout}16x", *request))
    return struct.unpack_from(layout, answer)[place] != fcntl.F_UNLCK


def _in_use(folder: Path) -> LossLedgerError:
    return LossLedgerError(
        "Another process records into this run; a run has one writer. "
        f"Received: {folder}. Wait until it ends, or record into a new folder.",
        slug="folder-in-use",
    )
