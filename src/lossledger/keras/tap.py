"""A tap: the compiled train function of one model, and the entries on their way out of it.

A backend's tap (`jax.py`, `tensorflow.py`, `torch.py`) leaves the rows of a step on the device.
They are fetched later and elsewhere: `collect` is called from the recorder's thread, so that no
training step waits for a transfer. What only the host knows of a step (call, epoch, time) is
noted here when its execution returns, and joined to the rows when they are fetched.
"""

import threading
from array import array
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import keras
import numpy as np

from lossledger.entry import dtype_of
from lossledger.keras.trace import Layout, Selection, Trace, select

COLUMNS = 64
"""Columns of a batch that its fingerprint looks at, at most, evenly spaced over each row."""


BACKLOG = 8192
"""Executions that may wait to be collected before a training step waits for it."""


class Position(Protocol):
    """Where the recorder is: the open call that a step belongs to."""

    def advance(self, tap: "Tap", steps: int) -> tuple[int, int, int, int, int, int]:
        """Count `steps` more; returns call, model, epoch, first batch, first step and time."""
        ...

    def begins(self, tap: "Tap", arguments: tuple[Any, ...]) -> None:
        """Called before the first execution of the call, with the train function's arguments."""
        ...

    def backlog(self) -> None:
        """Called where more steps wait to be collected than should be held."""
        ...


FIELDS = 7
"""Integers kept of an execution: its steps, and what `Position.advance` says of the first one."""


class Tap:
    """The compiled train function of one model. A subclass per backend gets the rows out.

    Args:
        model: The model trained.
    """

    full = True
    """Whether a row holds all of an entry, or only what the step's loss needs."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.lock = threading.Lock()
        self.position: Position | None = None
        self.fresh = True
        self.layout: Layout | None = None
        self.columns: tuple[str, ...] = ()
        # Flat arrays of numbers: an object a step would wake the garbage collector.
        self.executions = array("q")
        self.returned = array("d")
        self.ready: list[tuple[array[int], array[float], Any]] = []
        self.held = self.wanted = False
        self.lost = 0
        self.moves = False
        self.failure: Exception | None = None
        self._shortcut: tuple[list[int], list[Any]] | None = None

    def wrap_step(self, train_step: Any) -> Any:
        """`train_step` that also leaves the step's row behind."""
        return train_step

    def wrap_function(self, function: Any) -> Any:
        """The train function as Keras calls it, once an execution."""
        return function

    def take(self) -> Any:
        """A handle on the rows since the last call, by an asynchronous device copy at most."""
        raise NotImplementedError

    def fetch(self, handle: Any) -> np.ndarray:
        """The rows behind `handle`, float32 of shape `(steps, columns)`; waits for the device."""
        raise NotImplementedError

    def weights(self, arguments: tuple[Any, ...]) -> list[np.ndarray]:
        """The model's weights before an execution, in the order of `model.weights`."""
        del arguments
        return [np.array(weight) for weight in self.model.get_weights()]

    def attach(self, position: Position | None) -> None:
        """Let the next executions belong to `position`; `None` stops recording them."""
        self.position = position
        self.fresh = True

    def executed(self, steps: int) -> None:
        """Note an execution of `steps` steps that has just returned."""
        if self.position is not None:
            self.executions.extend((steps, *self.position.advance(self, steps)))
            self.returned.append(np.nan)

    def begin(self, arguments: tuple[Any, ...]) -> None:
        """Before an execution: tell the recorder of the call's first, and of a backlog."""
        position = self.position
        if position is None:
            return
        if self.fresh:
            self.fresh = False
            position.begins(self, arguments)
        if len(self.returned) >= BACKLOG and not self.held:
            position.backlog()

    def release(self, reported: float) -> None:
        """The last execution has returned `reported` to the user; it may be collected now."""
        with self.lock:
            self.held = False
            if self.returned:
                self.returned[-1] = reported
            if self.wanted:
                self._hand_over()

    def _hand_over(self) -> None:
        self.ready.append((self.executions, self.returned, self.take()))
        self.executions, self.returned = array("q"), array("d")
        self.wanted = False

    def leave(self, trace: Trace, logs: Any, *context: Any) -> Any:
        """Leave the step's row behind, by `row`; a failure to do so is kept, never raised."""
        try:
            self.moves = self.moves or bool(trace.optimizers)
            selection = self.choose(trace, logs)
            return None if selection is None else self.row(selection, trace, *context)
        except Exception as error:
            self.failure = error
            return None

    def row(self, selection: Selection, trace: Trace, *context: Any) -> Any:
        """Make the row of a step; a subclass says what context it needs."""
        raise NotImplementedError

    def named(self, selection: Selection, data: Any) -> dict[str, Any]:
        """The row's first values by name, with the batch's rows where the weight isn't that."""
        columns = dict(zip(selection.layout.columns, selection.values, strict=True))
        if selection.layout.weight_kind != "rows" or "weight" not in columns:
            columns["rows"] = self.rows_of(data)
        return columns

    def rows_of(self, data: Any) -> Any:
        """Rows of a batch: those of its first leaf."""
        leaf = next((leaf for leaf in keras.tree.flatten(data) if leaf is not None), None)
        return leaf.shape[0] if len(getattr(leaf, "shape", ())) else 0

    def choose(self, trace: Trace, logs: Any) -> Selection | None:
        """What of the trace makes the row; the layout is that of the first trace."""
        pattern = [id(update.metric) for update in trace.updates]
        if self._shortcut is not None and pattern == self._shortcut[0] and self.layout is not None:
            return Selection(self.layout, tuple(pick(trace) for pick in self._shortcut[1]))
        selection = select(self.model, trace, logs)
        if selection is None:
            return None
        if self.layout is not None and selection.layout.columns != self.layout.columns:
            return None
        picks = [_pick(trace, value) for value in selection.values]
        if pattern and None not in picks:
            self._shortcut = (pattern, picks)
        return selection

    def settle(self, layout: Layout, names: Sequence[str], *, fingerprint: bool) -> bool:
        """Fix what the rows hold, by the first one; returns whether a later one holds as much."""
        columns = (*names, *(("id0", "id1") if fingerprint else ()))
        if self.layout is None:
            self.layout, self.columns = layout, columns
        return len(columns) == len(self.columns)

    def collect(self) -> list[dict[str, np.ndarray]]:
        """Fetch what was left on the device and return it as blocks of entries.

        While `held`, an execution's returned value is still to come: it is handed over then.
        """
        with self.lock:
            if self.held:
                self.wanted = True
            else:
                self._hand_over()
            ready, self.ready = self.ready, []
        blocks = [self._joined(*each) for each in ready if each[0]]
        return [entries for entries in blocks if entries]

    def _joined(self, table: Any, returned: Any, handle: Any) -> dict[str, np.ndarray]:
        rows = self.fetch(handle)
        executions = np.array(table).reshape(-1, FIELDS)
        ends = executions[:, 0].cumsum()
        if len(rows) != ends[-1]:
            # Only whole executions that have rows, from the first on, are sure to match.
            self.lost += abs(len(rows) - int(ends[-1]))
            count = int(np.searchsorted(ends, len(rows), side="right"))
            executions, rows = executions[:count], rows[: ends[count - 1] if count else 0]
        if self.layout is None or not len(executions):
            return {}
        values = np.array(returned)[: len(executions)]
        return block(self.layout, self.columns, rows, executions, values, moves=self.moves)


def _pick(trace: Trace, value: Any) -> Callable[[Trace], Any] | None:
    """Where in the trace `value` came from, so that an eager step need not choose again."""
    if value is trace.data:
        return lambda trace: trace.data
    for place, update in enumerate(trace.updates):
        if update.values is value:
            return lambda trace, place=place: trace.updates[place].values
        if update.weight is value:
            return lambda trace, place=place: trace.updates[place].weight
    return None


def block(
    layout: Layout,
    columns: Sequence[str],
    rows: np.ndarray,
    executions: np.ndarray,
    returned: np.ndarray,
    *,
    moves: bool = True,
) -> dict[str, np.ndarray]:
    """Join the device's rows with what the host knows of their executions.

    Args:
        layout: How the rows are to be read.
        columns: Names of the rows' columns.
        rows: float32 of shape `(steps, columns)`.
        executions: Those that made the rows, in order: int64 of shape `(executions, FIELDS)`.
        returned: What each returned to the user, float64; NaN where nothing is known of it.
        moves: Whether each step moves the weights, where the rows don't say so.

    Returns:
        A block of entries.
    """
    counts, call, model, epoch, batch, step, now = executions.T
    inner = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    values = dict(zip(columns, rows.T, strict=True))
    entries: dict[str, np.ndarray] = {
        "step": np.repeat(step, counts) + inner,
        "call": np.repeat(call, counts),
        "model": np.repeat(model, counts),
        "epoch": np.repeat(epoch, counts),
        "batch": np.repeat(batch, counts) + inner,
        "time": np.repeat(now, counts),
        "loss": values.pop("loss"),
    }
    if "updated" in values:
        entries["updated"] = values.pop("updated") != 0
    elif moves:
        entries["updated"] = np.ones(len(rows), bool)
    weight = values.pop("weight", None)
    rows_seen = values.pop("rows", weight)
    entries["rows"] = rows_seen
    entries["weight"] = rows_seen if weight is None else weight
    if not np.isnan(returned).all():
        entries["reported"] = np.repeat(returned, counts)
    if layout.penalty != "unknown":
        data = values.pop("data", entries["loss"]).astype("f8")
        with np.errstate(invalid="ignore"):
            entries["penalty"] = entries["loss"].astype("f8") - data
    if "id0" in values:
        lanes = [values.pop(name).copy().view("u4").astype("u8") for name in ("id0", "id1")]
        # 0 stands for no fingerprint.
        entries["batch_id"] = np.maximum(lanes[0] << np.uint64(32) | lanes[1], np.uint64(1))
    entries |= values
    with np.errstate(invalid="ignore", over="ignore"):
        return {name: np.asarray(v, dtype_of(name)) for name, v in entries.items()}


def multipliers(width: int) -> np.ndarray:
    """Odd int32 multipliers of the batch fingerprint, shape `(width + 1, 2)`.

    The last row is what an empty row counts for. A column's number is scrambled by the finalizer
    of MurmurHash3 (public domain, A. Appleby).
    """
    x = np.roll(np.arange(2 * (width + 1), dtype=np.uint32), -2)
    x = x * np.uint32(0x9E3779B1)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        x = (x ^ (x >> np.uint32(shift))) * np.uint32(factor)
    x ^= x >> np.uint32(16)
    return (x | np.uint32(1)).view(np.int32).reshape(-1, 2)


def lanes_of(bits: np.ndarray) -> np.ndarray:
    """The two lanes of each row's hash, int32 of shape `(rows, 2)`; all arithmetic mod 2^32.

    A batch's fingerprint is the sum of its rows' lanes.

    Args:
        bits: int32 of shape `(rows, columns)`: what the fingerprint looks at.
    """
    table = multipliers(bits.shape[1])
    bits = bits ^ (bits >> 16)
    with np.errstate(over="ignore"):
        lanes = np.stack([(bits * row).sum(1, dtype="i4") for row in table[:-1].T], axis=1)
        lanes = lanes + table[-1]
        lanes ^= lanes >> 15
        return lanes * (lanes | 1)


def stride(width: int) -> slice:
    """The columns of a row of `width` values that the fingerprint looks at."""
    step = -(-width // COLUMNS)
    return slice(step // 2, None, step) if step > 1 else slice(None)
