"""A tap: the compiled train function of one model, and how each step's row gets out of it.

A backend's tap (`jax.py`, `tensorflow.py`, `torch.py`) leaves the row of a step on the device, and
appends it to a buffer (`buffer.py`), from which the recorder collects.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import keras

from lossledger.keras.buffer import Buffer
from lossledger.keras.describe import FINGERPRINT_LIMIT, optimizers_of, size_of
from lossledger.keras.held import Held
from lossledger.keras.optimizer import State
from lossledger.keras.trace import Layout, Selection, Trace, counted, select

OfBackend = TypeVar("OfBackend", bound=Buffer)


class Position(Protocol):
    """The open call that steps belong to, as its tap sees it."""

    of_arrays: bool
    """Whether Keras makes each batch anew, of arrays."""

    def begins(self, tap: "Tap[Any]", arguments: tuple[Any, ...]) -> None:
        """Called before the first execution of the call, with the train function's arguments."""
        ...

    def backlog(self) -> None:
        """Called where more steps wait to be collected than should be held."""
        ...


class Tap(Generic[OfBackend]):
    """The compiled train function of one model. A subclass per backend gets the rows out.

    Args:
        model: The model trained.
        buffer: Where its steps go.
    """

    full = True
    """Whether a row holds all of an entry, or only what the step's loss needs."""

    hashing = True
    """Whether a step takes its batch's fingerprint, where its row holds one; else it is zeros."""

    def __init__(self, model: Any, buffer: OfBackend) -> None:
        self.model = model
        self.buffer = buffer
        self.position: Position | None = None
        self.fresh = True
        self.optimizers: Mapping[str, Any] = {}
        self.failure: Exception | None = None
        self._shortcut: tuple[list[Any], list[int]] | None = None

    def wrap_step(self, train_step: Any) -> Any:
        """`train_step` that also leaves the step's row behind."""
        return train_step

    def wrap_function(self, function: Any) -> Any:
        """The train function as Keras calls it, once an execution."""
        return function

    def weights(self, arguments: tuple[Any, ...]) -> Held | None:
        """The model's weights before an execution, as `model.weights`; `None` of too many."""
        weights = self.model.weights
        return None if size_of(weights) > FINGERPRINT_LIMIT else self.copies(weights, arguments)

    def copies(self, variables: Sequence[Any], arguments: tuple[Any, ...]) -> Held:
        """Copies of what some variables of the model or its optimizers hold before an execution."""
        del arguments
        return Held([variable.numpy() for variable in variables])

    def states(self, arguments: tuple[Any, ...]) -> dict[str, State]:
        """What the optimizers that train have come to before an execution, by their names."""
        read = partial(self.copies, arguments=arguments)
        return {name: State.of(each, read) for name, each in self.optimizers.items()}

    def attach(self, position: Position | None) -> None:
        """Let the next executions belong to `position`; `None` stops recording them."""
        self.position = position
        self.fresh = True

    def begin(self, arguments: tuple[Any, ...]) -> None:
        """Before an execution: tell the recorder of the call's first, and of a backlog.

        There is nothing to tell of most; a step that is quick looks for itself first.
        """
        position = self.position
        if position is None:
            return
        if self.fresh:
            self.fresh = False
            self.optimizers = optimizers_of(self.model)  # until `compile` puts others in place
            position.begins(self, arguments)
        if len(self.buffer.times) >= self.buffer.backlog:
            position.backlog()

    def leave(self, trace: Trace, logs: Any, *context: Any) -> Any:
        """Leave the step's row behind, by `row`; a failure to do so is kept, never raised."""
        try:
            self.buffer.moves = self.buffer.moves or bool(trace.optimizers)
            selection = self.choose(trace, logs)
            return None if selection is None else self.row(selection, trace, *context)
        except Exception as error:
            self.failure = error
            return None

    def row(self, selection: Selection, trace: Trace, *context: Any) -> Any:
        """Make the row of a step; a subclass says what context it needs."""
        raise NotImplementedError

    def named(self, selection: Selection, trace: Trace, data: Any) -> dict[str, Any]:
        """The row's first values by name, with the batch's rows where the weight isn't that."""
        columns = dict(zip(selection.layout.columns, selection.values, strict=True))
        if selection.layout.weight_kind != "rows" or "weight" not in columns:
            columns["rows"] = self.rows_of(data)
        return columns | counted(trace) if self.full else columns

    def rows_of(self, data: Any) -> Any:
        """Rows of a batch: those of its first leaf."""
        leaf = next((leaf for leaf in keras.tree.flatten(data) if leaf is not None), None)
        return leaf.shape[0] if len(getattr(leaf, "shape", ())) else 0

    def choose(self, trace: Trace, logs: Any) -> Selection | None:
        """What of the trace makes the row; the layout is that of the first trace."""
        layout = self.buffer.layout
        noted = trace.noted()
        metrics = noted[1::3]
        if layout is not None and self._shortcut is not None and metrics == self._shortcut[0]:
            return Selection(layout, tuple([noted[place] for place in self._shortcut[1]]))
        selection = select(self.model, trace, logs)
        if selection is None:
            return None
        if layout is not None and selection.layout.columns != layout.columns:
            return None
        picks = [_place(noted, value) for value in selection.values]
        if metrics and None not in picks:
            self._shortcut = (metrics, picks)
        return selection

    def settle(self, layout: Layout, names: Sequence[str], *, hashed: bool) -> bool:
        """Fix what the rows hold, by the first one; returns whether a later one holds as much."""
        columns = (*names, *(("id0", "id1") if hashed else ()))
        if self.buffer.layout is None:
            self.buffer.layout, self.buffer.columns = layout, columns
        return len(columns) == len(self.buffer.columns)


def _place(noted: list[Any], value: Any) -> int | None:
    """Where in the trace `value` came from, so that an eager step need not choose again."""
    places = [place for place, each in enumerate(noted) if each is value and place % 3 != 1]
    return places[0] if places else None
