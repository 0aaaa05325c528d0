"""One training under way: what moves it on, and what it tells the callbacks."""

import time
import warnings
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import keras

from lossledger.errors import LossLedgerError
from lossledger.keras import patches
from lossledger.loop import batches, data, hooks
from lossledger.loop.chunk import Chunk, Window
from lossledger.loop.engine import Engine
from lossledger.loop.epoch import Epoch, Where, scalar
from lossledger.loop.plan import SINGLE, Plan, Planner

SHOW = 0.1
"""Seconds between two updates of the progress bar, at least."""


@dataclass
class Training:
    """A training under way.

    Args:
        model: The model trained.
        engine: Its engine.
        source: Where its batches come from.
        callbacks: Keras's list of callbacks.
        epochs: Number of the epoch to stop before.
        wanted: The form that the user wants, or `"auto"`.
        validation: Arguments of `evaluate`, and `freq`; empty without validation.
        planner: Chooses the form of each call; `None` until the first batches are there.
        logs: Of the last epoch that ended.
        arguments: The loop's, for a recording.
        call: The call of a recording, where one is on.
    """

    model: Any
    engine: Engine
    source: Any
    callbacks: Any
    epochs: int
    wanted: str
    validation: Mapping[str, Any] = field(default_factory=dict[str, Any])
    planner: Planner | None = None
    logs: dict[str, Any] = field(default_factory=dict[str, Any])
    arguments: dict[str, Any] = field(default_factory=dict[str, Any])
    call: Any = None

    def __post_init__(self) -> None:
        self._key: Any = None
        self._chunked = False
        self._last: tuple[Any, int, Any] = (None, 0, None)
        self._shown = 0.0
        self._known = 0
        # Keras's TensorBoard writes the model's graph at the first batch that it is told of.
        self._graph_due = any(type(c).__name__ == "TensorBoard" for c in self.callbacks.callbacks)
        self._waiting: list[tuple[int, dict[str, Any]]] = []
        self._under_way: deque[Any] = deque()
        self.ahead = self.over = False
        self._each = any(hooks.needs_batches(each) for each in self.callbacks.callbacks)
        only_history = [type(c) for c in self.callbacks.callbacks] == [keras.callbacks.History]
        self._may_wait = only_history and not self.validation
        bars = [c for c in self.callbacks.callbacks if isinstance(c, keras.callbacks.ProgbarLogger)]
        self._bar = next((bar for bar in bars if bar.verbose == 1), None)

    @property
    def plan(self) -> Plan:
        """How it trains."""
        return Plan(self.wanted) if self.planner is None else self.planner.plan

    def begin_epoch(self, number: int) -> Epoch:
        """Begin an epoch, as `fit` does."""
        self.engine.reset_metrics()
        self.callbacks.on_epoch_begin(number)
        self.engine.begin_epoch()
        self.source.begin()
        return Epoch(number, self)

    def enter(self) -> None:
        """The user begins to train; where the loop does, nobody else's code has run in between."""
        if not (self.ahead and self._may_wait):
            self.engine.entered()

    def advance(self, epoch: Epoch, most: int | None) -> int:
        """Train on the next batches; returns the rows of a batch, 0 where there is none.

        Args:
            epoch: The epoch.
            most: How many batches at most; any number by default.
        """
        with Where(epoch) as where:
            return self._advance(epoch, most, where)

    def _advance(self, epoch: Epoch, most: int | None, where: Where) -> int:
        window = self._window(epoch)
        form = None if self.planner is None else self.planner.choose(self._left(epoch))
        chunk = self._taken(form, self._limit(form, window, most), most)
        if chunk is None:
            return 0
        where.trains(chunk.count)
        self._check_engine(chunk)
        key = self._prepared(chunk)
        if key != self._key or form is None:
            form = self._form_of(epoch, key, chunk)
        window = window or self._new_window(epoch)
        serving = self._each or self._graph_due
        if serving:
            self._graph_due = False
            self.callbacks.on_train_batch_begin(epoch.taken)
        timed = key == self._key and most != 1
        try:
            self._run(epoch, form, key, chunk, window, timed=timed)
        except Exception as error:
            if not self._shrinks(error, chunk):
                raise
            return self._advance(epoch, most, where)
        if serving:
            self.callbacks.on_train_batch_end(epoch.taken - 1, self._batch_logs(epoch))
        elif self._bar is not None:
            self._show(epoch)
        return chunk.rows

    def record(self) -> None:
        """Where a recording is on, begin a call of it; again if another training has ended it."""
        listener = patches.listener()
        if self.engine.full and listener is not None and listener.wants(self.model):
            self.call = listener.begin_loop(self.model, self.arguments, self.engine.tap)

    def end_call(self, failed: str | None) -> None:
        """End the recorded call, if there is one."""
        if self.call is not None:
            self.call.finish(failed=failed)

    def _go_on_recording(self, epoch: Epoch) -> None:
        if self.call is not None and (not self.call.open or self.engine.tap.position is None):
            self.record()
            if self.call is not None:
                self.call.begin_epoch(epoch.number, epoch.taken)

    def _taken(self, form: str | None, count: int, most: int | None) -> Chunk | None:
        """The next batches; they are read ahead where nothing else can be called meanwhile."""
        # What runs between two steps, or within them, may draw from the data's random streams.
        alone = self._each or self.engine.eager or self.wanted in SINGLE
        return self.source.take(
            count, ahead=1 if alone else most, stacked=not (alone or form in SINGLE)
        )

    def _prepared(self, chunk: Chunk) -> Any:
        """The key of a chunk's shape; asked for once for batches of the same arrays."""
        arrays, rows, key = self._last
        if chunk.order is None or arrays is not chunk.data or rows != chunk.rows:
            key = self.engine.prepare(chunk, partial=self.source.partial)
            self._last = (chunk.data, chunk.rows, key)
        return key

    def _limit(self, form: str | None, window: Window | None, most: int | None) -> int:
        if form is None or self._each or self._graph_due:
            return 1
        assert self.planner is not None
        space = self.engine.capacity if window is None else window.capacity - window.filled
        return min(self.planner.steps(form), space, space if most is None else most)

    def _run(
        self, epoch: Epoch, form: Any, key: Any, chunk: Chunk, window: Window, *, timed: bool
    ) -> None:
        planner = self.planner
        assert planner is not None
        several = chunk.count > 1 or form in SINGLE
        timed = timed and planner.timing(form) and (several or form not in planner.compiling)
        self._go_on_recording(epoch)
        if timed:
            self._wait(0)
        began = time.perf_counter()
        filled = window.filled
        try:
            epoch.last = self.engine.run(form, key, chunk, window)
        finally:
            epoch.taken += window.filled - filled
        self._under_way.append(epoch.last)
        if timed:
            self._wait(0)
            planner.took(form, chunk.count, time.perf_counter() - began)
        else:
            self._wait(planner.pending(form, chunk.count))
        if self.engine.fails(form):
            planner.leave(form)

    def _wait(self, most: int) -> None:
        """Wait until no more than so many calls are under way."""
        while len(self._under_way) > most:
            self.engine.wait(self._under_way.popleft())

    def _shrinks(self, error: Exception, chunk: Chunk) -> bool:
        """Whether the chunk may be tried again with less on the device."""
        whole = chunk.order is not None and data.is_of_memory(error) and self.engine.intact()
        if whole:
            data.warn_of_memory(error)
            self.source = data.smaller(self.source, chunk)
            self.planner = self._key = None
        return whole

    def _plan_for(self, key: Any, chunk: Chunk) -> Planner:
        forms = self.engine.forms(key, chunk)
        place = (key, forms, self.wanted)
        if place not in self.engine.plans:
            self.engine.plans[place] = Planner(
                forms, self.engine.overhead, self.engine.floors(), self.wanted
            )
        return self.engine.plans[place]

    def _form_of(self, epoch: Epoch, key: Any, chunk: Chunk) -> str:
        """The form for a shape of batch: what the plan is about is the first of a chunk met."""
        if self._key is not None and (chunk.order is None or self._chunked):
            return self._other_form(key, chunk)
        self._key, self._chunked = key, chunk.order is not None
        self.planner = self._plan_for(key, chunk)
        return self.planner.choose(self._left(epoch))

    def _other_form(self, key: Any, chunk: Chunk) -> str:
        """The form for batches of another size: few, so the one that costs least to compile."""
        forms = self.engine.forms(key, chunk)
        return "step" if "step" in forms else forms[0]

    def _check_engine(self, chunk: Chunk) -> None:
        """Where the user has compiled the model anew, begin anew."""
        if not self.engine.fits():
            direct = chunk.order is None
            batches.build(
                self.model, chunk.data if direct else self.engine.pick(chunk, chunk.start)
            )
            self.engine = self.engine.renewed()
            self.source.engine = self.engine
            self.planner = self._key = None
            self._last = (None, 0, None)

    def _window(self, epoch: Epoch) -> Window | None:
        """The epoch's window with space left, if there is one."""
        last = epoch.windows[-1] if epoch.windows else None
        return None if last is None or last.full else last

    def _new_window(self, epoch: Epoch) -> Window:
        epoch.windows.append(self.engine.new_window())
        return epoch.windows[-1]

    def _left(self, epoch: Epoch) -> int:
        steps = self.source.steps or max(self._known, epoch.taken)
        return steps * (self.epochs - epoch.number) - epoch.taken

    def on_batch(self, epoch: Epoch, x: Any, y: Any, sample_weight: Any) -> int:
        """Train one step on a batch of the user's; returns its rows."""
        batch = keras.utils.pack_x_y_sample_weight(x, y, sample_weight)
        chunk = self.engine.batch(batch)
        with Where(epoch):
            self._check_engine(chunk)
            key = self.engine.prepare(chunk, partial=True)
            form = self._other_form(key, chunk)
            if self.planner is None:
                self.planner = Planner((form,), self.engine.overhead, {}, form)
            window = self._window(epoch) or self._new_window(epoch)
            self._run(epoch, form, key, chunk, window, timed=False)
        return chunk.rows

    def skip(self, steps: int) -> int:
        """Take batches and leave them; returns how many."""
        skipped = 0
        while skipped < steps:
            chunk = self.source.take(steps - skipped)
            if chunk is None:
                break
            skipped += chunk.count
        return skipped

    def end_epoch(self, epoch: Epoch) -> dict[str, Any]:
        """End an epoch, as `fit` does; returns its logs."""
        self.source.end()
        self._known = epoch.taken
        logs = self.engine.results(epoch.last if epoch.last is not None else {})
        self.engine.end_epoch()
        for window in epoch.windows:
            window.close()
        if self.validation and self.model._should_eval(epoch.number, self.validation["freq"]):
            logs |= {f"val_{name}": value for name, value in self._evaluate().items()}
        self.logs = logs
        self._waiting.append((epoch.number, logs))
        # History alone may hear of an epoch when its calls have ended: to read it is to wait.
        self.tell(len(self._under_way) if self._may_wait and self.ahead else 0)
        return logs

    def check_going(self) -> None:
        """Raise a `LossLedgerError` where the loop has ended."""
        if self.over:
            raise LossLedgerError(
                "This loop has ended, and its epochs train no more: a loop ends with its last "
                "epoch, with `stop`, and where its `for` is left. Received: a step of one of its "
                "epochs. Make a new Loop, with `initial_epoch` to go on counting.",
                slug="loop-over",
            )

    def tell(self, waiting: int = 0) -> None:
        """Tell the callbacks of the epochs that have ended, but for the last few."""
        while len(self._waiting) > waiting:
            self.callbacks.on_epoch_end(*self._waiting.pop(0))

    def _evaluate(self) -> dict[str, Any]:
        arguments = dict(self.validation["arguments"])
        steps = arguments.pop("steps")
        model = self.model
        if getattr(model, "_eval_epoch_iterator", None) is None:
            model._eval_epoch_iterator = batches.epoch_iterator(
                model,
                **arguments,
                steps_per_execution=model.steps_per_execution,
                steps_per_epoch=steps,
                shuffle=False,
            )
        return model.evaluate(
            **arguments,
            steps=steps,
            callbacks=self.callbacks,
            return_dict=True,
            _use_cached_eval_dataset=True,
        )

    def _batch_logs(self, epoch: Epoch) -> dict[str, Any]:
        """A batch's logs as `fit` gives them, and beside the running means its own raw loss."""
        logs = dict(epoch.last or {})
        if "loss" in self.engine.tap.buffer.columns:
            logs["raw_loss"] = float(epoch.column("loss", epoch.taken - 1)[0])
        return logs

    def _show(self, epoch: Epoch) -> None:
        now = time.monotonic()
        if self._bar is not None and now - self._shown >= SHOW:
            self._shown = now
            logs = {name: scalar(value) for name, value in self._batch_logs(epoch).items()}
            self._bar.on_train_batch_end(epoch.taken - 1, logs)


def warn_of_caps(epochs: int) -> int:
    """The epochs to train, under Keras's cap for debugging runs."""
    most = getattr(keras.config, "max_epochs", lambda: None)()
    if most and most < epochs:
        warnings.warn(f"Limiting epochs to {most}", stacklevel=4)
        return most
    return epochs
