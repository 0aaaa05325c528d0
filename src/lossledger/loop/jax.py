"""Training steps on JAX: one `jit` call a step, or a loop of a step traced once.

The step is traced to a jaxpr, which the forms share: Keras's Python code runs once, and the
compiled programs hold no reference to the model.
"""

import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from itertools import chain, repeat
from operator import attrgetter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import jaxpr_as_fun
from keras import StatelessScope
from keras.backend import standardize_dtype
from keras.initializers import Zeros
from keras.src.backend.jax.trainer import _distribute_data

from lossledger.errors import LossLedgerError
from lossledger.keras.jax import JaxTap, everywhere, local
from lossledger.loop import engine as base
from lossledger.loop.chunk import Chunk, Window
from lossledger.loop.window import WindowBuffer

_value = attrgetter("_value")
_trainable = attrgetter("trainable")


SMALL = 2**16
"""Bytes of an epoch's order that stay on the host."""


class _Step(NamedTuple):
    """A traced step and its programs.

    Args:
        programs: By form, and a step that picks its batch. They take the variables that move
            (donated), the metrics' variables, the window (donated), the batches, and where the
            window is written to.
        loops: Whether a step's state has the type of the state before it.
        convolves: Whether the step has a convolution.
        standard: Whether its logs are its metrics' results.
    """

    programs: dict[str, Callable[..., Any]]
    loops: bool
    convolves: bool
    standard: bool


class JaxEngine(base.Engine):
    """See `lossledger.loop.engine.Engine`."""

    hashes_apart = True

    def __init__(self, model: Any, full: bool) -> None:
        super().__init__(model, full)
        self.eager = model.run_eagerly or not model.jit_compile
        self._pick = jax.jit(_batch)
        self._find_variables()

    def _find_variables(self) -> None:
        model = self.model
        optimizer = [] if model.optimizer is None else model.optimizer.variables
        self._moving = [model.trainable_variables, model.non_trainable_variables, optimizer]
        self._measuring = model.metrics_variables
        self._variables = [*chain(*self._moving), *self._measuring]
        self._weights = [*self._moving[0], *self._moving[1]]
        self._trained = list(map(_trainable, self._weights))

    def fits(self) -> bool:
        """See base class.

        Raises:
            LossLedgerError: If other weights are trainable, and the model is not compiled anew.
        """
        same = super().fits()
        if same and list(map(_trainable, self._weights)) != self._trained:
            changed = [
                v.path
                for v, was in zip(self._weights, self._trained, strict=True)
                if v.trainable != was
            ]
            raise LossLedgerError(
                "`trainable` was changed after the step was compiled, which on JAX trains the "
                f"weights that it was compiled for. Received: {', '.join(changed[:3])}"
                f"{', ...' if len(changed) > 3 else ''}. Call `model.compile` with a new optimizer "
                "after the change.",
                slug="trainable-changed",
            )
        return same

    def make_tap(self) -> JaxTap:
        """See base class."""
        buffer = WindowBuffer(
            lambda values: jnp.copy(local(values)), lambda values: np.asarray(local(values))
        )
        tap = JaxTap(self.model, buffer)
        tap.full = self.full
        return tap

    def put(self, data: Any) -> Any:
        """See base class."""
        # Copied by NumPy: the device may read on in an array where that is aligned, whatever
        # `may_alias` says; and `jnp.array` compiles a copy of each shape.
        own = jax.tree.map(
            lambda leaf: leaf if isinstance(leaf, jax.Array) else np.array(leaf), data
        )
        return jax.device_put(own)

    def host(self, leaf: Any) -> np.ndarray | None:
        """See base class."""
        return super().host(np.asarray(leaf) if isinstance(leaf, jax.Array) else leaf)

    def batch(self, batch: Any) -> Chunk:
        """See base class; distributed as Keras distributes a batch."""
        if everywhere() is not None:
            leaves = [leaf for leaf in jax.tree.leaves(batch) if hasattr(leaf, "shape")]
            if not all(_is_distributed(leaf) for leaf in leaves):
                batch = _distribute_data(batch)
        return super().batch(batch)

    def put_order(self, order: np.ndarray) -> Any:
        """See base class; each call puts a small one there, which takes less than doing so here."""
        return order if order.nbytes <= SMALL else jax.device_put(order)

    def prepare(self, chunk: Chunk, *, partial: bool) -> Any:
        """See base class."""
        rows = None if chunk.order is None else chunk.rows
        leaves, structure = jax.tree.flatten(chunk.data)
        shapes = tuple((_shape(leaf, rows), str(leaf.dtype)) for leaf in leaves)
        shape = (structure, shapes, chunk.hashes is None)
        if shape not in self._steps and not self.eager:
            self.tap.hashing = chunk.hashes is None
            batch = jax.tree.map(lambda leaf: _abstract(leaf, rows), chunk.data)
            self._steps[shape] = self._traced(batch)
            self._means = base.are_means(self.model)
        return (*shape, chunk.order is None)

    def _traced(self, batch: Any) -> _Step:
        moving = [[_abstract(v._value) for v in each] for each in self._moving]
        measuring = [_abstract(variable._value) for variable in self._measuring]
        _note_shardings(self.model)
        with self.tracing():
            step = self.tap.wrap_step(self.model.train_step)
            step, closed, shapes = _closed(step, (*moving, measuring), batch)
        (logs, _), after = shapes
        results, _, named = _closed(self._results, measuring)
        standard = base.same_names(named, logs)

        def one(state: Any, data: Any) -> Any:
            (logs, row), new = step(state, data)
            new = jax.tree.map(lambda a, like: a.astype(like.dtype), new, (*moving, measuring))
            return (logs, jnp.zeros(0) if row is None else row), new

        before = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), (*moving, measuring))
        return _Step(
            {
                "step": jax.jit(
                    _one_step(step), donate_argnums=(0, 2), out_shardings=self._shardings()
                ),
                "picked": jax.jit(_one_picked(step), donate_argnums=(0, 2)),
                "loop": jax.jit(
                    _many_steps(one, logs, results if standard else None), donate_argnums=(0, 2)
                ),
            },
            before == jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tuple(after)),
            _convolves(closed.jaxpr),
            standard,
        )

    def _shardings(self) -> Any:
        """Where a step leaves its state, as Keras tells `jit`; the window is on all devices."""
        whole = everywhere()
        if whole is None:
            return None
        lies = attrgetter("_value.sharding")
        moving = [list(map(lies, each)) for each in self._moving]
        return moving, list(map(lies, self._measuring)), whole, None

    def _results(self, measuring: Any) -> Any:
        mapping = list(zip(self._measuring, measuring, strict=True))
        with StatelessScope(state_mapping=mapping):
            return self.model.get_metrics_result()

    def forms(self, key: Any, chunk: Chunk) -> tuple[str, ...]:
        """See base class."""
        if self.eager:
            return ("eager",)
        step = self._steps[key[:3]]
        if chunk.order is None or not step.loops:
            return ("step",)
        # XLA runs a convolution inside a loop on one thread, on a CPU.
        slow = step.convolves and jax.default_backend() == "cpu"
        return ("step", "loop") if slow else ("loop", "step")

    def new_window(self) -> Window:
        """See base class."""
        shape = (self.capacity, len(self.tap.buffer.columns))
        return Window(np.zeros(shape, "f4"), self.capacity)

    def many(self, form: str, key: Any, chunk: Chunk, window: Window) -> Any:
        """See base class."""
        span = np.array([chunk.start, chunk.count, window.filled], "i4")
        program = self._steps[key[:3]].programs[form]
        return self._call(program, window, chunk.data, chunk.order, span)

    def one(self, form: str, key: Any, batch: Any, window: Window) -> Any:
        """See base class."""
        if form == "eager":
            return self._eagerly(batch, window)
        program = self._steps[key[:3]].programs[form]
        return self._call(program, window, batch, np.int32(window.filled))

    def single(self, form: str, key: Any, chunk: Chunk, place: int, window: Window) -> Any:
        """See base class; the batch is picked by the call that trains on it."""
        if form == "eager" or chunk.order is None:
            return super().single(form, key, chunk, place, window)
        order = chunk.order
        if isinstance(order, np.ndarray):
            order, place = order[place : place + 1], 0
        span = np.array([place, window.filled], "i4")
        return self._call(self._steps[key[:3]].programs["picked"], window, chunk.data, order, span)

    def pick(self, chunk: Chunk, place: int) -> Any:
        """See base class."""
        return self._pick(chunk.data, chunk.order[place])

    def intact(self) -> bool:
        """See base class; a call that has begun to run has taken them."""
        values = map(_value, self._variables)
        return not any(value.is_deleted() for value in values if isinstance(value, jax.Array))

    def _call(self, program: Any, window: Window, *arguments: Any) -> Any:
        moving = [list(map(_value, each)) for each in self._moving]
        measuring = list(map(_value, self._measuring))
        given = (moving, measuring, window.values, *arguments)
        moved, measured, window.values, logs = program(*given)
        deque(map(setattr, self._variables, repeat("_value"), chain(*moved, measured)), maxlen=0)
        return logs

    def _eagerly(self, batch: Any, window: Window) -> Any:
        state = tuple([list(map(_value, each)) for each in (*self._moving, self._measuring)])
        _note_shardings(self.model)
        step = self.tap.wrap_step(self.model.train_step)
        (logs, row), state = step(state, batch)
        deque(map(setattr, self._variables, repeat("_value"), chain(*state)), maxlen=0)
        if window.values.shape[1] != len(self.tap.buffer.columns):
            window.values = self.new_window().values
        if row is not None:
            window.values = jnp.asarray(window.values).at[window.filled].set(row)
        return logs

    def reset_metrics(self) -> None:
        """See base class; the variables are given the very arrays they had when last reset."""
        if self._pristine is None:
            self.model.reset_metrics()
            if base.reset_to_constants(self.model):
                self._pristine = list(map(_value, self._measuring))
        else:
            deque(map(setattr, self._measuring, repeat("_value"), self._pristine), maxlen=0)

    def wait(self, logs: Any) -> None:
        """See base class."""
        jax.block_until_ready(logs)


def _note_shardings(model: Any) -> None:
    """Keras to 3.11 holds a step's results where `fit` noted that the state lies."""
    note = getattr(model, "_record_training_state_sharding_spec", None)
    if note is not None:
        note()


def _is_distributed(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and isinstance(leaf.sharding, jax.sharding.NamedSharding)


def _shape(leaf: Any, rows: int | None) -> tuple[int, ...]:
    return tuple(leaf.shape) if rows is None else (rows, *leaf.shape[1:])


def _abstract(leaf: Any, rows: int | None = None) -> jax.ShapeDtypeStruct:
    dtype = jax.dtypes.canonicalize_dtype(leaf.dtype)
    return jax.ShapeDtypeStruct(_shape(leaf, rows), dtype)


def _closed(function: Any, *arguments: Any) -> tuple[Callable[..., Any], Any, Any]:
    """A function traced: one that repeats its operations, its jaxpr, and what it returns."""
    # A `jit` of its own: its operations are not gone through again wherever it is used.
    closed, shapes = jax.make_jaxpr(jax.jit(function), return_shape=True)(*arguments)
    structure = jax.tree.structure(shapes)
    flat = jaxpr_as_fun(closed)

    def traced(*given: Any) -> Any:
        return jax.tree.unflatten(structure, flat(*jax.tree.leaves(given)))

    return traced, closed, shapes


def _batch(data: Any, order: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.at[order].get(mode="promise_in_bounds"), data)


def _one_step(step: Any) -> Callable[..., Any]:
    def program(moving: Any, measuring: Any, window: Any, batch: Any, place: Any) -> Any:
        (logs, row), (*moving, measuring) = step((*moving, measuring), batch)
        window = window if row is None else window.at[place].set(row)
        return moving, measuring, window, logs

    return program


def _one_picked(step: Any) -> Callable[..., Any]:
    one = _one_step(step)

    def program(moving: Any, measuring: Any, window: Any, data: Any, order: Any, span: Any) -> Any:
        numbers = jax.lax.dynamic_index_in_dim(order, span[0], keepdims=False)
        return one(moving, measuring, window, _batch(data, numbers), span[1])

    return program


def _many_steps(step: Any, logs: Any, results: Any) -> Callable[..., Any]:
    """A loop whose length is an argument: one program runs an epoch, a part of it, or a step.

    Args:
        step: `(state, batch) -> ((logs, row), state)`.
        logs: The types of the logs.
        results: The metrics' results from their variables, where the logs are nothing else.
    """

    def program(
        moving: Any, measuring: Any, window: Any, data: Any, order: Any, span: Any
    ) -> tuple[Any, ...]:
        start, count, place = span

        def body(carried: Any) -> Any:
            done, state, window, _ = carried
            index = jax.lax.dynamic_index_in_dim(order, start + done, keepdims=False)
            (logs, row), state = step(state, _batch(data, index))
            window = jax.lax.dynamic_update_index_in_dim(window, row, place + done, 0)
            return done + 1, state, window, logs if results is None else ()

        last = () if results is not None else jax.tree.map(_zeros, logs)
        carried = (jnp.int32(0), (*moving, measuring), window, last)
        carried = jax.lax.while_loop(lambda carried: carried[0] < count, body, carried)
        _, (*moving, measuring), window, last = carried
        return moving, measuring, window, results(measuring) if results is not None else last

    return program


@contextlib.contextmanager
def zeros_put() -> Iterator[None]:
    """Keras's zeros are put on the device meanwhile: made there, XLA compiles each shape."""

    def zeros(self: Any, shape: Any, dtype: Any = None) -> Any:
        # `jnp.asarray` would compile each shape as well.
        return jax.device_put(np.zeros(shape, standardize_dtype(dtype)))

    own = Zeros.__call__
    Zeros.__call__ = zeros
    try:
        yield
    finally:
        Zeros.__call__ = own


def _zeros(like: Any) -> Any:
    return jnp.zeros(like.shape, like.dtype)


def _convolves(jaxpr: Any) -> bool:
    """Whether there is a convolution among the operations, those of inner jaxprs too."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "conv_general_dilated":
            return True
        if any(_convolves(inner) for inner in _inner(equation.params.values())):
            return True
    return False


def _inner(values: Any) -> Any:
    for value in values:
        if isinstance(value, list | tuple):
            yield from _inner(value)
        else:
            value = getattr(value, "jaxpr", value)
            if hasattr(value, "eqns"):
                yield value
