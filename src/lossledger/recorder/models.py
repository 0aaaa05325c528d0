"""The models that a recording has seen, and the call that is on of each."""

import threading
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lossledger.recorder.call import RecordedCall


class Models:
    """Numbers models, and finds their calls; keeps no model alive.

    An `id` may be that of a model long gone: every answer is about this very object.
    """

    def __init__(self) -> None:
        self._seen: dict[int, tuple[weakref.ref[Any], int]] = {}
        self._open: dict[int, RecordedCall] = {}
        self._last: dict[int, RecordedCall] = {}
        self._counting = threading.Lock()
        self._count = 0
        self._before: dict[int, Any] = {}

    def go_on(self, before: Mapping[int, Any]) -> None:
        """Models of the run that is resumed: what tells each of them again, by number."""
        self._before = dict(before)
        self._count = 1 + max(before, default=-1)

    def new(self, likeness: Any = None) -> int:
        """The number of a model not seen before in this process.

        Args:
            likeness: What tells it again: the first model of the run before that is like it, and
                has not come again yet, goes on.
        """
        with self._counting:
            # One of which nothing is known died before its first call was described.
            like = [number for number, each in self._before.items() if each == likeness]
            like += [number for number, each in self._before.items() if each is None]
            if like and likeness is not None:
                del self._before[like[0]]
                return like[0]
            self._count += 1
            return self._count - 1

    def number(self, model: Any, likeness: Any = None) -> int:
        """The number of a model; a call that is still on of one gone before it ends."""
        if not self._knows(model):
            self._seen[id(model)] = (weakref.ref(model), self.new(likeness))
            if id(model) in self._open:
                self._open[id(model)].finish()
        return self._seen[id(model)][1]

    def _knows(self, model: Any) -> bool:
        known = self._seen.get(id(model))
        return known is not None and known[0]() is model

    def begin(self, model: Any, call: "RecordedCall") -> None:
        """A call of a model, which has a number, is on."""
        self._open[id(model)] = self._last[id(model)] = call

    def end(self, call: "RecordedCall") -> None:
        """A call is on no more."""
        for key, each in list(self._open.items()):
            if each is call:
                del self._open[key]

    @property
    def open(self) -> "list[RecordedCall]":
        """The calls that are on."""
        return list(self._open.values())

    def call(self, model: Any) -> "RecordedCall | None":
        """The call of a model that is on."""
        return self._open.get(id(model)) if self._knows(model) else None

    def last(self, model: Any) -> "RecordedCall | None":
        """The last call of a model, on or ended."""
        return self._last.get(id(model)) if self._knows(model) else None
