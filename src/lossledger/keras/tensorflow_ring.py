"""TensorFlow with `steps_per_execution` or XLA: a ring of rows in a variable.

How many of an execution's steps ran is known on the device alone; and XLA has no list that grows.
A fingerprint inside the step is cheap where XLA fuses it.
"""

from typing import Any

import numpy as np
import tensorflow as tf

from lossledger.keras.buffer import Buffer
from lossledger.keras.describe import replicas
from lossledger.keras.tensorflow import TensorFlowTap
from lossledger.keras.tensorflow_replicas import ReplicasTap, ShareTap, own
from lossledger.keras.trace import Trace

CAPACITY = 1024
"""Rows that the ring holds; it is copied out before it wraps."""

SPARE = 16
"""Columns of the ring beyond those of the model's metrics."""


class RingBuffer(Buffer):
    """Rows in a `tf.Variable`; the host holds a copy of it where it would wrap.

    Args:
        capacity: Rows.
        width: Columns.
        variable: Makes a variable; of replicas, one of which each has its own.
    """

    def __init__(self, capacity: int, width: int, variable: Any = tf.Variable) -> None:
        super().__init__()
        self.capacity = capacity
        self.width = width
        self.ring = variable(tf.zeros((capacity, width)))
        self.written = variable(0, dtype=tf.int64)
        self.rings = getattr(self.ring, "values", (self.ring,))
        self.ran = self._copied = self._fetched = 0
        self._copies: list[tuple[Any, int]] = []

    def attach(self, *arguments: Any, **options: Any) -> None:
        """See base class."""
        super().attach(*arguments, **options)
        self.ran = self._copied = self._fetched = self.now()

    def now(self) -> int:
        """How many steps ran, asked of the device."""
        return int(self.written.numpy())

    def ran_to(self, count: int, ahead: int) -> None:
        """Note an execution, after which `count` steps ran; the next one is of `ahead`."""
        steps, self.ran = count - self.ran, count
        # Without a layout nothing is written, but something ran.
        self.executed_many(1 if self.layout is None else steps)
        if self.ran - self._copied + ahead > self.capacity:
            self._copies.append((self._copy(), self.ran))
            self._copied = self.ran

    def _copy(self) -> list[Any]:
        return [ring.read_value() for ring in self.rings]

    def take(self, count: int) -> Any:
        """See base class."""
        copies, self._copies = self._copies, []
        begin, self._fetched = self._fetched, min(self._fetched + count, self.ran)
        self._copied = self._fetched
        return [*copies, (self._copy(), self._fetched)], begin

    def fetch(self, handle: Any) -> tuple[np.ndarray, Any]:
        """See base class; a step is named once for each of its replicas."""
        copies, begin = handle
        parts = [np.zeros((0, len(self.rings), len(self.columns)), "f4")]
        for rings, ran in copies:
            end = min(ran, copies[-1][1])
            places = np.arange(begin, end) % self.capacity
            rows = [ring.numpy()[places, : len(self.columns)] for ring in rings]
            parts.append(np.stack(rows, axis=1))
            begin = max(begin, end)
        steps = np.concatenate(parts)
        kept = np.repeat(np.arange(len(steps)), len(self.rings))
        return steps.reshape(-1, len(self.columns)), kept


class TensorFlowRingTap(TensorFlowTap):
    """Rows in a ring; see `lossledger.keras.tap.Tap`."""

    buffer: RingBuffer

    def __init__(self, model: Any, variable: Any = tf.Variable) -> None:
        capacity = max(CAPACITY, 4 * model.steps_per_execution)
        super().__init__(model, RingBuffer(capacity, SPARE + len(model.metrics), variable))

    def wrap_step(self, train_step: Any) -> Any:
        """See base class; the step returns its logs alone."""

        def step(data: Any) -> Any:
            return self.traced(train_step, data)[0]

        return step

    def row(self, selection: Any, trace: Trace, *context: Any) -> None:
        """See base class; writes the row into the ring."""
        (data,) = context
        buffer = self.buffer
        row = self.hashed(selection, trace, data)
        padding = buffer.width - len(buffer.columns)
        if row is None or padding < 0:
            return
        updates = tf.concat([row, np.zeros(padding, np.float32)], 0)
        # Nothing is counted before the step has its batch: the data may have run out.
        with tf.control_dependencies([updates]):
            place = buffer.written.read_value() % buffer.capacity
            tf.raw_ops.ResourceScatterUpdate(
                resource=buffer.ring.handle, indices=place, updates=updates
            )
            buffer.written.assign_add(1, read_value=False)

    def wrap_function(self, function: Any) -> Any:
        """The train function that counts the steps which ran."""
        buffer = self.buffer

        def train_function(iterator: Any) -> Any:
            if self.position is None:
                return function(iterator)
            self.begin((iterator,))
            ahead = self.model.steps_per_execution
            with buffer.lock:
                try:
                    return function(iterator)
                finally:
                    buffer.ran_to(buffer.now(), ahead)

        return train_function


class ReplicasRingTap(TensorFlowRingTap, ShareTap):
    """A ring a replica; see `lossledger.keras.tap.Tap`."""

    def __init__(self, model: Any) -> None:
        with model.distribute_strategy.scope():
            super().__init__(model, own)


def tap_of(model: Any) -> TensorFlowTap:
    """The tap of a model, by how its steps are executed."""
    ring = model.steps_per_execution > 1 or (model.jit_compile and not model.run_eagerly)
    if replicas(model) > 1:
        return ReplicasRingTap(model) if ring else ReplicasTap(model)
    return TensorFlowRingTap(model) if ring else TensorFlowTap(model)
