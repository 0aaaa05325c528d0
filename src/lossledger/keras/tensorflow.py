"""The tap on TensorFlow: the compiled step hands its row over to a staging area on the device.

An output more would cost a call of `fit` 20 microseconds of Python, in which Keras unpacks it from
an `Optional`; a variable of one row costs as much to read after each step. Where a staging area
won't do, it is a ring (`tensorflow_ring.py`). All operations are added after the user's
`train_step` has been traced, so that nothing which TensorFlow derives from an operation's place in
the graph changes for the user's.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from keras import tree
from tensorflow.core.framework.attr_value_pb2 import AttrValue

from lossledger.keras import fingerprint
from lossledger.keras import tap as base
from lossledger.keras.buffer import Buffer
from lossledger.keras.optimizer import Rate, applied, micro_steps, scaled
from lossledger.keras.tensorflow_buffer import StagedBuffer
from lossledger.keras.trace import GONE, Trace, tracing

SLOTS = 32
"""Scalars that can be carried out of nested graphs."""

COUNTS = ("elements", "sample_weight")
"""What is a constant in most steps; together they cost one operation, or none."""

_ARITHMETIC = ("Add", "AddV2", "AddN", "Sub", "Mul", "RealDiv", "Neg")


class TensorFlowTap(base.Tap[Any]):
    """Rows in a staging area; see `lossledger.keras.tap.Tap`.

    The variables are made beforehand: inside a `tf.function` that is not possible but on its first
    call, which may have been before.
    """

    def __init__(self, model: Any, buffer: Buffer | None = None) -> None:
        self.carried = tf.Variable(tf.zeros(SLOTS))
        super().__init__(model, buffer or StagedBuffer(self.carried.device))
        self.moved = tf.Variable(-1, dtype=tf.int64)

    def wrap_step(self, train_step: Any) -> Any:
        """See base class."""

        def step(data: Any) -> Any:
            logs, parts = self.traced(train_step, data)
            self.buffer.stage(parts)
            return logs

        return step

    def traced(self, train_step: Any, data: Any) -> tuple[Any, Any]:
        """What `train_step` returns, and what `row` makes of it."""
        carrier = _Carrier(self.carried)
        trace = Trace(keep=carrier.keep)
        with tracing(trace):
            logs = train_step(data)
        trace.let_go()
        with carrier.apart():
            return logs, self.leave(trace, logs, data)

    def row(self, selection: Any, trace: Trace, *context: Any) -> Any:
        """See base class; the tensors of its vector (`VectorBuffer`)."""
        (data,) = context
        scalars, counts = self.values(selection, trace, data)
        # Copied: a generator's arrays come here as they are, and may be filled again.
        leaves = seen(data, self.model, copied=True)
        names = [*scalars, *counts]
        if not self.settle(selection.layout, names, hashed=bool(leaves)):
            return None
        widths = [tf.cast(_width(leaf), tf.float32) for leaf in leaves]
        self.buffer.leaves = self.buffer.leaves or len(leaves)
        if len(leaves) != self.buffer.leaves:
            return None
        return [*scalars.values(), tf.stack([*counts.values(), *widths]), *leaves]

    def values(
        self, selection: Any, trace: Trace, data: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The row but for the fingerprint, and those of `COUNTS` apart: float32 scalars by name."""
        columns = self.named(selection, trace, data)
        if self.full:
            columns |= self._optimizer_columns(trace)
        row = {name: tf.cast(_value(value), tf.float32) for name, value in columns.items()}
        if shapes := {name: value.shape for name, value in row.items() if value.shape.rank != 0}:
            raise ValueError(f"A step's loss and weight must be scalars. Received: {shapes}")
        return row, {name: row.pop(name) for name in COUNTS if name in row}

    def hashed(self, selection: Any, trace: Trace, data: Any) -> Any:
        """The row with the batch's fingerprint, a float32 vector; `None` where it is not whole."""
        scalars, counts = self.values(selection, trace, data)
        leaves = seen(data, self.model) if self.full else []
        if not self.settle(selection.layout, [*scalars, *counts], hashed=bool(leaves)):
            return None
        row = tf.stack([*scalars.values(), *counts.values()])
        if not leaves:
            return row
        return tf.concat([row, lanes_of(leaves) if self.hashing else tf.zeros(2)], 0)

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

    def wrap_function(self, function: Any) -> Any:
        """The train function that counts the steps."""
        buffer = self.buffer

        def train_function(iterator: Any) -> Any:
            if self.position is None:
                logs = function(iterator)
                buffer.executed_unrecorded()
                return logs
            if self.fresh or len(buffer.times) >= buffer.backlog:
                self.begin((iterator,))
            try:
                logs = function(iterator)
            except BaseException:
                with suppress(Exception):
                    buffer.disown()
                raise
            buffer.executed()
            return logs

        return train_function


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
        """`value`, or the place in `slots` that carries it out of a nested graph, or `GONE`."""
        if not tf.is_tensor(value) or isinstance(value, tf.Variable):
            return value
        if self._graph is None or tf.executing_eagerly() or value.graph is self._graph:
            return value
        if value.shape.rank != 0 or self._used >= self._slots.shape[0]:
            return GONE
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


def lanes_of(leaves: list[Any]) -> Any:
    """Fingerprint of what `seen` gave: the bits of two int32 lanes, as float32."""
    bits = tf.bitcast(tf.concat(leaves, 1), tf.int32)
    bits = tf.bitwise.bitwise_xor(bits, tf.bitwise.right_shift(bits, 16))
    table = fingerprint.multipliers(fingerprint.COLUMNS * len(leaves))
    columns = table[:-1] if bits.shape[1] is None else table[: bits.shape[1]]
    lanes = tf.matmul(bits, columns[: _width(bits)]) + table[-1]
    lanes = tf.bitwise.bitwise_xor(lanes, tf.bitwise.right_shift(lanes, 15))
    lanes = tf.reduce_sum(lanes * tf.bitwise.bitwise_or(lanes, 1), axis=0)
    return tf.bitcast(lanes, tf.float32)


def seen(data: Any, model: Any, *, copied: bool = False) -> list[Any]:
    """The columns of a batch's leaves that its fingerprint looks at.

    Args:
        data: The batch.
        model: The model trained.
        copied: Whether to copy what else would be the batch's own memory; XLA can't.

    Returns:
        For each leaf the bits of float32 or int32, as float32 `(rows, columns)`.
    """
    leaves = [_seen(leaf, copied) for leaf in tree.flatten(fingerprint.content(data))]
    leaves = [leaf for leaf in leaves if leaf is not None]
    counts = {leaf.shape[0] for leaf in leaves}
    known = len(leaves) < 2 or (len(counts) == 1 and None not in counts)
    # Keras's own step fails where inputs and targets are not of as many rows.
    if known or type(model).train_step.__module__.startswith("keras."):
        return leaves
    fewest = tf.reduce_min(tf.stack([tf.shape(leaf)[0] for leaf in leaves]))
    return [leaf[:fewest] for leaf in leaves]


def _seen(leaf: Any, copied: bool) -> Any:
    if isinstance(leaf, np.ndarray) and leaf.dtype.kind in "fiub":
        leaf = tf.convert_to_tensor(leaf)
    if not isinstance(leaf, tf.Tensor) or leaf.shape.rank in (None, 0) or 0 in leaf.shape[1:]:
        return None
    if not (leaf.dtype.is_floating or leaf.dtype.is_integer or leaf.dtype.is_bool):
        return None
    flat = leaf if leaf.shape.rank == 2 else tf.reshape(leaf, (tf.shape(leaf)[0], _width(leaf)))
    if flat.shape[1] is None or flat.shape[1] > fingerprint.COLUMNS:
        flat = flat[:, fingerprint.stride(_width(flat))]
        flat.set_shape((None, None))
    elif copied and leaf.dtype in (tf.float32, tf.int32):
        flat = tf.raw_ops.DeepCopy(x=flat)
    if leaf.dtype.is_floating:
        return tf.cast(flat, tf.float32)
    return tf.bitcast(tf.cast(flat, tf.int32), tf.float32)


def _width(leaf: Any) -> Any:
    """Values that a row of `leaf` has: a number where that is known."""
    sizes = leaf.shape[1:]
    return tf.reduce_prod(tf.shape(leaf)[1:]) if None in sizes else int(np.prod(sizes))
