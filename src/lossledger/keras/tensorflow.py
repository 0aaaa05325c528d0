"""The tap on TensorFlow: the compiled step appends its row to a list that lies on the device.

An output more would cost a call of `fit` 20 microseconds of Python, in which Keras unpacks it from
an `Optional`; a variable of one row costs as much to read after each step. Where a list won't do,
it is a ring (`tensorflow_ring.py`). All operations are added after the user's `train_step` has been
traced, so that nothing which TensorFlow derives from an operation's place in the graph changes for
the user's.
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
from lossledger.keras.trace import GONE, Trace, tracing

SLOTS = 32
"""Scalars that can be carried out of nested graphs."""

LONGEST = 128
"""Rows of a list on the device."""

_VECTOR = np.array([-1], np.int32)
_NO_DIMS = np.zeros(0, np.int64)
_ARITHMETIC = ("Add", "AddV2", "AddN", "Sub", "Mul", "RealDiv", "Neg")


class VectorBuffer(Buffer):
    """Rows as vectors of float32: the row's values, then the bits of the leaves of its batch.

    They are hashed here: that takes as many operations again as the rest of the row. `widths` are
    those of the leaves. The vector of a step without a row is empty.
    """

    def __init__(self) -> None:
        super().__init__()
        self.widths: tuple[int, ...] = ()

    def decoded(self, whole: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `fetch`.

        Args:
            whole: float32, the vectors one after the other.
            lengths: How long each of them is.
        """
        (kept,) = np.nonzero(lengths)
        rows = np.zeros((len(lengths), len(self.columns)), "f4")
        ends = np.cumsum(lengths)
        for length in np.unique(lengths[kept]).tolist():
            (places,) = np.nonzero(lengths == length)
            if len(places) == len(lengths):
                block = whole.reshape(-1, length)
            else:
                block = whole[ends[places, None] + np.arange(-length, 0)]
            rows[places, : self.values] = block[:, : self.values]
            if self.widths:
                self.hold(block[0].nbytes)
                rows[places, -2:] = fingerprint.of_stacked(self._leaves(block))
        return rows[kept], kept

    @property
    def values(self) -> int:
        """How many values a vector begins with."""
        return len(self.columns) - 2 * ("id0" in self.columns)

    def _leaves(self, block: np.ndarray) -> list[np.ndarray]:
        """Leaves of shape `(steps, rows, width)` from vectors of one length."""
        bits = np.ascontiguousarray(block[:, self.values :]).view("i4")
        rows = bits.shape[1] // max(1, sum(self.widths))
        ends = np.cumsum([rows * width for width in self.widths]).tolist()
        return [
            bits[:, end - rows * width : end].reshape(len(block), rows, width)
            for end, width in zip(ends, self.widths, strict=True)
        ]


class TensorFlowBuffer(VectorBuffer):
    """Vectors in a list on the device.

    A list that was put aside may end with rows that are no step's: of a step that failed, or of
    executions that nobody recorded. The steps of the next list begin before those.
    """

    def __init__(self) -> None:
        super().__init__()
        self._none = tf.raw_ops.EmptyTensorList(
            element_shape=_VECTOR, max_num_elements=-1, element_dtype=tf.float32
        )
        self.vectors = tf.Variable(self._none)
        self._aside: list[tuple[int, Any]] = []
        self._first = self._fetched = self._held = 0

    def attach(self, *arguments: Any, **options: Any) -> None:
        """See base class."""
        super().attach(*arguments, **options)
        self.put_aside()

    def append(self, vector: Any) -> None:
        """Append a step's vector; within the step."""
        now = self.vectors.read_value()
        longer = tf.raw_ops.TensorListPushBack(input_handle=now, tensor=vector)
        self.vectors.assign(longer, read_value=False)

    def executed(self) -> None:
        """See base class."""
        super().executed()
        self._held += 1
        if self._held >= LONGEST:
            self.put_aside()

    def executed_unrecorded(self) -> None:
        """An execution that is nobody's has returned: its row is of no use."""
        self._held += 1
        if self._held >= LONGEST:
            self._held = 0
            self.vectors.assign(self._none)

    def put_aside(self) -> None:
        """Begin a new list; each step copies the list's references, so it may not grow long."""
        with self.lock:
            self._aside.append((self._first, self.vectors.read_value()))
            self.vectors.assign(self._none)
            self._first = self._fetched + len(self.times)
            self._held = 0

    def take(self, count: int) -> Any:
        """See base class."""
        begin, self._fetched = self._fetched, self._fetched + count
        lists = [*self._aside, (self._first, self.vectors.read_value())]
        ends = [*[first for first, _ in lists[1:]], self._fetched]
        parts = [(*each, end) for each, end in zip(lists, ends, strict=True)]
        self._aside = [(first, each) for first, each, end in parts[:-1] if end > self._fetched]
        return parts, begin, self._fetched

    def fetch(self, handle: Any) -> tuple[np.ndarray, Any]:
        """See base class."""
        parts, begin, stop = handle
        vectors = [_vectors(each, max(begin, f) - f, min(stop, end) - f) for f, each, end in parts]
        whole, lengths = zip(*vectors, strict=True)
        return self.decoded(np.concatenate(whole), np.concatenate(lengths))


def _vectors(each: Any, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    """Some of the vectors of a list, one after the other, and how long each of them is."""
    if start >= stop:
        return np.zeros(0, "f4"), np.zeros(0, "i8")
    whole, lengths = tf.raw_ops.TensorListConcatV2(
        input_handle=each, element_shape=_VECTOR, leading_dims=_NO_DIMS, element_dtype=tf.float32
    )
    lengths = lengths.numpy()
    first = lengths[:start].sum()
    lengths = lengths[start:stop]
    return whole.numpy()[first : first + lengths.sum()], lengths


class TensorFlowTap(base.Tap[Any]):
    """Rows in a list; see `lossledger.keras.tap.Tap`.

    The variables are made beforehand: inside a `tf.function` that is not possible but on its first
    call, which may have been before.
    """

    def __init__(self, model: Any, buffer: Buffer | None = None) -> None:
        super().__init__(model, buffer or TensorFlowBuffer())
        self.moved = tf.Variable(-1, dtype=tf.int64)
        self.carried = tf.Variable(tf.zeros(SLOTS))

    def wrap_step(self, train_step: Any) -> Any:
        """See base class."""

        def step(data: Any) -> Any:
            logs, vector = self.traced(train_step, data)
            self.buffer.append(tf.zeros(0) if vector is None else vector)
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
        """See base class."""
        (data,) = context
        names, values = self.values(selection, trace, data)
        leaves = seen(data, self.model)
        widths = tuple(leaf.shape[1] for leaf in leaves)
        if not self.settle(selection.layout, names, hashed=bool(leaves)):
            return None
        self.buffer.widths = self.buffer.widths or widths
        if widths != self.buffer.widths:
            return None
        return tf.concat([values, *[_flat(leaf) for leaf in leaves]], 0) if leaves else values

    def values(self, selection: Any, trace: Trace, data: Any) -> tuple[list[str], Any]:
        """The row but for the fingerprint: its columns' names, and a float32 vector."""
        columns = self.named(selection, trace, data)
        if self.full:
            columns |= self._optimizer_columns(trace)
        row = [tf.cast(_value(value), tf.float32) for value in columns.values()]
        return [*columns], tf.stack(row)

    def hashed(self, selection: Any, trace: Trace, data: Any) -> Any:
        """The row with the batch's fingerprint, a float32 vector; `None` where it is not whole."""
        names, row = self.values(selection, trace, data)
        lanes = lanes_of(seen(data, self.model)) if self.full else None
        if not self.settle(selection.layout, names, hashed=lanes is not None):
            return None
        return row if lanes is None else tf.concat([row, tf.bitcast(lanes, tf.float32)], 0)

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
            self.begin((iterator,))
            try:
                logs = function(iterator)
            except BaseException:
                with suppress(Exception):
                    buffer.put_aside()
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
    """Fingerprint of a batch, two int32 lanes; `None` without any leaf that it can look at."""
    if not leaves:
        return None
    bits = tf.concat([tf.bitcast(leaf, tf.int32) for leaf in leaves], axis=1)
    bits = tf.bitwise.bitwise_xor(bits, tf.bitwise.right_shift(bits, 16))
    table = fingerprint.multipliers(bits.shape[1])
    lanes = tf.matmul(bits, table[:-1]) + table[-1]
    lanes = tf.bitwise.bitwise_xor(lanes, tf.bitwise.right_shift(lanes, 15))
    return tf.reduce_sum(lanes * tf.bitwise.bitwise_or(lanes, 1), axis=0)


def seen(data: Any, model: Any) -> list[Any]:
    """The columns of a batch's leaves that its fingerprint looks at, of float32 or int32."""
    leaves = [_seen(leaf) for leaf in tree.flatten(fingerprint.content(data))]
    leaves = [leaf for leaf in leaves if leaf is not None]
    counts = {leaf.shape[0] for leaf in leaves}
    known = len(leaves) < 2 or (len(counts) == 1 and None not in counts)
    # Keras's own step fails where inputs and targets are not of as many rows.
    if known or type(model).train_step.__module__.startswith("keras."):
        return leaves
    fewest = tf.reduce_min(tf.stack([tf.shape(leaf)[0] for leaf in leaves]))
    return [leaf[:fewest] for leaf in leaves]


def _seen(leaf: Any) -> Any:
    if isinstance(leaf, np.ndarray) and leaf.dtype.kind in "fiub":
        leaf = tf.convert_to_tensor(leaf)
    if not isinstance(leaf, tf.Tensor) or leaf.shape.rank in (None, 0):
        return None
    width = int(np.prod(leaf.shape[1:])) if None not in leaf.shape[1:] else None
    if not width:
        return None
    flat = leaf if leaf.shape.rank == 2 else tf.reshape(leaf, (-1, width))
    flat = flat[:, fingerprint.stride(width)] if width > fingerprint.COLUMNS else flat
    if leaf.dtype.is_floating:
        return tf.cast(flat, tf.float32)
    return tf.cast(flat, tf.int32) if leaf.dtype.is_integer or leaf.dtype.is_bool else None


def _flat(leaf: Any) -> Any:
    flat = tf.reshape(leaf, [-1])
    return flat if leaf.dtype == tf.float32 else tf.bitcast(flat, tf.float32)
