"""Whether a run still grows, and waiting until it has."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from lossledger import catalog, copies, shares
from lossledger.workers import is_written

POLL_SECONDS = 0.5
"""How often a growing run is looked at, in seconds."""
CLOSING_SECONDS = 10.0
"""How long a process may take to close a run whose entries are all written, in seconds."""


def is_over(folder: Path) -> bool:
    """Whether no entry of a run will come any more: it is closed, or its writer is dead."""
    copies.refresh(folder)
    return bool(catalog.read_info(folder).get("complete")) or not is_written(folder)


def condition(folder: Path, complete: bool) -> str:
    """Whether a run is whole, in a word or two.

    Args:
        folder: The run's folder.
        complete: Whether its recorder has closed it.
    """
    if complete:
        return "complete"
    return f"incomplete: it {'still runs' if is_written(folder) else 'was cut short'}"


def growth(
    folder: Path,
    *,
    seconds: float = POLL_SECONDS,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[bool]:
    """Waits for a run to grow, until it is over.

    Args:
        folder: The run's folder.
        seconds: How often to look.
        sleep: Waits for that long.
        clock: Tells the time in seconds.

    Yields:
        Whether the run is over: at once, then each time that something is new in its folder.
        What is read afterwards is all that there was; after true nothing follows.
    """
    seen: object = None
    freed: float | None = None
    while True:
        copies.refresh(folder)
        info = catalog.read_info(folder)
        over = bool(info.get("complete"))
        if over or is_written(folder):
            freed = None
        else:
            # Its entries are sealed before the run is marked complete: give it the time.
            freed = clock() if freed is None else freed
            over = (
                copies.of(folder) is not None
                or not _lives(info.get("pid"))
                or clock() - freed > CLOSING_SECONDS
            )
        state = shares.state(folder)
        if over or state != seen:
            yield over
        if over:
            return
        seen = state
        sleep(seconds)


def _lives(pid: object) -> bool:
    """Whether a process of this machine lives; what can't be told is taken for dead."""
    if not isinstance(pid, int) or os.name == "nt":
        return False
    with contextlib.suppress(OSError, IndexError):
        # One that has died and that nobody has asked after still takes signals.
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX":
            return False
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True
