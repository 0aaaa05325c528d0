"""The tap on TensorFlow: a ring of rows in a variable, written once a step inside the graph.

All operations are added after the user's `train_step` has been traced, so that nothing which
TensorFlow derives from an operation's place in the graph changes for the user's.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from keras import tree
from tensorflow.core.framework.attr_value_pb2 import AttrValue

from lossledger.keras import tap as base
from lossledger.keras.optimizer import Rate, applied, micro_steps, scaled
from lossledger.keras.trace import Trace, tracing

CAPACITY = 1024
"""Rows that the ring holds; it is copied out before it wraps."""


SPARE = 16
"""Columns of the ring beyond those of the model's metrics."""

_ARITHMETIC = ("Add", "AddV2", "AddN", "Sub", "Mul", "RealDiv", "Neg")


class TensorFlowTap(base.Tap):
    """Rows in a `tf.Variable` ring; see `lossledger.keras.tap.Tap`.

    The variables are made beforehand: inside a `tf.function` that is not possible but on its first
    call, which may have been before.
    """

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.capacity = max(CAPACITY, 4 * model.steps_per_execution)
        self.width = SPARE + len(model.metrics)
        self.ring = tf.Variable(tf.zeros((self.capacity, self.width)))
        self.count = tf.Variable(0, dtype=tf.int64)
        self.moved = tf.Variable(-1, dtype=tf.int64)
        self.carried = tf.Variable(tf.zeros(2 * self.width))
        self.ran = self.copied = self.fetched = 0
        self.waiting: list[tuple[Any, int]] = []

    def wrap_step(self, train_step: Any) -> Any:
        """See base class."""

        return lambda data: self.traced(train_step, data)[0]

    def traced(self, train_step: Any, data: Any) -> tuple[Any, Any]:
        """What `train_step` returned, and what `row` made of the step."""
        carrier = _Carrier(self.carried)
        trace = Trace(keep=carrier.keep)
        with tracing(trace):
            logs = train_step(data)
        with carrier.apart():
            return logs, self.leave(trace, logs, data)

    def parts(self, selection: Any, trace: Trace, data: Any) -> list[Any] | None:
        """The row's values, float32, in one or two vectors; `None` where they are too few."""
        columns = self.named(selection, data)
        if self.full:
            columns |= self._optimizer_columns(trace)
        row = [tf.cast(_value(value), tf.float32) for value in columns.values()]
        lanes = fingerprint(data) if self.full else None
        whole = self.settle(selection.layout, [*columns], fingerprint=lanes is not None)
        parts = [tf.stack(row)] + ([] if lanes is None else [tf.bitcast(lanes, tf.float32)])
        return parts if whole else None

    def row(self, selection: Any, trace: Trace, *context: Any) -> Any:
        """See base class; writes the row into the ring."""
        (data,) = context
        parts = self.parts(selection, trace, data)
        padding = self.width - len(self.columns)
        if parts is None or padding < 0:
            return
        parts.append(np.zeros(padding, np.float32))
        updates = tf.concat(parts, 0)
        # Nothing is counted before the step has its batch: the data may have run out.
        with tf.control_dependencies([updates]):
            index = self.count.read_value()
            tf.raw_ops.ResourceScatterUpdate(
                resource=self.ring.handle, indices=index % self.capacity, updates=updates
            )
            self.count.assign_add(1, read_value=False)

    def rows_of(self, data: Any) -> Any:
        """See base class; known when the step runs."""
        leaf = next((leaf for leaf in tree.flatten(data) if leaf is not None), None)
        if not hasattr(getattr(leaf, "shape", None), "rank"):
            return super().rows_of(data)
        return tf.shape(leaf)[0] if leaf.shape.rank else 0

    def _optimizer_columns(self, trace: Trace) -> dict[str, Any]:
        optimizer = applied(trace, self.model)
        if optimizer is None:
            return {}
        columns: dict[str, Any] = {}
        iterations = optimizer._iterations.value
        rate = Rate.of(optimizer)
        if rate is not None:
            columns["learning_rate"] = rate.at(iterations - 1)
        if scaled(self.model):
            updates = tf.cast(iterations, tf.int64)
            columns["updated"] = tf.not_equal(self.moved.read_value(), updates)
            self.moved.assign(updates, read_value=False)
        elif micro_steps(optimizer):
            columns["updated"] = tf.equal(iterations % micro_steps(optimizer), 0)
        return columns

    def attach(self, position: base.Position | None) -> None:
        """See base class."""
        super().attach(position)
        self.ran = self.copied = self.fetched = self._count()

    def wrap_function(self, function: Any) -> Any:
        """The train function that counts its executions and copies the ring before it wraps."""

        def train_function(iterator: Any) -> Any:
            if self.position is None:
                return function(iterator)
            self.begin((iterator,))
            with self.lock:
                try:
                    result = function(iterator)
                except BaseException:
                    self._ran_to(self._count())
                    raise
                steps = self.model.steps_per_execution
                self._ran_to(self.ran + 1 if steps == 1 else self._count())
                if self.ran - self.copied + steps > self.capacity:
                    self._copy()
            return result

        return train_function

    def _count(self) -> int:
        """How many steps ran, asked of the device."""
        return int(self.count.numpy())

    def _ran_to(self, count: int) -> None:
        steps, self.ran = count - self.ran, count
        if steps > 0:
            self.executed(steps)

    def _copy(self) -> None:
        self.waiting.append((self.ring.read_value(), self.ran))
        self.copied = self.ran

    def take(self) -> Any:
        """See base class."""
        self._copy()
        waiting, self.waiting = self.waiting, []
        return waiting

    def fetch(self, handle: Any) -> np.ndarray:
        """See base class."""
        parts = [np.zeros((0, len(self.columns)), "f4")]
        for ring, count in handle:
            places = np.arange(self.fetched, count) % self.capacity
            parts.append(ring.numpy()[places, : len(self.columns)])
            self.fetched = count
        return np.concatenate(parts)


class _Carrier:
    """Holds on to values until the step's row is written, and changes nothing of their graph.

    Args:
        slots: A float32 variable of shape `(slots,)`, for values out of nested graphs.
    """

    def __init__(self, slots: tf.Variable) -> None:
        self._slots = slots
        self._used = 0
        self._graph = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()

    def keep(self, value: Any) -> Any:
        """`value`, or the place in `slots` that carries it out of a nested graph."""
        if not tf.is_tensor(value) or isinstance(value, tf.Variable):
            return value
        if self._graph is None or tf.executing_eagerly() or value.graph is self._graph:
            return value
        if value.shape.rank != 0 or self._used >= self._slots.shape[0]:
            return value
        slot, self._used = self._used, self._used + 1
        tf.raw_ops.ResourceScatterUpdate(
            resource=self._slots.handle, indices=slot, updates=tf.cast(value, tf.float32)
        )
        return _Slot(self._slots, slot)

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Mark operations so that the graph's optimizer doesn't merge them with the user's.

        It rewrites sums and products of scalars that have one consumer, in another order of
        rounding: a second consumer of the same operation would change what the user's metric sees.
        """
        scope = getattr(self._graph, "_attr_scope", None)
        mark = {"_lossledger": AttrValue(b=True)}
        with nullcontext() if scope is None else scope(mark):
            yield


class _Slot(NamedTuple):
    slots: Any
    place: int


def _value(value: Any) -> Any:
    if isinstance(value, _Slot):
        return value.slots.read_value()[value.place]
    return _repeated(value) if hasattr(value, "op") else value


def _repeated(value: Any) -> Any:
    """`value` computed once more from what is no arithmetic of scalars (see `_Carrier.apart`)."""
    if value.shape.rank != 0 or value.op.type not in _ARITHMETIC:
        return value
    inputs = [_repeated(each) for each in value.op.inputs]
    if value.op.type == "AddN":
        return tf.add_n(inputs)
    operation = getattr(tf.raw_ops, value.op.type)
    return operation(**dict(zip(("x", "y"), inputs, strict=False)))


def fingerprint(data: Any) -> Any:
    """Fingerprint of a batch's inputs and targets; two int32 lanes, or `None` without any.

    A hash of each row by position within it, summed over the rows, so that the order of rows does
    not matter and the fingerprints of batches add up to that of their union (each lane mod 2^32).
    """
    leaves = [_columns(leaf) for leaf in tree.flatten(batch_content(data))]
    leaves = [leaf for leaf in leaves if leaf is not None]
    if not leaves:
        return None
    bits = tf.concat(_same_rows(leaves), axis=1)
    bits = tf.bitwise.bitwise_xor(bits, tf.bitwise.right_shift(bits, 16))
    table = base.multipliers(bits.shape[1])
    lanes = tf.matmul(bits, table[:-1]) + table[-1]
    lanes = tf.bitwise.bitwise_xor(lanes, tf.bitwise.right_shift(lanes, 15))
    return tf.reduce_sum(lanes * tf.bitwise.bitwise_or(lanes, 1), axis=0)


def batch_content(data: Any) -> Any:
    """Inputs and targets of a batch, without sample weights."""
    return data[:2] if isinstance(data, tuple) else data


def _columns(leaf: Any) -> Any:
    if isinstance(leaf, np.ndarray) and leaf.dtype.kind in "fiub":
        leaf = tf.convert_to_tensor(leaf)
    if not isinstance(leaf, tf.Tensor) or leaf.shape.rank in (None, 0):
        return None
    width = int(np.prod(leaf.shape[1:])) if None not in leaf.shape[1:] else None
    if not width:
        return None
    flat = leaf if leaf.shape.rank == 2 else tf.reshape(leaf, (-1, width))
    flat = flat[:, base.stride(width)] if width > base.COLUMNS else flat
    if leaf.dtype.is_floating:
        return tf.bitcast(tf.cast(flat, tf.float32), tf.int32)
    return tf.cast(flat, tf.int32) if leaf.dtype.is_integer or leaf.dtype.is_bool else None


def _same_rows(leaves: list[Any]) -> list[Any]:
    """Leaves cut to the fewest rows, where it is not known that all have as many."""
    counts = {leaf.shape[0] for leaf in leaves}
    if len(leaves) == 1 or (len(counts) == 1 and None not in counts):
        return leaves
    fewest = tf.reduce_min(tf.stack([tf.shape(leaf)[0] for leaf in leaves]))
    return [leaf[:fewest] for leaf in leaves]
