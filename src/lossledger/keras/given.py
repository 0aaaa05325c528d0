"""What data a measurement was given: how many rows, and their fingerprint."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from lossledger.keras import fingerprint

VALUES = 2**22
"""Values that a fingerprint of whole arrays looks at, at most: some 50 ms of hashing."""


def evaluated(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The data of an `evaluate`, from its arguments by name.

    Returns:
        As `data_of`, and `batch_size` and `steps` where they were said.
    """
    names = ("x", "y", "sample_weight")
    size, steps = (arguments.get(name) for name in ("batch_size", "steps"))
    found = data_of(*(arguments.get(name) for name in names), _rows(size, steps))
    said = {"batch_size": size, "steps": steps}
    return {**found, **{name: int(value) for name, value in said.items() if value}}


def validated(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The validation data of a `fit`, from its arguments by name; nothing but of arrays."""
    data = arguments.get("validation_data")
    if not isinstance(data, tuple | list):
        return {}
    size = arguments.get("validation_batch_size") or arguments.get("batch_size")
    x, y, weight = keras.utils.unpack_x_y_sample_weight(tuple(data))
    return data_of(x, y, weight, _rows(size, arguments.get("validation_steps")))


def data_of(x: Any, y: Any, sample_weight: Any, first: int | None = None) -> dict[str, Any]:
    """What tells arrays from others.

    Args:
        x: Inputs.
        y: Targets.
        sample_weight: Sample weights.
        first: How many of the rows count; `None` for all.

    Returns:
        `rows`; `batch_id`, the sum of the rows' fingerprints as in the entries' column (a text,
        as JSON has no such integers); `weighted`, whether there are sample weights. Nothing where
        the data are no arrays.
    """
    leaves = _leaves(x, y)
    if not leaves or any(not leaf.shape for leaf in leaves):
        return {}
    rows = min(int(leaf.shape[0]) for leaf in leaves)
    rows = rows if first is None else min(first, rows)
    found: dict[str, Any] = {"rows": rows, "weighted": sample_weight is not None}
    widths = (int(np.prod(leaf.shape[1:])) for leaf in leaves)
    if rows * sum(min(width, fingerprint.COLUMNS) for width in widths) <= VALUES:
        seen = [fingerprint.looked_at(leaf[:rows]) for leaf in leaves]
        kept = [leaf for leaf in seen if leaf is not None]
        if kept:
            high, low = fingerprint.of_batches([kept])[0].view("u4").tolist()
            found["batch_id"] = f"{high:08x}{low:08x}"
    return found


def are_arrays(arguments: Mapping[str, Any]) -> bool:
    """Whether a `fit` is given arrays, of which Keras makes batches by copying rows."""
    return bool(_leaves(arguments.get("x"), arguments.get("y")))


def _leaves(x: Any, y: Any) -> list[Any]:
    """The arrays that data consist of; none where they are no arrays."""
    leaves = [leaf for leaf in keras.tree.flatten((x, y)) if leaf is not None]
    arrays = all(hasattr(leaf, "shape") and hasattr(leaf, "dtype") for leaf in leaves)
    return leaves if arrays else []


def _rows(batch_size: Any, steps: Any) -> int | None:
    """The rows of some steps; all, where Keras makes of arrays that many batches itself."""
    return int(steps) * int(batch_size) if steps and batch_size else None
