"""The tap on PyTorch: detached device scalars in a list on the host, stacked when fetched."""

from typing import Any

import numpy as np
import torch
from keras import tree

from lossledger.keras import tap as base
from lossledger.keras.optimizer import Rate, applied, micro_steps, scaled
from lossledger.keras.trace import Trace, tracing


class TorchTap(base.Tap):
    """Rows as lists of detached tensors; see `lossledger.keras.tap.Tap`."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.rows: list[list[Any]] = []
        self.ids: list[Any] = []
        self._tables: dict[tuple[int, Any], Any] = {}

    def wrap_function(self, function: Any) -> Any:
        """The train function that keeps each step's row."""

        def train_function(data: Any) -> Any:
            if self.position is None:
                return function(data)
            self.begin((data,))
            with self.lock:
                # Before the step: a training step of the user's may change its batch in place.
                before = self._before(data[0])
                trace = Trace()
                with tracing(trace):
                    logs = function(data)
                self.leave(trace, logs, data[0], *before)
                self.executed(1)
            return logs

        return train_function

    def _before(self, data: Any) -> tuple[Any, Any]:
        """What has to be read before the step: the batch, and the updates made so far."""
        try:
            return self.fingerprint(data), _iterations(self.model)
        except Exception as error:
            self.failure = error
            return None, None

    def row(self, selection: Any, trace: Trace, *context: Any) -> None:
        """See base class; keeps the row."""
        data, lanes, moved = context
        layout = selection.layout
        columns = dict(zip(layout.columns, selection.values, strict=True))
        if layout.weight_kind != "rows" or "weight" not in columns:
            columns["rows"] = _rows(data)
        columns |= self._optimizer_columns(trace, moved)
        if self.layout is None:
            extra = [*columns][len(layout.columns) :] + ([] if lanes is None else ["id0", "id1"])
            self.settle(layout, extra)
        width = len(columns) + (0 if lanes is None else 2)
        if width == len(self.columns):
            self.rows.append([_detached(value) for value in columns.values()])
            self.ids.append(lanes)

    def _optimizer_columns(self, trace: Trace, moved: Any) -> dict[str, Any]:
        optimizer = applied(trace, self.model)
        if optimizer is None:
            return {}
        columns: dict[str, Any] = {}
        rate = Rate.of(optimizer)
        iterations = optimizer._iterations.value
        if rate is not None:
            # A variable is assigned in place: what it holds now has to be copied.
            columns["learning_rate"] = torch.as_tensor(rate.at(iterations - 1)).detach().clone()
        if moved is not None:
            columns["updated"] = iterations != moved
        elif micro_steps(optimizer):
            columns["updated"] = iterations % micro_steps(optimizer) == 0
        return columns

    def take(self) -> Any:
        """See base class."""
        rows, self.rows = self.rows, []
        ids, self.ids = self.ids, []
        return rows, ids

    def fetch(self, handle: Any) -> np.ndarray:
        """See base class."""
        rows, ids = handle
        if not rows:
            return np.zeros((0, len(self.columns)), "f4")
        columns = [_fetch_column(column) for column in zip(*rows, strict=True)]
        table = np.stack(columns, axis=1)
        if ids[0] is None:
            return table
        lanes = torch.stack(ids).cpu().numpy()
        return np.concatenate([table, lanes.view("f4")], axis=1)

    def fingerprint(self, data: Any) -> Any:
        """Fingerprint of a batch, equal to that of `lossledger.keras.tensorflow.fingerprint`."""
        content = data[:2] if isinstance(data, tuple) else data
        leaves = [_columns(leaf) for leaf in tree.flatten(content)]
        leaves = [leaf for leaf in leaves if leaf is not None]
        if not leaves:
            return None
        fewest = min(leaf.shape[0] for leaf in leaves)
        with torch.no_grad():
            bits = torch.cat([leaf[:fewest] for leaf in leaves], dim=1)
            bits = bits ^ (bits >> 16)
            table = self._table(bits.shape[1], bits.device)
            if bits.is_cuda:  # no integer matrix product there
                lanes = (bits[:, :, None] * table[:-1]).sum(1, dtype=torch.int32) + table[-1]
            else:
                lanes = bits @ table[:-1] + table[-1]
            lanes = lanes ^ (lanes >> 15)
            return (lanes * (lanes | 1)).sum(0, dtype=torch.int32)

    def _table(self, width: int, device: Any) -> Any:
        key = (width, device)
        if key not in self._tables:
            self._tables[key] = torch.from_numpy(base.multipliers(width)).to(device)
        return self._tables[key]


def _iterations(model: Any) -> Any:
    """The updates made so far, where a step may skip one; else `None`."""
    return model.optimizer.inner_optimizer._iterations.value.clone() if scaled(model) else None


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, torch.Tensor) else value


def _fetch_column(column: Any) -> np.ndarray:
    if isinstance(column[0], torch.Tensor):
        return torch.stack([value.reshape(()) for value in column]).to(torch.float32).cpu().numpy()
    return np.array(column, "f4")


def _rows(data: Any) -> int:
    leaf = next((leaf for leaf in tree.flatten(data) if leaf is not None), None)
    return leaf.shape[0] if getattr(leaf, "shape", ()) else 0


def _columns(leaf: Any) -> Any:
    if not hasattr(leaf, "shape") or not leaf.shape or 0 in leaf.shape[1:]:
        return None
    tensor = leaf.detach() if isinstance(leaf, torch.Tensor) else torch.as_tensor(np.asarray(leaf))
    flat = tensor.reshape(tensor.shape[0], -1)
    flat = flat[:, base.stride(flat.shape[1])]
    if flat.is_floating_point():
        return flat.to(torch.float32).contiguous().view(torch.int32)
    return None if flat.is_complex() else flat.to(torch.int32)
