"""An engine: the compiled forms of one model's training step. A subclass per backend.

The forms differ in how many steps one call to the device makes, never in what a step computes: it
is always the model's own `train_step`.
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np

from lossledger.errors import LossLedgerError
from lossledger.keras import patches
from lossledger.keras.tap import Tap
from lossledger.loop.chunk import CAPACITY, Chunk, Window
from lossledger.loop.interrupt import Whole
from lossledger.loop.plan import SINGLE

PLACE = "_lossledger_loop"
"""Where a model keeps its engine, so that a later loop need not compile it again."""


class _Holder:
    """Holds a model's engine; a copy or a pickle of the model has none."""

    def __init__(self, engine: "Engine | None" = None) -> None:
        self.engine = engine

    def __deepcopy__(self, memo: Any) -> "_Holder":
        return _Holder()

    def __reduce__(self) -> tuple[Any, ...]:
        return _Holder, ()


class Engine:
    """The compiled forms of one model's training step.

    Args:
        model: A compiled and, where its backend wants that, built model.
        full: Whether the rows hold all of an entry, or only what the loss needs.
    """

    order_dtype = "i4"
    """Type of the numbers of rows."""

    overhead = 1e-4
    """Seconds that a call to the device costs beside its steps, about."""

    hashes_apart = False
    """Whether steps leave batches' fingerprints to the host, where it has the rows' hashes."""

    eager = False
    """Whether Keras's methods must stay replaced while steps run, not only while they compile."""

    def __init__(self, model: Any, full: bool) -> None:
        self.model = model
        self.full = full
        self.parts = _parts(model)
        self.plans: dict[Any, Any] = {}
        self.capacity = CAPACITY
        self.tap: Any = self.make_tap()
        self._steps: dict[Any, Any] = {}
        self._means = False
        self._pristine: Any = None
        self._noting: list[Any] = []

    @classmethod
    def of(cls, model: Any, full: bool) -> "Engine":
        """The model's engine: the one it has, if the model has not been compiled anew."""
        place = model.__dict__.get(PLACE) or _Holder()
        engine = place.engine
        if engine is None or engine.full != full or not engine.fits():
            engine = place.engine = cls(model, full)
            model.__dict__[PLACE] = place
        return engine

    def fits(self) -> bool:
        """Whether the model is still the one that was compiled."""
        return _parts(self.model) == self.parts

    # What a backend provides

    def make_tap(self) -> Tap[Any]:
        """The tap that chooses what a step's row holds."""
        raise NotImplementedError

    def put(self, data: Any) -> Any:
        """A structure of arrays, copied to the device."""
        raise NotImplementedError

    def host(self, leaf: Any) -> np.ndarray | None:
        """One of a batch's arrays on the host; `None` where it can't be put beside another."""
        plain = isinstance(leaf, np.ndarray) and leaf.dtype.kind in "fiub"
        return leaf if plain else None

    def put_order(self, order: np.ndarray) -> Any:
        """Numbers of rows, int32 of shape `(batches, rows)`, on the device."""
        raise NotImplementedError

    def know(self, iterator: Any) -> None:
        """Take from Keras's iterator, or `None`, what it knows beforehand of the batches."""

    def prepare(self, chunk: Chunk, *, partial: bool) -> Any:
        """Trace the step for this shape of batch; returns a key of the shape.

        Args:
            chunk: Batches of the shape.
            partial: Whether batches of another number of rows will follow.
        """
        raise NotImplementedError

    def forms(self, key: Any, chunk: Chunk) -> tuple[str, ...]:
        """The forms that this shape can be trained in, the likeliest to be fastest first."""
        raise NotImplementedError

    def fails(self, form: str) -> bool:
        """Whether a form has turned out not to be one for this model."""
        return False

    def floors(self) -> dict[str, float]:
        """Seconds that a step takes in a form at least, about."""
        return {"step": 2 * self.overhead}

    def new_window(self) -> Window:
        """An empty window; a step has been traced before."""
        raise NotImplementedError

    def many(self, form: str, key: Any, chunk: Chunk, window: Window) -> Any:
        """Train on all of the chunk's batches in one call; returns the last step's logs."""
        raise NotImplementedError

    def one(self, form: str, key: Any, batch: Any, window: Window) -> Any:
        """Train on one batch; returns its logs."""
        raise NotImplementedError

    def single(self, form: str, key: Any, chunk: Chunk, place: int, window: Window) -> Any:
        """Train on one batch of a chunk; returns its logs."""
        batch = chunk.data if chunk.order is None else self.pick(chunk, place)
        return self.one(form, key, batch, window)

    def pick(self, chunk: Chunk, place: int) -> Any:
        """One batch of a chunk."""
        raise NotImplementedError

    def array(self, window: Window) -> np.ndarray:
        """The rows of a window, float32 of shape `(filled, columns)`; waits for the device."""
        return np.array(np.asarray(window.values)[: window.filled])

    def wait(self, logs: Any) -> None:
        """Wait until the step that returned `logs` has run."""

    def entered(self) -> None:
        """Code that is none of a step's may have run since the last step."""

    def begin_epoch(self) -> None:
        """Before the first step of an epoch."""

    def end_epoch(self) -> None:
        """After the last step of an epoch."""

    def intact(self) -> bool:
        """Whether the model's variables are whole after a call that failed."""
        return True

    # What all share

    def batch(self, batch: Any) -> Chunk:
        """A chunk of one batch, as it came."""
        return Chunk(batch, None, 0, 1, rows_of(batch))

    def renewed(self) -> "Engine":
        """The engine of the model as it is compiled now."""
        self.close()
        new = self.of(self.model, self.full)
        new.open()
        return new

    def open(self) -> None:
        """The training begins."""
        if self.eager and not self._noting:
            self._noting.append(self.tracing())
            self._noting[0].__enter__()

    def close(self) -> None:
        """The training has ended."""
        if self._noting:
            self._noting.pop().__exit__(None, None, None)

    def run(self, form: str, key: Any, chunk: Chunk, window: Window) -> Any:
        """Train on a chunk's batches; returns the last step's logs.

        Args:
            form: One of `forms`.
            key: What `prepare` returned for batches of this shape.
            chunk: The batches.
            window: Where the rows go; it has space for them.
        """
        self.tap.hashing = chunk.hashes is None
        if form not in SINGLE:
            self.tap.begin(())
            with Whole(), self.tap.buffer.lock:
                logs = self.many(form, key, chunk, window)
                window.filled += chunk.count
                self.keep(window, chunk, chunk.start, chunk.count)
            return logs
        last = chunk.start + chunk.count - 1
        if chunk.count > 1:
            with self.unread(form):
                for place in range(chunk.start, last):
                    self._single(form, key, chunk, place, window)
        return self._single(form, key, chunk, last, window)

    def _single(self, form: str, key: Any, chunk: Chunk, place: int, window: Window) -> Any:
        self.tap.begin(())
        with Whole(), self.tap.buffer.lock:
            logs = self.single(form, key, chunk, place, window)
            window.filled += 1
            self.keep(window, chunk, place, 1)
        return logs

    def unread(self, form: str) -> contextlib.AbstractContextManager[Any]:
        """While steps run whose logs nobody reads."""
        return contextlib.nullcontext()

    def keep(self, window: Window, chunk: Chunk, start: int, count: int) -> None:
        """The last `count` rows of the window are new: the recorder's, if it records."""
        if self.tap.position is not None:
            self.tap.buffer.keep(window, chunk, start, count)

    @contextlib.contextmanager
    def tracing(self) -> Iterator[None]:
        """While a step is traced, Keras's methods note what passes through them."""
        with patches.noting():
            yield

    def column(self, window: np.ndarray, name: str) -> np.ndarray:
        """A column of fetched rows, float64; ones for a weight that is no column."""
        if name in self.tap.buffer.columns:
            return window[:, self.tap.buffer.columns.index(name)].astype("f8")
        if name == "loss":
            raise LossLedgerError(
                "The raw loss of a step can't be told: its train_step updates no loss metric and "
                f"returns none. Received: {type(self.model).__name__}. Return a `loss` from "
                "train_step, or update a `keras.metrics.Mean` named like one.",
                slug="no-loss-found",
            )
        if name == "weight":
            return np.ones(len(window))
        raise LossLedgerError(
            f"A loop has no such column. Received: {name!r}. It has `loss` and `weight`; a "
            "recorded run has all of an entry: `run.entries()`.",
            slug="no-column",
        )

    def reset_metrics(self) -> None:
        """Begin new running means, as `fit` does at an epoch's beginning."""
        self.model.reset_metrics()

    def results(self, logs: Any) -> dict[str, Any]:
        """What `fit` reports of an epoch whose last step returned `logs`."""
        if self._means and all(step.standard for step in self._steps.values()):
            return dict(logs)
        return dict(self.model._get_metrics_result_or_logs(logs))


def rows_of(batch: Any) -> int:
    """Rows of a batch: those of its first array."""
    leaf = next((leaf for leaf in keras.tree.flatten(batch) if leaf is not None), None)
    return int(leaf.shape[0]) if len(getattr(leaf, "shape", ())) else 0


def flat_metrics(model: Any) -> list[Any]:
    """The model's metrics, those given to `compile` one by one."""
    metrics: list[Any] = []
    for metric in model.metrics:
        inner = getattr(metric, "metrics", None)
        metrics.extend(inner if type(metric).__name__ == "CompileMetrics" else [metric])
    return metrics


def are_means(model: Any) -> bool:
    """Whether each metric's result is a plain division, the same wherever it is computed."""
    own = type(model).get_metrics_result is keras.Model.get_metrics_result
    mean = keras.metrics.Mean.result
    return own and all(type(metric).result is mean for metric in flat_metrics(model))


def reset_to_constants(model: Any) -> bool:
    """Whether resetting the metrics always puts the same values into their variables."""
    own = type(model).reset_metrics is keras.Model.reset_metrics
    modules = [type(metric).reset_state.__module__ for metric in flat_metrics(model)]
    return own and all(name.startswith("keras.") for name in modules)


def same_names(results: Mapping[str, Any], logs: Any) -> bool:
    """Whether a step's logs are its metrics' results; see `Trainer._get_metrics_result_or_logs`."""
    return isinstance(logs, dict) and set(logs) == set(results)


def _parts(model: Any) -> tuple[Any, ...]:
    """What a compiled step depends on: `compile` makes all of it anew."""
    return (
        model.__dict__.get("train_step"),
        type(model).train_step,
        getattr(model, "optimizer", None),
        getattr(model, "_loss_tracker", None),
        getattr(model, "_compile_loss", None),
        getattr(model, "_compile_metrics", None),
        model.run_eagerly,
        model.jit_compile,
    )
