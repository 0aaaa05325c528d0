"""Training steps on TensorFlow: one traced step, called once a batch or in a loop of a graph."""

from collections.abc import Callable
from functools import partial as bind
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from keras import tree
from tensorflow.compiler.tf2xla.python import xla

from lossledger.keras.tensorflow import TensorFlowTap
from lossledger.loop import engine as base
from lossledger.loop.batches import distributed
from lossledger.loop.chunk import Chunk, Window
from lossledger.loop.window import WindowBuffer


class TensorFlowLoopTap(TensorFlowTap):
    """Rows as results of the traced step, fingerprints and all."""

    def row(self, selection: Any, trace: Any, *context: Any) -> Any:
        """See base class."""
        return self.hashed(selection, trace, *context)


class _Step(NamedTuple):
    """A traced step, and what its graph holds.

    Args:
        call: `batch -> (logs, row)`: the step, traced with the shapes that `fit` knows beforehand.
            Where it knows a batch's rows, TensorFlow divides by them otherwise.
        logs: The step's logs, as traced.
        spec: What it was traced with.
        convolves: Whether there is a convolution.
        draws: Whether there are random numbers.
        standard: Whether the logs are the metrics' results.
    """

    call: Callable[[Any], Any]
    logs: Any
    spec: Any
    convolves: bool
    draws: bool
    standard: bool


class TensorFlowEngine(base.Engine):
    """See `lossledger.loop.engine.Engine`."""

    overhead = 5e-4
    hashes_apart = True

    def __init__(self, model: Any, full: bool) -> None:
        super().__init__(model, full)
        self.eager = bool(model.run_eagerly)
        self.spec: Any = None
        self._traced_with: dict[str, _Step] = {}
        self._programs: dict[Any, Callable[..., Any]] = {}
        self._blank: Any = None

    def make_tap(self) -> TensorFlowLoopTap:
        """See base class."""
        tap = TensorFlowLoopTap(self.model, WindowBuffer(tf.identity))
        tap.full = self.full
        return tap

    def put(self, data: Any) -> Any:
        """See base class."""
        return tf.nest.map_structure(lambda leaf: None if leaf is None else tf.constant(leaf), data)

    def host(self, leaf: Any) -> np.ndarray | None:
        """See base class."""
        eager = isinstance(leaf, tf.Tensor) and leaf.dtype.is_numpy_compatible
        return super().host(leaf.numpy() if eager else leaf)

    def put_order(self, order: np.ndarray) -> Any:
        """See base class."""
        return tf.constant(order)

    def know(self, iterator: Any) -> None:
        """See base class."""
        spec = getattr(getattr(iterator, "_distributed_dataset", None), "element_spec", None)
        self.spec = tree.map_structure(_plain, spec)

    def batch(self, batch: Any) -> Chunk:
        """See base class."""
        batch = tree.map_structure(_plain, batch)
        return Chunk(batch, None, 0, 1, base.rows_of(batch))

    def prepare(self, chunk: Chunk, *, partial: bool) -> Any:
        """See base class; the shapes known beforehand are those that `fit` knows."""
        direct = chunk.order is None
        rows = None if partial else chunk.rows
        spec = self.spec
        if spec is None or not _of(spec, chunk):
            spec = tf.nest.map_structure(lambda leaf: _spec(leaf, rows), chunk.data)
        of = (str(spec), chunk.hashes is None)
        key = (*of, direct, chunk.rows)
        if key not in self._steps and not self.eager:
            traced = self._traced_with.get(of)
            if traced is None:
                self.tap.hashing = chunk.hashes is None
                traced = self._traced_with[of] = self._traced(spec)
                self._means = base.are_means(self.model) and not distributed(self.model)
            self._steps[key] = traced
        return key

    def _traced(self, spec: Any) -> _Step:
        model, optimizer = self.model, self.model.optimizer
        if optimizer is not None and not optimizer.built and model.built:
            # TensorFlow traces a function twice that makes variables the first time.
            optimizer.build(model.trainable_variables)

        @tf.autograph.experimental.do_not_convert
        def step(data: Any) -> Any:
            logs, row = self.trained(data)
            return logs, tf.zeros(0) if row is None else row

        with self.tracing():
            function = tf.function(step, jit_compile=True if model.jit_compile else None)
            call = function.get_concrete_function(spec)
        logs, _ = call.structured_outputs
        kinds = _operations(call.graph)
        return _Step(
            call,
            logs,
            spec,
            any("Conv" in kind for kind in kinds),
            any("Random" in kind for kind in kinds),
            base.same_names(model.get_metrics_result(), logs),
        )

    @tf.autograph.experimental.do_not_convert
    def trained(self, data: Any) -> tuple[Any, Any]:
        """Train on a batch under the model's strategy: the step's logs, and its row or `None`."""
        return self.model.distribute_strategy.run(self.tap.traced, (self.model.train_step, data))

    def _program(self, form: str, key: Any, *arguments: Any) -> Callable[..., Any]:
        """The compiled form, traced with no more known of a batch than the step was."""
        place = (form, key)
        if place not in self._programs:
            step = self._steps[key]
            window, data, *rest = tf.nest.map_structure(tf.type_spec_from_value, arguments)
            if form == "step":
                function, specs = _one, (window, step.spec, *rest)
            else:
                order, span = rest
                known = next(leaf for leaf in tf.nest.flatten(step.spec)).shape[0]
                order = tf.TensorSpec((None, known), order.dtype)
                write = _written_by_xla if form == "xla" else _written
                function, specs = bind(_many, write), (window, data, order, span)
            results = self.model.get_metrics_result if step.standard else None

            @tf.autograph.experimental.do_not_convert
            def program(*given: Any) -> Any:
                return function(step, results, *given)

            compiled = tf.function(program, jit_compile=True if form == "xla" else None)
            self._programs[place] = _lean(compiled.get_concrete_function(*specs))
        return self._programs[place]

    def forms(self, key: Any, chunk: Chunk) -> tuple[str, ...]:
        """See base class."""
        if self.eager:
            return ("eager",)
        step = self._steps[key]
        if chunk.order is None:
            return ("step",)
        cpu = not tf.config.list_logical_devices("GPU")
        # XLA runs a convolution inside a loop on one thread, on a CPU.
        slow = step.convolves and cpu
        if self.model.jit_compile:
            return ("loop", "xla") if slow else ("xla", "loop")
        # XLA draws other random numbers than TensorFlow does from the same seed.
        return ("loop",) if slow or step.draws else ("loop", "xla")

    def floors(self) -> dict[str, float]:
        """See base class; a graph takes time for each operation, and more to enter XLA's code."""
        return {**super().floors(), "loop": 1e-4 if self.model.jit_compile else 5e-5}

    def reset_metrics(self) -> None:
        """See base class; without what Keras's `assign` takes beside the assignment."""
        if self._pristine is None:
            self.model.reset_metrics()
            plain = base.reset_to_constants(self.model) and not distributed(self.model)
            if plain and self._steps:
                variables = [v.value for v in self.model.metrics_variables]
                self._pristine = [(v.handle, v.read_value()) for v in variables]
        else:
            for handle, value in self._pristine:
                tf.raw_ops.AssignVariableOp(resource=handle, value=value)

    def new_window(self) -> Window:
        """See base class; nothing is written in place, so that all begin as the same zeros."""
        width = len(self.tap.buffer.columns)
        if self._blank is None or self._blank.shape[1] != width:
            self._blank = tf.zeros((self.capacity, width))
        return Window(self._blank, self.capacity)

    def many(self, form: str, key: Any, chunk: Chunk, window: Window) -> Any:
        """See base class."""
        span = tf.constant(np.array([chunk.start, chunk.count, window.filled], "i4"))
        given = (window.values, chunk.data, chunk.order, span)
        window.values, logs = self._program(form, key, *given)(*given)
        return logs

    def one(self, form: str, key: Any, batch: Any, window: Window) -> Any:
        """See base class."""
        if form == "eager":
            logs, row = self.trained(batch)
            if row is not None:
                blank = self.new_window().values
                values = blank if window.filled == 0 else window.values
                window.values = _written(values, row, window.filled)
            return logs
        given = (window.values, batch, tf.constant(window.filled))
        window.values, logs = self._program(form, key, *given)(*given)
        return logs

    def pick(self, chunk: Chunk, place: int) -> Any:
        """See base class."""
        return _gathered(chunk.data, chunk.order[place])


def _lean(function: Any) -> Callable[..., Any]:
    """A traced function, called without fitting its arguments to its signature each time.

    That takes a tenth of a small model's epoch. `ConcreteFunction.__call__` does the rest.
    """
    captured = function.captured_inputs
    own = len(function.inputs) - len(captured)

    def call(*given: Any) -> Any:
        leaves = [leaf for leaf in tf.nest.flatten(given) if leaf is not None]
        plain = len(leaves) == own and all(isinstance(leaf, tf.Tensor) for leaf in leaves)
        return function._call_flat(leaves, captured) if plain else function(*given)

    return call if hasattr(function, "_call_flat") else function


def _one(step: _Step, _: Any, window: Any, batch: Any, place: Any) -> tuple[Any, Any]:
    logs, row = step.call(batch)
    return _written(window, row, place), logs


def _many(
    write: Any, step: _Step, results: Any, window: Any, data: Any, order: Any, span: Any
) -> tuple[Any, Any]:
    """A loop of steps in the graph; how many is an argument.

    Args:
        write: How a row is written into the window.
        step: The step.
        results: Gives the metrics' results, where the logs are nothing else.
        window: Where the rows go.
        data: All rows.
        order: Numbers of rows, int32 of shape `(batches, rows)`.
        span: First batch, number of batches, and place of the first row in the window.
    """
    start, count, place = tf.unstack(span)

    def body(done: Any, window: Any, _: Any) -> Any:
        # By a slice instead of `gather`, XLA would compile anew for each place in the order.
        logs, row = step.call(_gathered(data, tf.gather(order, start + done)))
        return done + 1, write(window, row, place + done), () if results else logs

    last = tf.nest.map_structure(lambda each: tf.zeros(each.shape, each.dtype), step.logs)
    state = (tf.constant(0), window, () if results else last)
    _, window, last = tf.while_loop(lambda done, *_: done < count, body, state)
    return window, results() if results else last


def _written(window: Any, row: Any, place: Any) -> Any:
    return tf.tensor_scatter_nd_update(window, [[place]], [row])


def _written_by_xla(window: Any, row: Any, place: Any) -> Any:
    # XLA's scatter, which the other way becomes, costs more than a small model's whole step.
    return xla.dynamic_update_slice(window, row[None], tf.stack([place, 0]))


def _gathered(data: Any, numbers: Any) -> Any:
    return tf.nest.map_structure(
        lambda leaf: None if leaf is None else tf.gather(leaf, numbers), data
    )


def _spec(leaf: Any, rows: int | None) -> Any:
    if not hasattr(leaf, "shape"):
        return leaf
    return tf.TensorSpec((rows, *leaf.shape[1:]), leaf.dtype)


def _of(spec: Any, chunk: Chunk) -> bool:
    """Whether a chunk's batches are of the types that `spec` has."""
    found = tf.nest.map_structure(lambda leaf: _spec(leaf, chunk.rows), chunk.data)
    try:
        tf.nest.assert_same_structure(spec, found)
    except (TypeError, ValueError):
        return False
    pairs = zip(tf.nest.flatten(spec), tf.nest.flatten(found), strict=True)
    return all(a is b or (a is not None and a.is_compatible_with(b)) for a, b in pairs)


def _plain(leaf: Any) -> Any:
    return None if isinstance(leaf, tf.experimental.Optional | tf.OptionalSpec) else leaf


def _operations(graph: Any) -> set[str]:
    """The kinds of operations of a graph, those of its inner functions too."""
    definition = graph.as_graph_def()
    nodes = [definition.node, *(function.node_def for function in definition.library.function)]
    return {node.op for each in nodes for node in each}
