"""The tap on PyTorch: detached device scalars in a list on the host, stacked when fetched."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from keras import tree
from keras.ops import convert_to_numpy

from lossledger.keras import fingerprint
from lossledger.keras import tap as base
from lossledger.keras.buffer import Buffer
from lossledger.keras.held import Held
from lossledger.keras.optimizer import Rate, applied, micro_steps, scaled
from lossledger.keras.trace import Trace, tracing


class Quick(NamedTuple):
    """How the row of a step is made where it can't differ from the last but in its values.

    `metrics` are those updated, `picks` the places of the row's values in `Trace.noted`, and `rest`
    the row's constant end, good as long as the learning rate is of this version.
    """

    metrics: list[Any]
    picks: list[int]
    optimizer: Any
    rate: Any
    tensor: Any
    version: int
    rest: tuple[Any, ...]

    def row(self, trace: Trace, batch: Any) -> tuple[Any, ...] | None:
        """The row; `None` where it has to be made in full."""
        noted = trace.noted()
        same = (
            noted[1::3] == self.metrics
            and trace.optimizers == [self.optimizer]
            and self.optimizer._learning_rate is self.rate
            and self.tensor._version == self.version
        )
        if not same:
            return None
        for weights, mask in trace.reductions:
            if weights is not None or mask is not None:
                return None
        return (*[_detached(noted[place]) for place in self.picks], *self.rest, batch)


class TorchBuffer(Buffer):
    """Rows as tuples of detached scalars, the last of them what of the batch is to be hashed."""

    def stacked(self, rows: Sequence[Any]) -> np.ndarray:
        """See base class."""
        values = values_of(rows)
        batches = [_unchanged(row[-1]) for row in rows]
        if not batches[0]:
            return values
        self.hold(sum(leaf.nbytes for leaf in batches[0]))
        return np.column_stack([values, fingerprint.of_batches(batches, _stacked)])


def values_of(rows: Sequence[Any]) -> np.ndarray:
    """The values of rows but for what is to be hashed, float32 of shape `(rows, values)`."""
    *values, _ = zip(*rows, strict=True)
    return np.stack([_fetch_column(column) for column in values], axis=1)


class TorchTap(base.Tap[TorchBuffer]):
    """Rows as detached tensors; see `lossledger.keras.tap.Tap`.

    Each of PyTorch's operations costs a step several microseconds: the columns that a fingerprint
    looks at are kept, and hashed for many batches together when they are fetched.
    """

    def __init__(self, model: Any) -> None:
        super().__init__(model, TorchBuffer())
        self.scaled = scaled(model)
        self._quick: Quick | None = None
        self._referred: bool | None = None
        self._rate_of: Any = None
        self._rate: Rate | None = None
        self._copied: tuple[Any, int, Any] = (None, -1, None)

    def wrap_function(self, function: Any) -> Any:
        """The train function that keeps each step's row."""
        buffer = self.buffer

        def train_function(data: Any) -> Any:
            if self.position is None:
                return function(data)
            if self.fresh or len(buffer.times) >= buffer.backlog:
                self.begin((data,))
            # Before the step: a training step of the user's may change its batch in place.
            before = self.before(data[0])
            trace = Trace(copy=torch.clone)
            with tracing(trace):
                logs = function(data)
            buffer.rows.append(self.leave(trace, logs, data[0], *before))
            buffer.executed()
            return logs

        return train_function

    def attach(self, position: base.Position | None) -> None:
        """See base class."""
        super().attach(position)
        self._quick = None
        # Whether batches are referred to, not copied; the call's first step shows it.
        self._referred = None if position is not None and position.of_arrays else False

    def before(self, data: Any) -> tuple[Any, Any]:
        """What has to be read before the step: the batch, and the updates made so far."""
        try:
            moved = None
            if self.scaled:
                moved = self.model.optimizer.inner_optimizer._iterations.value.clone()
            leaves = fingerprint.content(data)
            # A `train_on_batch` within the call has a batch of the program's.
            if self._referred and all([type(leaf) is torch.Tensor for leaf in leaves]):
                return leaves, moved
            seen = []
            for leaf in leaves if type(leaves) is tuple else (leaves,):
                if type(leaf) is torch.Tensor:
                    seen.append(_seen(leaf))
                else:
                    seen += [_seen(each) for each in tree.flatten(leaf)]
            return [each for each in seen if each is not None], moved
        except Exception as error:
            self.failure = error
            return None, None

    def copies(self, variables: Sequence[Any], arguments: tuple[Any, ...]) -> Held:
        """See base class."""
        del arguments
        # To the host at once: a training may need all that the device has.
        copies = [each.value.detach().to("cpu", copy=True) for each in variables]
        return Held(copies, convert_to_numpy)

    def leave(self, trace: Trace, logs: Any, *context: Any) -> Any:
        """See base class."""
        data, batch, _ = context
        if self._referred is None:
            self._referred = _referable(fingerprint.content(data))
        if self._quick is not None and batch is not None:
            row = self._quick.row(trace, batch)
            if row is not None:
                return row
        return super().leave(trace, logs, *context)

    def row(self, selection: Any, trace: Trace, *context: Any) -> tuple[Any, ...] | None:
        """See base class."""
        data, batch, moved = context
        columns = self.named(selection, trace, data)
        if self.full:
            self._optimizer_columns(columns, trace, moved)
        if not self.settle(selection.layout, [*columns], hashed=bool(batch)):
            return None
        self._learn(len(selection.values), columns, trace)
        return (*[_detached(value) for value in columns.values()], batch)

    def _learn(self, chosen: int, columns: dict[str, Any], trace: Trace) -> None:
        """Make the next rows quickly, where nothing beyond the chosen values can change unseen."""
        self._quick = None
        rest = [*columns][chosen:]
        constant = {"elements", "sample_weight", "learning_rate"}.issuperset(rest)
        by_value = self._rate is not None and self._rate.schedule is None
        if self._shortcut and constant and by_value and "learning_rate" in rest:
            tensor, version, _ = self._copied
            ends = tuple(columns[name] for name in rest)
            optimizer = applied(trace, self.model)
            self._quick = Quick(*self._shortcut, optimizer, self._rate_of, tensor, version, ends)

    def _optimizer_columns(self, columns: dict[str, Any], trace: Trace, moved: Any) -> None:
        optimizer = applied(trace, self.model)
        if optimizer is None:
            return
        if optimizer._learning_rate is not self._rate_of:
            self._rate_of, self._rate = optimizer._learning_rate, Rate.of(optimizer)
        if self._rate is not None:
            columns["learning_rate"] = self._rate_now(self._rate, optimizer)
        if moved is not None:
            columns["updated"] = optimizer._iterations.value != moved
        elif micro_steps(optimizer):
            columns["updated"] = optimizer._iterations.value % micro_steps(optimizer) == 0

    def _rate_now(self, rate: Rate, optimizer: Any) -> Any:
        """The rate's value: a variable is assigned in place, so it is copied when it changes."""
        if rate.schedule is not None:
            return torch.as_tensor(rate.at(optimizer._iterations.value - 1)).detach()
        value = rate.at(None)
        if value is not self._copied[0] or value._version != self._copied[1]:
            self._copied = (value, value._version, value.detach().clone())
        return self._copied[2]


def _seen(leaf: Any) -> Any:
    """A copy of the columns of a leaf that the fingerprint looks at."""
    if not isinstance(leaf, torch.Tensor):
        return None if leaf is None else fingerprint.looked_at(leaf)
    if leaf.is_cpu:
        # NumPy copies in a fifth of the time of PyTorch, but doesn't take every tensor.
        try:
            return fingerprint.looked_at(leaf.numpy())
        except (RuntimeError, TypeError):
            pass
    if not leaf.ndim or 0 in leaf.shape[1:] or leaf.is_complex():
        return None
    flat = leaf.detach().reshape(leaf.shape[0], -1)
    return flat[:, fingerprint.stride(flat.shape[1])].clone()


def _referable(leaves: Any) -> bool:
    """Whether a batch that Keras made of arrays can be read later: nothing has written to it."""
    return isinstance(leaves, tuple) and all(
        type(leaf) is torch.Tensor
        and leaf.ndim == 2
        and 0 < leaf.shape[1] <= fingerprint.COLUMNS
        and not leaf.is_complex()
        and leaf._version == 0
        for leaf in leaves
    )


def _unchanged(leaves: Any) -> Any:
    """The leaves of a batch, none of their rows where one was written to since it was kept."""
    if type(leaves) is tuple and any([leaf._version for leaf in leaves]):
        return [np.zeros((0, *leaf.shape[1:]), "f4") for leaf in leaves]
    return leaves


def _stacked(leaves: Sequence[Any]) -> np.ndarray:
    """Leaves of one shape as one array."""
    if not all(isinstance(leaf, torch.Tensor) for leaf in leaves):
        return np.stack([np.asarray(leaf) for leaf in leaves])
    host = torch.stack(list(leaves)).detach().cpu()
    return (host.float() if host.dtype is torch.bfloat16 else host).numpy()


def _detached(value: Any) -> Any:
    # Not by `detach`, which is dispatched as an operation is.
    return value.data if isinstance(value, torch.Tensor) and value.requires_grad else value


def _fetch_column(column: Any) -> np.ndarray:
    if not isinstance(column[0], torch.Tensor):
        return np.array(column, "f4")
    if all(value is column[0] for value in column):
        return np.full(len(column), column[0].item(), "f4")
    scalars = [value.reshape(()) if value.ndim else value for value in column]
    return torch.stack(scalars).to(torch.float32).cpu().numpy()
