"""Data read ahead: the next chunk is put together while the present one trains."""

import contextvars
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

from lossledger.loop.chunk import Chunk

LATE = 0.1
"""Seconds that training waits for a chunk to fill up; then it takes the batches there are."""

LEAVING = 1.0
"""Seconds that the end of a training waits for a source that is at work on a batch."""


class Reader:
    """Reads the batches that a run asks for, and puts them together.

    Args:
        batches: The batches; nothing else may read them meanwhile.
        packer: Puts them together; see `lossledger.loop.pack`.
        limit: How many to read at most.
    """

    def __init__(self, batches: Iterator[Any], packer: Any, limit: int | None) -> None:
        self._batches = batches
        self._packer = packer
        self._limit = limit
        self._error: BaseException | None = None

    def _raise(self) -> None:
        """Raises what reading a batch raised, once, where that batch would have been trained on."""
        error, self._error = self._error, None
        if error is not None:
            raise error


class InTurn(Reader):
    """Reads in the thread that trains, a chunk at a time.

    Where calls to the device return before they have run, the next chunk is put together meanwhile
    all the same; and a source may be bound to the thread that made it.
    """

    def take(self, *, stacked: bool) -> list[Chunk]:
        """See `Ahead`."""
        self._packer.stacked = stacked
        late = time.monotonic() + LATE
        while (self._limit is None or self._limit > 0) and not self._packer.full:
            try:
                batch = next(self._batches, None)
            except Exception as error:
                self._error, batch = error, None
            if batch is None:
                self._limit = 0
                break
            if self._limit is not None:
                self._limit -= 1
            if not self._packer.add(batch):
                taken = self._packer.take()
                self._packer.add(batch)
                return taken
            if not stacked or time.monotonic() > late:
                break
        taken = self._packer.take()
        if not taken:
            self._raise()
        return taken

    def stop(self, timeout: float | None = None) -> None:
        """See `Ahead`."""
        self._packer.take()


class Ahead(Reader):
    """Reads on a thread, a chunk ahead of what is trained."""

    def __init__(self, batches: Iterator[Any], packer: Any, limit: int | None) -> None:
        super().__init__(batches, packer, limit)
        self._ready: deque[list[Chunk]] = deque()
        self._ended = self._stopped = False
        self._changed = threading.Condition()
        run = contextvars.copy_context().run
        self._thread = threading.Thread(
            target=run, args=(self._work,), name="lossledger-ahead", daemon=True
        )
        self._thread.start()

    def take(self, *, stacked: bool) -> list[Chunk]:
        """The next chunks, none after the last.

        Args:
            stacked: Whether to put the batches to come together.

        Raises:
            BaseException: What reading a batch raised, when all batches before have been taken.
        """
        with self._changed:
            self._packer.stacked = stacked
            while not self._ready and not self._ended:
                if not self._changed.wait(LATE) and (late := self._packer.take()):
                    self._ready.append(late)
            if self._ready:
                taken = self._ready.popleft()
                self._changed.notify_all()
                return taken
        self._raise()
        return []

    def stop(self, timeout: float | None = None) -> None:
        """Read no more; waits until the batch that is being read is there.

        Args:
            timeout: Seconds to wait at most.
        """
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._thread.join(timeout)

    def _work(self) -> None:
        try:
            while self._may_read():
                batch = next(self._batches, None)
                if batch is None:
                    break
                self._add(batch)
            with self._changed:
                self._hand_on()
        except BaseException as error:
            with self._changed:
                self._hand_on()
                self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _may_read(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: not self._ready or self._stopped)
            if self._limit is not None:
                self._limit -= 1
            return not self._stopped and (self._limit is None or self._limit >= 0)

    def _add(self, batch: Any) -> None:
        with self._changed:
            if not self._packer.add(batch):
                self._hand_on()
                self._packer.add(batch)
            if self._packer.full:
                self._hand_on()

    def _hand_on(self) -> None:
        if taken := self._packer.take():
            self._ready.append(taken)
            self._changed.notify_all()
