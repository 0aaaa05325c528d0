"""What data a measurement had: how many rows, and their fingerprint."""

import contextlib
import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from lossledger.keras import describe, fingerprint

VALUES = 2**22
"""Values that a fingerprint of whole arrays looks at, at most: some 50 ms of hashing."""

BATCHES = 64
"""Batches of a measurement whose fingerprints are kept, at most."""


class Trained:
    """The arrays that a training was given, for as long as the program keeps them.

    Args:
        arguments: Of `fit`, by name; or of one batch.
        whole: Whether they are a part, as `x[:32]` of `x`, and the arrays those that it is of.

    `of_arrays` says whether there are any, of which Keras then makes batches by copying rows.
    """

    def __init__(self, arguments: Mapping[str, Any], *, whole: bool = False) -> None:
        leaves = _leaves(arguments.get("x"), arguments.get("y"))
        self.of_arrays = bool(leaves)
        self._arrays: list[Callable[[], Any]] = []
        with contextlib.suppress(TypeError):  # what can't be referred to so is not known
            self._arrays = [_whole(leaf) if whole else weakref.ref(leaf) for leaf in leaves]
        self._split = float(arguments.get("validation_split") or 0.0)
        self._hashes: np.ndarray | None = None

    def has(self, x: Any, y: Any, rows: int) -> int | None:
        """How many of the first rows of other arrays are among its own; `None` if not known."""
        hashes, measured = self._rows(), _hashes(_leaves(x, y), rows)
        if hashes is None or measured is None:
            return None
        return int(np.isin(measured, hashes).sum())

    def told(self, x: Any, y: Any, rows: int) -> dict[str, Any]:
        """`rows` and `batch_id` of its arrays, and `has`; nothing where they aren't known."""
        has, hashes = self.has(x, y, rows), self._rows()
        if has is None or hashes is None:
            return {}
        lanes = hashes.view("i4").reshape(-1, 2).sum(0, dtype="i4").view("f4")
        return {"rows": len(hashes), "batch_id": _text(lanes), "has": has}

    def _rows(self) -> np.ndarray | None:
        if self._hashes is None:
            arrays = [array() for array in self._arrays]
            if not arrays or any(array is None for array in arrays):
                return None
            rows = min(int(array.shape[0]) for array in arrays)
            # As `train_validation_split` of Keras has it.
            self._hashes = _hashes(arrays, math.floor(rows * (1.0 - self._split)))
        return self._hashes


def evaluated(
    arguments: Mapping[str, Any], trained: Trained | None = None, size: int | None = None
) -> dict[str, Any]:
    """The data of an `evaluate`, from its arguments by name.

    Args:
        arguments: The arguments.
        trained: The arrays that the training was given; those of which its batches are a part,
            where it was given batches.
        size: The rows of such a batch.

    Returns:
        As `data_of`; `batch_size` and `steps` where they were said; `trained`, how many of the
        rows are among those that the training was given, where that is known. Beside a training
        that was given batches: `batches`, fingerprints of its first `BATCHES` of `size` rows, and
        `within`, the arrays that `trained` are a part of, or that the measured rows are a part of.
    """
    x, y, weight = (arguments.get(name) for name in ("x", "y", "sample_weight"))
    batch, steps = (arguments.get(name) for name in ("batch_size", "steps"))
    found = _beside(x, y, weight, _rows(batch, steps), None if size else trained)
    if found and size:
        found["batches"] = _cut(_leaves(x, y), min(found["rows"] // size, BATCHES), size)
        within = trained.told(x, y, found["rows"]) if trained else {}
        within = within or Trained(arguments, whole=True).told(x, y, found["rows"])
        found |= {"within": within} if within else {}
    said = {"batch_size": batch, "steps": steps}
    return {**found, **{name: int(value) for name, value in said.items() if value}}


def validated(arguments: Mapping[str, Any], trained: Trained | None = None) -> dict[str, Any]:
    """The validation data of a `fit`, from its arguments by name; nothing but of arrays.

    Returns:
        As `data_of`, and `trained`.
    """
    data = arguments.get("validation_data")
    if not isinstance(data, tuple | list):
        return {}
    size = arguments.get("validation_batch_size") or arguments.get("batch_size")
    x, y, weight = keras.utils.unpack_x_y_sample_weight(tuple(data))
    return _beside(x, y, weight, _rows(size, arguments.get("validation_steps")), trained)


def _beside(x: Any, y: Any, weight: Any, first: int | None, trained: Trained | None) -> Any:
    """`data_of`, and how many of the rows are among those of the training, where that is known."""
    found = data_of(x, y, weight, first)
    among = trained.has(x, y, found["rows"]) if trained is not None and found else None
    return found if among is None else {**found, "trained": among}


def data_of(x: Any, y: Any, sample_weight: Any, first: int | None = None) -> dict[str, Any]:
    """What tells arrays from others.

    Args:
        x: Inputs.
        y: Targets.
        sample_weight: Sample weights.
        first: How many of the rows count; `None` for all.

    Returns:
        `rows`; `batch_id`, the sum of the rows' fingerprints as in the entries' column;
        `weighted`, whether there are sample weights. Nothing where the data are no arrays.
    """
    leaves = _leaves(x, y)
    if not leaves:
        return {}
    rows = min(int(leaf.shape[0]) for leaf in leaves)
    rows = rows if first is None else min(first, rows)
    found: dict[str, Any] = {"rows": rows, "weighted": sample_weight is not None}
    kept = _looked_at(leaves, rows)
    if kept:
        (found["batch_id"],) = _texts([kept])
    return found


def measured_rows(model: Any) -> dict[str, Any]:
    """The rows of the last measurement, whatever its data were: the loss tracker's count.

    Returns:
        `rows`; nothing where that is of something else: a `test_step` of the user's may count
        batches, and Keras 3.7 to 3.9 multiplies what replicas count.
    """
    tracker = getattr(model, "_loss_tracker", None)
    own = type(model).test_step is keras.Model.test_step
    if tracker is None or not own or describe.replicas(model) > 1:
        return {}
    count = float(keras.ops.convert_to_numpy(tracker.count))
    return {"rows": int(count)} if 0 < count < 2**24 else {}  # a float32, exact up to there


def rows_of(batch: Any) -> int | None:
    """The rows of one batch's inputs; `None` where they are no arrays."""
    leaves = _leaves(batch, None)
    return int(leaves[0].shape[0]) if leaves else None


def _whole(leaf: Any) -> Callable[[], Any]:
    """All rows of the array that a slice of rows is of, for as long as that lives.

    Raises:
        TypeError: It is a slice of no array.
    """
    base = getattr(leaf, "base", None)
    step = leaf.strides[0] if isinstance(base, np.ndarray) else 0
    if not isinstance(base, np.ndarray) or not base.flags.c_contiguous or step < leaf[:1].nbytes:
        raise TypeError(f"no slice of rows: {type(leaf).__name__}")
    kept, row = weakref.ref(base), (leaf.shape[1:], leaf.dtype, leaf.strides)
    place = (leaf.ctypes.data - base.ctypes.data) % step
    size = sum((n - 1) * each for n, each in zip(leaf.shape[1:], leaf.strides[1:], strict=True))
    count = (base.nbytes - place - size - leaf.itemsize) // step + 1

    def rows() -> Any:
        shape, dtype, strides = row
        array = kept()
        return None if array is None else np.ndarray((count, *shape), dtype, array, place, strides)

    return rows


def _cut(leaves: Sequence[Any], count: int, size: int) -> list[str]:
    """Fingerprints of so many batches of so many rows."""
    kept = _looked_at(leaves, count * size)
    return _texts(
        [[leaf[k * size :][:size] for leaf in kept] for k in range(count)] if kept else []
    )


def _texts(batches: Sequence[Sequence[np.ndarray]]) -> list[str]:
    """Fingerprints, as JSON has no such integers."""
    return [_text(lanes) for lanes in fingerprint.of_batches(batches)]


def _text(lanes: np.ndarray) -> str:
    high, low = lanes.view("u4").tolist()
    return f"{high:08x}{low:08x}"


def _leaves(x: Any, y: Any) -> list[Any]:
    """The arrays that data consist of; none where they are no arrays of rows."""
    leaves = [leaf for leaf in keras.tree.flatten((x, y)) if leaf is not None]
    arrays = (hasattr(each, "shape") and hasattr(each, "dtype") and each.shape for each in leaves)
    return leaves if all(arrays) else []


def _looked_at(leaves: Sequence[Any], rows: int) -> list[np.ndarray]:
    """What a fingerprint of the first rows looks at; nothing of more than `VALUES`."""
    widths = (int(np.prod(leaf.shape[1:])) for leaf in leaves)
    if rows * sum(min(width, fingerprint.COLUMNS) for width in widths) > VALUES:
        return []
    seen = [fingerprint.looked_at(leaf[:rows]) for leaf in leaves]
    return [leaf for leaf in seen if leaf is not None]


def _hashes(leaves: Sequence[Any], rows: int) -> np.ndarray | None:
    """A fingerprint a row, int64; `None` where there is none."""
    kept = _looked_at(leaves, rows) if leaves else []
    return fingerprint.of_rows(kept) if kept else None


def _rows(batch_size: Any, steps: Any) -> int | None:
    """The rows of some steps; all, where Keras makes of arrays that many batches itself."""
    return int(steps) * int(batch_size) if steps and batch_size else None
