"""Training steps that replicas of `tf.distribute` share: one call a step, as Keras's own."""

from typing import Any

import numpy as np
import tensorflow as tf
from keras import tree
from keras.src.backend.tensorflow.trainer import reduce_per_replica

from lossledger.errors import LossLedgerError
from lossledger.keras.describe import replicas
from lossledger.keras.tensorflow_replicas import ShareTap
from lossledger.loop import engine as base
from lossledger.loop.chunk import Chunk, Window
from lossledger.loop.tensorflow import TensorFlowEngine, TensorFlowLoopTap
from lossledger.loop.window import WindowBuffer
from lossledger.shares import WORKER, fold

TRIED = (tf.distribute.MirroredStrategy, tf.distribute.OneDeviceStrategy)
"""Strategies that a loop trains under as `fit` does."""


class SharesBuffer(WindowBuffer):
    """Windows in which a step has a row a replica."""

    def fetch(self, handle: Any) -> tuple[np.ndarray, Any]:
        """See base class; a step is named once for each of its replicas."""
        steps = np.concatenate(self.parts(handle))
        kept = np.repeat(np.arange(len(steps)), steps.shape[1])
        return steps.reshape(len(kept), -1), kept


class ShareLoopTap(TensorFlowLoopTap, ShareTap):
    """A row a replica, as results of the traced step."""


class ReplicasEngine(TensorFlowEngine):
    """See `lossledger.loop.engine.Engine`; batches are shared out by Keras's own iterator."""

    def make_tap(self) -> ShareLoopTap:
        """See base class."""
        tap = ShareLoopTap(self.model, SharesBuffer(tf.identity))
        tap.full = self.full
        return tap

    def batch(self, batch: Any) -> Chunk:
        """See base class; what is not shared out yet is, as TensorFlow shares out a batch."""
        leaves = [leaf for leaf in tree.flatten(batch) if leaf is not None]
        if not any(isinstance(leaf, tf.distribute.DistributedValues) for leaf in leaves):
            batch = self._shared_out(batch)
        shares = self._local(next(leaf for leaf in tree.flatten(batch) if leaf is not None))
        return Chunk(batch, None, 0, 1, sum(int(share.shape[0]) for share in shares))

    def _shared_out(self, batch: Any) -> Any:
        most = -(-base.rows_of(batch) // replicas(self.model))

        def share(context: Any) -> Any:
            first = context.replica_id_in_sync_group * most
            cut = lambda leaf: tf.convert_to_tensor(leaf)[first : first + most]  # noqa: E731
            return tree.map_structure(lambda leaf: None if leaf is None else cut(leaf), batch)

        strategy = self.model.distribute_strategy
        return strategy.experimental_distribute_values_from_function(share)

    def _local(self, value: Any) -> tuple[Any, ...]:
        return self.model.distribute_strategy.experimental_local_results(value)

    def trained(self, data: Any) -> tuple[Any, Any]:
        """See base class; the logs as Keras reduces them, and the replicas' rows."""
        logs, row = super().trained(data)
        rows = self._local(row)
        logs = reduce_per_replica(logs, self.model.distribute_strategy, "auto")
        return logs, None if any(each is None for each in rows) else tf.stack(rows)

    def forms(self, key: Any, chunk: Chunk) -> tuple[str, ...]:
        """See base class."""
        return ("eager",) if self.eager else ("step",)

    def new_window(self) -> Window:
        """See base class."""
        shape = (self.capacity, replicas(self.model), len(self.tap.buffer.columns))
        return Window(tf.zeros(shape), self.capacity)

    def column(self, window: np.ndarray, name: str) -> np.ndarray:
        """See base class; of each step the fold that readers of a run make of its shares."""
        flat = window.reshape(window.shape[0] * window.shape[1], -1)
        values = super().column(flat, name)
        columns = self.tap.buffer.columns
        if name not in columns:
            return np.ones(len(window))
        weight = super().column(flat, "weight" if "weight" in columns else "rows")
        rows = super().column(flat, "rows") if "rows" in columns else weight
        nobody = np.zeros(len(flat), "i4")
        step = np.repeat(np.arange(len(window)), window.shape[1])
        shares = {WORKER: nobody, "replica": nobody, "call": nobody, "step": step}
        return fold(shares | {"rows": rows, "weight": weight, name: values})[name]


def check(model: Any) -> None:
    """Raise a `LossLedgerError` where a loop can't train the model under its strategy."""
    own, around = model._distribute_strategy, tf.distribute.get_strategy()
    if own is None and tf.distribute.has_strategy():
        raise LossLedgerError(
            f"A model made outside the scope of a strategy can't be trained inside it. Received: "
            f"{model.name!r}, inside the scope of {_name(around)}. Make and compile it "
            "inside that scope, or train it outside.",
            slug="loop-distributed",
        )
    if own is not None and not isinstance(own, TRIED):
        raise LossLedgerError(
            "lossledger.Loop trains under MirroredStrategy and OneDeviceStrategy of tf.distribute. "
            f"Received: a model of {_name(own)}. Train it with `fit` or, where Keras can't "
            "do that either, in a loop of your own, with `strategy.run` and `run.step`.",
            slug="loop-distributed",
        )
    if model.jit_compile and replicas(model) > 1:
        raise LossLedgerError(
            "TensorFlow can't train replicas that XLA compiles: it stops at the first variable of "
            f"another device. Received: jit_compile=True, and {replicas(model)} replicas. Compile "
            "the model with jit_compile=False.",
            slug="loop-distributed",
        )


def _name(strategy: Any) -> str:
    """Its name; TensorFlow's own class for several workers has another inside."""
    if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return "MultiWorkerMirroredStrategy"
    return type(strategy).__name__
