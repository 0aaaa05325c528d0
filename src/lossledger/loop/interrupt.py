"""Ctrl-C between two calls to the device, never within one."""

import threading

# What `signal` puts around these tries to make an enum of each handler, and takes a step 20 us.
from _signal import SIGINT, getsignal, signal
from types import FrameType
from typing import Any


class Whole:
    """A block that an interruption of the keyboard waits for: what it does is done whole.

    A call to the device takes the model's state and gives the next one back; what the host notes
    of it has to go with it.
    """

    __slots__ = ("_handler", "_noted")

    def __enter__(self) -> None:
        self._noted: tuple[int, FrameType | None] | None = None
        self._handler: Any = None
        # Python runs handlers in the main thread alone.
        if threading.current_thread() is threading.main_thread():
            handler = getsignal(SIGINT)
            if callable(handler):
                self._handler = handler
                signal(SIGINT, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._noted = (number, frame)

    def __exit__(self, *exception: object) -> None:
        if self._handler is not None:
            signal(SIGINT, self._handler)
            if self._noted is not None:
                self._handler(*self._noted)
