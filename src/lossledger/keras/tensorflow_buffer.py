"""Steps on TensorFlow on their way to the recorder: what a step hands over, and how it is fetched.

A staging area is a queue on the device: one operation hands over what a step has computed, as it
lies there. To make a vector of it is left to the fetching, which the training doesn't wait for. A
list in a variable costs a step 13 microseconds more, in reading, copying and assigning it.
"""

import threading
import weakref
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

import numpy as np
import tensorflow as tf

from lossledger.keras import fingerprint
from lossledger.keras.buffer import Buffer

UNRECORDED = 128
"""Executions that nobody records, after which what they left behind is thrown away."""

_VECTOR = np.array([-1], np.int32)
_NO_DIMS = np.zeros(0, np.int64)
_names = count()
_abandoned: list[tuple[str, Mapping[str, Any]]] = []
"""Areas of buffers that are gone, which may still hold something."""


class VectorBuffer(Buffer):
    """Rows as vectors of float32: the row's values, its leaves' widths, and the leaves' bits.

    They are hashed here: that takes as many operations again as the rest of the row. `leaves` is
    how many a batch has. The vector of a step without a row is empty.
    """

    def __init__(self) -> None:
        super().__init__()
        self.leaves = 0

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
            rows[places] = self._rows(block)
        return rows[kept], kept

    def _rows(self, block: np.ndarray) -> np.ndarray:
        """The rows of vectors of one length."""
        if not self.leaves:
            return block
        self.hold(block[0].nbytes)
        values = len(self.columns) - 2
        bits = block[:, values + self.leaves :]
        rows = np.zeros((len(block), len(self.columns)), "f4")
        rows[:, :values] = block[:, :values]
        shapes, which = np.unique(block[:, values:][:, : self.leaves], axis=0, return_inverse=True)
        for place, widths in enumerate(shapes):
            alike = slice(None) if len(shapes) == 1 else which == place
            rows[alike, -2:] = fingerprint.of_stacked(_leaves(bits[alike], widths.astype(int)))
        return rows


def _leaves(bits: np.ndarray, widths: np.ndarray) -> list[np.ndarray]:
    """Leaves of shape `(steps, rows, width)`, int32, from their bits one after the other."""
    bits = np.ascontiguousarray(bits).view("i4")
    rows = bits.shape[1] // max(1, int(widths.sum()))
    ends = np.cumsum([0, *(rows * widths)]).tolist()
    return [
        bits[:, end - rows * width : end].reshape(len(bits), rows, width)
        for end, width in zip(ends[1:], widths.tolist(), strict=True)
    ]


class StagedBuffer(VectorBuffer):
    """What steps handed over, in a staging area on the device.

    There may be more than the steps recorded: of a step that failed, or of executions that nobody
    recorded. Those come after the steps that had been recorded by then, and are thrown away.

    Args:
        device: Where the model is.
    """

    def __init__(self, device: str) -> None:
        super().__init__()
        self._device = device
        self._area = {"capacity": 0, "memory_limit": 0, "container": ""}
        self._area["shared_name"] = f"lossledger/{next(_names)}"
        # An area outlives who knows its name. Whoever lets go may be tracing a graph: not now.
        weakref.finalize(self, _abandoned.append, (device, self._area)).atexit = False
        self._parts = 0
        self._vectors: Any = None
        self._draining = threading.RLock()
        self._taken = self._drained = self._unrecorded = 0
        # After how many steps how many are to be thrown away.
        self._strays: list[tuple[int, int]] = []

    def attach(self, *arguments: Any, **options: Any) -> None:
        """See base class."""
        super().attach(*arguments, **options)
        while _abandoned:
            _asked(tf.raw_ops.StageClear, *_abandoned.pop())
        self.disown()

    def stage(self, parts: Sequence[Any] | None) -> None:
        """Hand over the tensors that make a step's vector; within the step. `None`: no row."""
        self._parts = self._parts or len(parts or (0,))
        if parts is None:
            parts = [tf.zeros(0)] * self._parts
        elif len(parts) != self._parts:  # the first of all steps had no row
            parts = [joined(parts)]
        with tf.device(self._device):
            tf.raw_ops.Stage(values=parts, **self._area)

    def executed_unrecorded(self) -> None:
        """An execution that is nobody's has returned: what it left behind is of no use."""
        self._unrecorded += 1
        if self._unrecorded >= UNRECORDED:
            self._unrecorded = 0
            with self._draining, self.lock:
                if self._drained == self._taken + len(self.times):
                    self._strays.clear()
                    _asked(tf.raw_ops.StageClear, self._device, self._area)

    def disown(self) -> None:
        """What was handed over beyond the steps recorded so far is no step's."""
        with self._draining, self.lock:
            recorded = self._taken + len(self.times)
            known = recorded - self._drained + sum(strays for _, strays in self._strays)
            if (more := self._waiting() - known) > 0:
                self._strays.append((recorded, more))

    def take(self, count: int) -> Any:
        """See base class."""
        self._taken += count
        return count

    def fetch(self, handle: Any) -> tuple[np.ndarray, Any]:
        """See base class."""
        with self._draining:
            return self.decoded(*self._drain(handle))

    def _drain(self, steps: int) -> tuple[np.ndarray, np.ndarray]:
        """The vectors of the next steps, one after the other, and how long each of them is."""
        begin, self._drained = self._drained, self._drained + steps
        strays = [each for each in self._strays if each[0] <= self._drained]
        del self._strays[: len(strays)]
        wanted = steps + sum(number for _, number in strays)
        ours = np.ones(wanted, bool)
        before = 0
        for place, number in strays:
            start = place - begin + before
            ours[start : start + number] = False
            before += number
        # To ask for more than is there would wait for ever.
        there = min(wanted, self._waiting())
        lengths = np.zeros(wanted, np.int64)
        whole = np.zeros(0, "f4")
        if there:
            self._vectors = self._vectors or self._traced()
            tensors = self._vectors(tf.constant(there))
            whole, lengths[:there] = [tensor.numpy() for tensor in tensors]
        if not ours.all():
            whole = whole[np.repeat(ours, lengths)]
        return whole, lengths[ours]

    def _traced(self) -> Any:
        """The function that takes a number of steps out of the area: vectors and their lengths."""

        def taken(number: Any, vectors: Any) -> Any:
            parts = tf.raw_ops.Unstage(dtypes=[tf.float32] * self._parts, **self._area)
            longer = tf.raw_ops.TensorListPushBack(input_handle=vectors, tensor=joined(parts))
            return number - 1, longer

        def vectors(number: Any) -> Any:
            none = tf.raw_ops.EmptyTensorList(
                element_shape=_VECTOR, max_num_elements=-1, element_dtype=tf.float32
            )
            with tf.device(self._device):
                loop = (lambda number, _: number > 0, taken, (number, none))
                _, vectors = tf.while_loop(*loop, parallel_iterations=1)
            return tf.raw_ops.TensorListConcatV2(
                input_handle=vectors,
                element_shape=_VECTOR,
                leading_dims=_NO_DIMS,
                element_dtype=tf.float32,
            )

        spec = tf.TensorSpec((), tf.int32)
        return tf.function(vectors, autograph=False).get_concrete_function(spec)

    def _waiting(self) -> int:
        """How many are in the area."""
        return int(_asked(tf.raw_ops.StageSize, self._device, self._area))


def _asked(operation: Any, device: str, area: Mapping[str, Any]) -> Any:
    with tf.init_scope(), tf.device(device):
        return operation(dtypes=[tf.float32], **area)


def joined(parts: Sequence[Any]) -> Any:
    """A step's vector, of tensors of float32."""
    flat = [tf.reshape(part, [-1]) for part in parts]
    return tf.concat(flat, 0) if len(flat) > 1 else flat[0]
