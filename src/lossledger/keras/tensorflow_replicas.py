"""TensorFlow with `tf.distribute`: each replica writes a row of its own, of its share of the batch.

What the step's replicas come to together is a fold, so it is left to whoever reads the rows.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from lossledger.keras.buffer import Buffer
from lossledger.keras.tensorflow import SLOTS, TensorFlowTap
from lossledger.keras.tensorflow_buffer import VectorBuffer, joined
from lossledger.keras.trace import Trace


class ReplicasBuffer(VectorBuffer):
    """A row a replica and step, each as `VectorBuffer` has it."""

    def fetch(self, handle: Any) -> tuple[np.ndarray, Any]:
        """See base class; a step is named once for each of its replicas."""
        replicas = len(handle[0])
        vectors = [np.asarray(vector) for step in handle for vector in step]
        lengths = np.array([len(vector) for vector in vectors])
        rows, kept = self.decoded(np.concatenate(vectors), lengths)
        return rows, kept // replicas


# Under a model's strategy a variable that is read where it was written: a replica's own.
own = partial(
    tf.Variable,
    trainable=False,
    synchronization=tf.VariableSynchronization.ON_READ,
    aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
)


class ShareTap(TensorFlowTap):
    """What the row of a replica holds; see `lossledger.keras.tap.Tap`."""

    def __init__(self, model: Any, buffer: Buffer) -> None:
        super().__init__(model, buffer)
        with model.distribute_strategy.scope():
            self.moved = own(-1, dtype=tf.int64)
            self.carried = own(tf.zeros(SLOTS))

    def named(self, selection: Any, trace: Trace, data: Any) -> dict[str, Any]:
        """See base class; the data term is noted divided by the replicas, as Keras sums it up."""
        columns = super().named(selection, trace, data)
        if "data" in columns:
            columns["data"] = columns["data"] * self.model.distribute_strategy.num_replicas_in_sync
        return columns

    def values(
        self, selection: Any, trace: Trace, data: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """See base class; the replica's number is one more."""
        scalars, counts = super().values(selection, trace, data)
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        return scalars | {"replica": tf.cast(replica, tf.float32)}, counts


class ReplicasTap(ShareTap):
    """A row variable a replica; see `lossledger.keras.tap.Tap`."""

    def __init__(self, model: Any) -> None:
        super().__init__(model, ReplicasBuffer())
        with model.distribute_strategy.scope():
            self.row_of_step = own(tf.zeros(0), shape=(None,))

    def wrap_step(self, train_step: Any) -> Any:
        """See base class; in a replica, which writes its own row."""

        def step(data: Any) -> Any:
            logs, parts = self.traced(train_step, data)
            vector = tf.zeros(0) if parts is None else joined(parts)
            self.row_of_step.assign(vector, read_value=False)
            return logs

        return step

    def wrap_function(self, function: Any) -> Any:
        """The train function that keeps the rows of this process's replicas."""
        buffer, rows = self.buffer, self.buffer.rows
        reads: Sequence[Any] = [
            partial(tf.raw_ops.ReadVariableOp, resource=variable.handle, dtype=tf.float32)
            for variable in self.row_of_step.values
        ]

        def train_function(iterator: Any) -> Any:
            if self.position is None:
                return function(iterator)
            self.begin((iterator,))
            logs = function(iterator)
            rows.append([read() for read in reads])
            buffer.executed()
            return logs

        return train_function
