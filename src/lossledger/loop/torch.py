"""Training steps on PyTorch: `train_step` itself, or the operations that it makes."""

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import torch
from keras import tree
from keras.src.backend.torch.core import convert_to_tensor

from lossledger.keras.torch import TorchTap, values_of
from lossledger.keras.trace import Trace, tracing
from lossledger.loop import engine as base
from lossledger.loop.chunk import Chunk, Window
from lossledger.loop.noted import opaque
from lossledger.loop.tape import LEAST, SOON, Tape

STANDARD = frozenset(("train_step", "compute_metrics", "get_metrics_result"))
"""Where these are Keras's own, the results of a step's metrics go into its logs alone."""


class TorchEngine(base.Engine):
    """See `lossledger.loop.engine.Engine`; a window's values are a list of a row each."""

    order_dtype = "i8"
    eager = True

    def __init__(self, model: Any, full: bool) -> None:
        super().__init__(model, full)
        self._compiled: Any = None
        own = all(getattr(type(model), name) is getattr(keras.Model, name) for name in STANDARD)
        results = [metric.result.__module__ for metric in base.flat_metrics(model)]
        self._unread = own and all(name.startswith("keras.") for name in results)
        self._tapes: dict[Any, Tape] = {}
        self._tape: Tape | None = None
        self._opaque = False
        self._made = 0

    def make_tap(self) -> TorchTap:
        """See base class."""
        tap = TorchTap(self.model)
        tap.full = self.full
        return tap

    def keep(self, window: Window, chunk: Chunk, start: int, count: int) -> None:
        """See base class."""
        if self.tap.position is not None:
            self.tap.buffer.rows.append(window.values[-1])
            self.tap.buffer.executed()

    def put(self, data: Any) -> Any:
        """See base class."""
        copy = lambda leaf: None if leaf is None else convert_to_tensor(leaf).clone()  # noqa: E731
        return tree.map_structure(copy, data)

    def host(self, leaf: Any) -> np.ndarray | None:
        """See base class."""
        return super().host(leaf.numpy(force=True) if isinstance(leaf, torch.Tensor) else leaf)

    def put_order(self, order: np.ndarray) -> Any:
        """See base class."""
        return convert_to_tensor(order)

    def prepare(self, chunk: Chunk, *, partial: bool) -> Any:
        """See base class; nothing is compiled ahead."""
        return ()

    def forms(self, key: Any, chunk: Chunk) -> tuple[str, ...]:
        """See base class."""
        if self.model._should_torch_compile():
            return ("step",)
        alone = not torch.distributed.is_available() or not torch.distributed.is_initialized()
        repeats = alone and self._unread and chunk.order is not None
        return ("repeat", "eager") if repeats else ("eager",)

    def fails(self, form: str) -> bool:
        """See base class."""
        unfit = self._opaque or any(not tape.fit for tape in self._tapes.values())
        return form == "repeat" and unfit

    def floors(self) -> dict[str, float]:
        """See base class; what is repeated is a part of what an eager step does."""
        return {"eager": float("inf")}

    def new_window(self) -> Window:
        """See base class."""
        return Window([], self.capacity)

    def one(self, form: str, key: Any, batch: Any, window: Window) -> Any:
        """See base class."""
        tap = self.tap
        before = tap.before(batch) if self.full else ((), None)
        trace = Trace(copy=torch.clone)
        if self._tape is not None:
            logs = {}
            self._tape.train(batch, trace)
        else:
            with tracing(trace):
                logs = self._step(form)(batch)
        window.values.append(tap.leave(trace, logs, batch, *before))
        return logs

    def run(self, form: str, key: Any, chunk: Chunk, window: Window) -> Any:
        """See base class; the last step of a chunk, whose logs are read, is not repeated."""
        pays = chunk.count > LEAST and max(chunk.count, self._made) >= SOON
        if form == "repeat" and pays and not self._opaque:
            self._tape = self._tape_of(chunk)
        self._made += chunk.count
        return super().run(form, key, chunk, window)

    def _tape_of(self, chunk: Chunk) -> Tape | None:
        leaves = [leaf for leaf in tree.flatten(chunk.data) if leaf is not None]
        shape = (chunk.rows, *[(leaf.shape[1:], leaf.dtype) for leaf in leaves])
        tape = self._tapes.setdefault(shape, Tape(self._noted))
        return tape if tape.fit else None

    def open(self) -> None:
        """See base class."""
        super().open()
        self.entered()

    def entered(self) -> None:
        """See base class; what it changed shows in the operations of the next step."""
        self._opaque = opaque(self.model)
        for tape in self._tapes.values():
            tape.begin()

    def _noted(self, batch: Any, trace: Trace) -> None:
        with tracing(trace):
            self.model.train_step(batch)

    def _step(self, form: str) -> Any:
        if form != "step":
            return self.model.train_step
        if self._compiled is None:
            self._compiled = torch.compile(self.model.train_step)
        return self._compiled

    @contextlib.contextmanager
    def unread(self, form: str) -> Iterator[None]:
        """See base class; an eager step leaves out its metrics' results."""
        given = vars(self.model)
        settled = self.tap.buffer.layout is not None
        if form == "step" or not (self._unread and settled) or not STANDARD.isdisjoint(given):
            self._tape = None
            yield
            return
        given["get_metrics_result"] = functools.partial(_left_out, self.model.get_metrics_result)
        try:
            yield
        finally:
            self._tape = None
            del given["get_metrics_result"]

    def pick(self, chunk: Chunk, place: int) -> Any:
        """See base class."""
        rows = chunk.order[place]
        if type(chunk.data) is tuple and all(type(leaf) is torch.Tensor for leaf in chunk.data):
            # What `map_structure` does takes longer than the picking.
            return tuple([leaf.index_select(0, rows) for leaf in chunk.data])
        return tree.map_structure(
            lambda leaf: None if leaf is None else leaf.index_select(0, rows), chunk.data
        )

    def array(self, window: Window) -> np.ndarray:
        """See base class."""
        rows = window.values
        return values_of(rows) if rows and None not in rows else np.zeros((len(rows), 0), "f4")

    def begin_epoch(self) -> None:
        """See base class."""
        self.model.train()

    def end_epoch(self) -> None:
        """See base class."""
        self.model.eval()


def _left_out(results: Callable[[], Any]) -> Any:
    """The metrics' results, but for the step's logs: a loss of the user's may ask for them."""
    logs = sys._getframe(1).f_code is keras.Model.compute_metrics.__code__
    return {} if logs else results()
