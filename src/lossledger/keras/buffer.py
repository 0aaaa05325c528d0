"""The steps of one tap between the training, which only appends, and the recorder, which collects.

A backend's tap appends each step's row as it lies on the device, and the buffer what only the host
knows: the step's number in the run and its time. `collect` is called from the recorder's thread: it
fetches the rows, so that no training step waits for a transfer, and joins the two. A buffer knows
nothing of the model: what a model left behind outlives it.
"""

import threading
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from time import perf_counter_ns
from typing import Any, NamedTuple

import numpy as np

from lossledger.entry import dtype_of
from lossledger.keras.trace import Layout
from lossledger.vectors import distinct

BACKLOG = 8192
"""Steps that may wait to be collected before a training step waits for it."""

BACKLOG_BYTES = 2**23
"""Bytes of batches that may wait likewise, where their fingerprints are taken when collected."""

_OPTIONAL = ("elements", "sample_weight")


class Mark(NamedTuple):
    """Where the training is from a time on: its call, and the epoch's first batch."""

    time: int
    call: int
    model: int
    epoch: int
    batch: int


class Buffer:
    """Steps on their way from a training to the recorder. A subclass per backend fetches rows.

    The training's thread appends without a lock: a row, then its number, then its time. A step is
    there when its time is.
    """

    def __init__(self) -> None:
        self.layout: Layout | None = None
        self.columns: tuple[str, ...] = ()
        self.moves = False
        self.rows: list[Any] = []
        # Flat arrays of numbers: an object a step would wake the garbage collector.
        self.numbers = array("q")
        self.times = array("q")
        self.returned: array[float] | None = None
        self.backlog = BACKLOG
        self.seen = self.lost = 0
        self.lock = threading.Lock()
        self._count: Iterator[int] = iter(())
        self._marks: list[Mark] = []
        self._batch = 0

    def attach(self, count: Iterator[int], *, returning: bool) -> None:
        """Take steps from here on.

        Args:
            count: Numbers the run's steps.
            returning: Whether a step isn't to be collected before `returns` was called for it.
        """
        self._count = count
        self.returned = array("d") if returning else None
        self.seen = self.lost = 0

    def mark(self, call: int, model: int, epoch: int, batch: int) -> None:
        """The steps from here on belong to this call and epoch."""
        self._marks.append(Mark(perf_counter_ns(), call, model, epoch, batch))

    def executed(self) -> None:
        """A step, whose row has been appended, has returned."""
        self.numbers.append(next(self._count))
        self.times.append(perf_counter_ns())

    def executed_many(self, steps: int) -> None:
        """As `executed`, for `steps` steps at once."""
        self.numbers.extend(islice(self._count, steps))
        self.times.extend(array("q", [perf_counter_ns()]) * steps)

    def returns(self, value: float) -> None:
        """The last execution, if there was one, has returned `value` to the user."""
        with self.lock:
            if self.returned is not None:
                self.returned.extend([value] * (len(self.times) - len(self.returned)))

    @property
    def steps(self) -> int:
        """Steps so far, collected or not."""
        with self.lock:
            return self.seen + len(self.times)

    @property
    def waiting(self) -> int:
        """Steps that can be collected."""
        return len(self.times) if self.returned is None else len(self.returned)

    @property
    def batch(self) -> int:
        """The batch of the epoch that is on after those collected."""
        if len(self._marks) == 1:
            return self._marks[0].batch + self._batch
        return self._marks[-1].batch if self._marks else 0

    def take(self, count: int) -> Any:
        """A handle on the rows of the first `count` steps, by a device copy at most."""
        handle = self.rows[:count]
        del self.rows[:count]
        return handle

    def fetch(self, handle: Any) -> tuple[np.ndarray, Any]:
        """The rows behind `handle`, which waits for the device.

        Returns:
            float32 of shape `(kept, columns)`, and which of the steps they are of.
        """
        kept = [place for place, row in enumerate(handle) if row is not None]
        if not kept:
            return np.zeros((0, len(self.columns)), "f4"), kept
        return self.stacked([handle[place] for place in kept]), kept

    def stacked(self, rows: Sequence[Any]) -> np.ndarray:
        """Rows as they were appended, one or more, as float32 of shape `(steps, columns)`."""
        raise NotImplementedError

    def hold(self, size: int) -> None:
        """Bound how many steps may wait, by the bytes that are kept of a step's batch."""
        self.backlog = max(1, min(BACKLOG, BACKLOG_BYTES // max(1, size)))

    def collect(self) -> dict[str, np.ndarray]:
        """Fetch the steps that wait, as a block of entries; an empty one where there are none."""
        with self.lock:
            count = self.waiting
            if not count:
                return {}
            numbers, times = np.array(self.numbers[:count]), np.array(self.times[:count])
            returned = None if self.returned is None else self.returned[:count]
            del self.numbers[:count], self.times[:count]
            if self.returned is not None:
                del self.returned[:count]
            handle = self.take(count)
            self.seen += count
            self.lost += count  # until they are fetched
        places = self._places(times)
        rows, kept = self.fetch(handle)
        self.lost -= distinct(np.asarray(kept))
        if self.layout is None or not len(rows):
            return {}
        host = {"step": numbers, "time": times, **places}
        if returned is not None:
            host["reported"] = np.array(returned)
        host = {name: column[kept] for name, column in host.items()}
        return _entries(self.layout, dict(zip(self.columns, rows.T, strict=True)), host, self.moves)

    def _places(self, times: np.ndarray) -> dict[str, np.ndarray]:
        """Call, model, epoch and batch of steps, by the last mark before each."""
        marks = list(self._marks)
        which = np.searchsorted([mark.time for mark in marks], times, side="right") - 1
        first = np.searchsorted(which, np.arange(len(marks)))
        begins = np.array([mark.batch for mark in marks])
        begins[0] += self._batch
        places = {
            name: np.array([getattr(mark, name) for mark in marks])[which]
            for name in ("call", "model", "epoch")
        }
        places["batch"] = begins[which] + np.arange(len(times)) - first[which]
        last = int(which[-1])
        self._batch = int(places["batch"][-1]) + 1 - marks[last].batch
        del self._marks[:last]
        return places


def _entries(
    layout: Layout, values: dict[str, np.ndarray], host: Mapping[str, np.ndarray], moves: bool
) -> dict[str, np.ndarray]:
    """Join the device's rows with what the host knows of their steps.

    Args:
        layout: How the rows are to be read.
        values: The rows' columns by name, float32.
        host: Columns of the entries.
        moves: Whether each step moves the weights, where the rows don't say so.
    """
    entries = {**host, "loss": values.pop("loss")}
    if "updated" in values:
        entries["updated"] = values.pop("updated") != 0
    elif moves:
        entries["updated"] = np.ones(len(entries["loss"]), bool)
    weight = values.pop("weight", None)
    seen = values.pop("rows", weight)
    entries["rows"] = seen
    entries["weight"] = seen if weight is None else weight
    for name in _absent(values, _OPTIONAL):
        del values[name]
    for name in _absent(entries, ("reported",)):
        del entries[name]
    if layout.penalty != "unknown":
        data = values.pop("data", entries["loss"]).astype("f8")
        with np.errstate(invalid="ignore"):
            entries["penalty"] = entries["loss"].astype("f8") - data
    if "id0" in values:
        lanes = [values.pop(name).copy().view("u4").astype("u8") for name in ("id0", "id1")]
        entries["batch_id"] = lanes[0] << np.uint64(32) | lanes[1]
    entries |= values
    with np.errstate(invalid="ignore", over="ignore"):
        return {name: np.asarray(v, dtype_of(name)) for name, v in entries.items()}


def _absent(columns: Mapping[str, np.ndarray], names: Iterable[str]) -> list[str]:
    """Columns that say nothing: NaN throughout."""
    return [name for name in names if name in columns and np.isnan(columns[name]).all()]
