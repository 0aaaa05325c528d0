"""The tap on PyTorch: detached device scalars in a list on the host, stacked when fetched."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from keras import tree

from lossledger.keras import fingerprint
from lossledger.keras import tap as base
from lossledger.keras.buffer import Buffer
from lossledger.keras.optimizer import Rate, applied, micro_steps, scaled
from lossledger.keras.trace import Trace, tracing


class Kept(NamedTuple):
    """A leaf of a batch as it was before the step; `copy` where it may not stay so."""

    leaf: torch.Tensor
    version: int
    copy: torch.Tensor | None

    @property
    def written(self) -> bool:
        """Whether an operation has since written to the leaf in place."""
        return self.leaf._version != self.version

    @property
    def shared(self) -> bool:
        """Whether others may write to its memory: numpy's, another process's can't be resized."""
        return not self.leaf.untyped_storage().resizable()


class TorchBuffer(Buffer):
    """Rows as tuples of detached scalars, the last of them what of the batch is to be hashed."""

    def stacked(self, rows: Sequence[Any]) -> np.ndarray:
        """See base class."""
        lanes = self.hashed([_on_host(row[-1]) for row in rows])
        return np.column_stack([values_of(rows), *lanes])


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
        self.copies = True
        self._rate_of: Any = None
        self._rate: Rate | None = None
        self._copied: tuple[Any, int, Any] = (None, -1, None)

    def wrap_function(self, function: Any) -> Any:
        """The train function that keeps each step's row."""
        buffer = self.buffer

        def train_function(data: Any) -> Any:
            if self.position is None:
                return function(data)
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
        self.copies = True

    def before(self, data: Any) -> tuple[Any, Any]:
        """What has to be read before the step: the batch, and the updates made so far."""
        try:
            moved = None
            if self.scaled:
                moved = self.model.optimizer.inner_optimizer._iterations.value.clone()
            leaves = fingerprint.content(data)
            if type(leaves) is not tuple or any(type(leaf) is not torch.Tensor for leaf in leaves):
                leaves = tree.flatten(leaves)
            return [each for leaf in leaves if (each := self._seen(leaf)) is not None], moved
        except Exception as error:
            self.failure = error
            return None, None

    def _seen(self, leaf: Any) -> Any:
        """What the fingerprint looks at: a copy, or the leaf where nobody else writes to it."""
        if not isinstance(leaf, torch.Tensor):
            return None if leaf is None else fingerprint.looked_at(leaf)
        shape = leaf.shape
        if len(shape) == 2 and 0 < shape[1] <= fingerprint.COLUMNS and not leaf.dtype.is_complex:
            return Kept(leaf, leaf._version, leaf.detach().clone() if self.copies else None)
        return _columns(leaf)

    def row(self, selection: Any, trace: Trace, *context: Any) -> tuple[Any, ...] | None:
        """See base class."""
        data, batch, moved = context
        columns = self.named(selection, trace, data)
        if self.full:
            self._optimizer_columns(columns, trace, moved)
        if not self.settle(selection.layout, [*columns], hashed=bool(batch)):
            return None
        if self.buffer.returned is None:  # else the batch is the user's
            kept = [leaf for leaf in batch if type(leaf) is Kept]
            self.copies = any(leaf.written or (self.copies and leaf.shared) for leaf in kept)
        return (*[_detached(value) for value in columns.values()], batch)

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


def _columns(leaf: torch.Tensor) -> torch.Tensor | None:
    """A copy of the columns of a leaf that the fingerprint looks at."""
    if not leaf.ndim or 0 in leaf.shape[1:] or leaf.is_complex():
        return None
    flat = leaf.detach().reshape(leaf.shape[0], -1)
    return flat[:, fingerprint.stride(flat.shape[1])].clone()


def _on_host(batch: Sequence[Any]) -> list[np.ndarray] | None:
    """What was kept of a batch; `None` where a leaf that wasn't copied has been written to."""
    leaves: list[np.ndarray] = []
    for leaf in batch:
        if type(leaf) is Kept:
            if leaf.copy is None and leaf.written:
                return None
            leaf = leaf.leaf if leaf.copy is None else leaf.copy
        leaves.append(_array(leaf))
    return leaves


def _array(leaf: Any) -> np.ndarray:
    if not isinstance(leaf, torch.Tensor):
        return leaf
    host = leaf.detach().cpu()
    return (host.float() if host.dtype is torch.bfloat16 else host).numpy()


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, torch.Tensor) else value


def _fetch_column(column: Any) -> np.ndarray:
    if isinstance(column[0], torch.Tensor):
        return torch.stack([value.reshape(()) for value in column]).to(torch.float32).cpu().numpy()
    return np.array(column, "f4")
