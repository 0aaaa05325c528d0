"""The tap on PyTorch: detached device scalars in a list on the host, stacked when fetched."""

from typing import Any

import numpy as np
import torch
from keras import tree

from lossledger.keras import tap as base
from lossledger.keras.optimizer import Rate, applied, micro_steps, scaled
from lossledger.keras.trace import Trace, tracing

BACKLOG = 2**23
"""Bytes of batch columns held at most until their fingerprints are taken."""


class TorchTap(base.Tap):
    """Rows as lists of detached tensors; see `lossledger.keras.tap.Tap`.

    Each of PyTorch's operations costs a step several microseconds: the columns that a fingerprint
    looks at are copied at once, and hashed for many batches together when they are fetched.
    """

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.rows: list[Any] = []
        self.batches: list[Any] = []
        self.held_bytes = 0
        self.scaled = scaled(model)
        self._rate_of: Any = None
        self._rate: Rate | None = None
        self._copied: tuple[Any, int, Any] = (None, -1, None)

    def wrap_function(self, function: Any) -> Any:
        """The train function that keeps each step's row."""

        def train_function(data: Any) -> Any:
            if self.position is None:
                return function(data)
            self.begin((data,))
            with self.lock:
                # Before the step: a training step of the user's may change its batch in place.
                before = self.before(data[0])
                trace = Trace()
                with tracing(trace):
                    logs = function(data)
                self.leave(trace, logs, data[0], *before)
                self.executed(1)
            if self.held_bytes > BACKLOG and not self.held:
                self.position.backlog()
            return logs

        return train_function

    def before(self, data: Any) -> tuple[Any, Any]:
        """What has to be read before the step: the batch, and the updates made so far."""
        try:
            moved = None
            if self.scaled:
                moved = self.model.optimizer.inner_optimizer._iterations.value.clone()
            return _columns_of(data), moved
        except Exception as error:
            self.failure = error
            return None, None

    def row(self, selection: Any, trace: Trace, *context: Any) -> None:
        """See base class; keeps the row."""
        data, batch, moved = context
        columns = self.named(selection, data)
        if self.full:
            self._optimizer_columns(columns, trace, moved)
        if self.settle(selection.layout, [*columns], fingerprint=bool(batch)):
            self.rows.extend([_detached(value) for value in columns.values()])
            self.batches.append(batch)
            self.held_bytes += sum(leaf.nbytes for leaf in batch or ())

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

    def take(self) -> Any:
        """See base class."""
        rows, self.rows = self.rows, []
        batches, self.batches = self.batches, []
        self.held_bytes = 0
        return rows, batches

    def fetch(self, handle: Any) -> np.ndarray:
        """See base class."""
        rows, batches = handle
        if not rows:
            return np.zeros((0, len(self.columns)), "f4")
        values = stacked(rows, len(rows) // len(batches))
        if batches[0]:
            lanes = [lane.view("f4") for lane in fingerprints(batches).T.copy()]
            values = np.column_stack([values, *lanes])
        return values


def stacked(rows: list[Any], width: int) -> np.ndarray:
    """The values of steps, `width` a step one after the other, as float32 of a row a step."""
    columns = [_fetch_column(rows[place::width]) for place in range(width)]
    return np.stack(columns, axis=1) if columns else np.zeros((0, 0), "f4")


def _columns_of(data: Any) -> list[Any]:
    """Copies of the columns of a batch that its fingerprint looks at, a leaf each."""
    content = data[:2] if isinstance(data, tuple) else (data,)
    kinds = {type(leaf) for leaf in content}
    alike = kinds == {torch.Tensor} and all(_is_narrow(leaf) for leaf in content)
    if alike and len({len(leaf) for leaf in content}) == 1:
        # One operation, in the commonest case; numpy's is the cheaper where it can be.
        if content[0].is_cpu:
            return [np.concatenate([leaf.numpy() for leaf in content], axis=1)]
        return [torch.cat(content, dim=1)]
    nested = not all(kind in (torch.Tensor, np.ndarray, type(None)) for kind in kinds)
    leaves = [_columns(leaf) for leaf in (tree.flatten(content) if nested else content)]
    return [leaf for leaf in leaves if leaf is not None]


def _is_narrow(leaf: Any) -> bool:
    narrow = leaf.ndim == 2 and 0 < leaf.shape[1] <= base.COLUMNS
    return narrow and leaf.dtype is torch.float32 and not leaf.requires_grad


def _columns(leaf: Any) -> Any:
    shape = getattr(leaf, "shape", ())
    if not len(shape) or 0 in shape[1:]:
        return None
    if isinstance(leaf, torch.Tensor):
        flat = leaf.detach()
        flat = flat if flat.ndim == 2 else flat.reshape(flat.shape[0], -1)
        flat = flat[:, base.stride(flat.shape[1])] if flat.shape[1] > base.COLUMNS else flat
        return None if flat.is_complex() else flat.clone()
    flat = np.asarray(leaf).reshape(shape[0], -1)
    return flat[:, base.stride(flat.shape[1])].copy() if flat.dtype.kind in "fiub" else None


def fingerprints(batches: Any) -> np.ndarray:
    """Fingerprints of batches, int32 lanes of shape `(batches, 2)`.

    Equal to those of `lossledger.keras.tensorflow.fingerprint`.

    Args:
        batches: For each batch its leaves' columns, as `_columns_of` gives them.
    """
    counts = [min(len(leaf) for leaf in batch) for batch in batches]
    leaves = [
        np.concatenate([_bits(batch[place])[:n] for batch, n in zip(batches, counts, strict=True)])
        for place in range(len(batches[0]))
    ]
    lanes = base.lanes_of(np.concatenate(leaves, axis=1))
    starts = np.cumsum([0, *counts[:-1]])
    return np.add.reduceat(lanes, starts, axis=0, dtype="i4")


def _bits(leaf: Any) -> np.ndarray:
    values = leaf.cpu() if isinstance(leaf, torch.Tensor) else leaf
    if isinstance(values, torch.Tensor):
        values = (values.to(torch.float32) if values.is_floating_point() else values).numpy()
    if values.dtype.kind == "f":
        return np.ascontiguousarray(values, "f4").view("i4")
    return values.astype("i4")


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, torch.Tensor) else value


def _fetch_column(column: Any) -> np.ndarray:
    if isinstance(column[0], torch.Tensor):
        return torch.stack([value.reshape(()) for value in column]).to(torch.float32).cpu().numpy()
    return np.array(column, "f4")
