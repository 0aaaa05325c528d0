"""What a call says of the data that it was given, and in which order it trained on them."""

import math
from collections.abc import Mapping
from typing import Any, cast

from lossledger.call import Call
from lossledger.entry import OF_EPOCHS
from lossledger.reconciliation.align import Ids, order
from lossledger.reconciliation.parting import epoch_column
from lossledger.reconciliation.reading import Reading

_PARTS = ("FilterDataset", "ShardDataset", "SkipDataset", "TakeDataset", "Subset")


def form_of(call: Call) -> list[tuple[str, int]] | None:
    """Of inputs and targets, the kind of each, and its values a row; `None` if unknown."""
    found: list[tuple[str, int]] = []
    for name in ("x", "y"):
        for given in arrays_of(call.arguments.get(name)):
            if "shape" not in given or None in given["shape"][1:]:
                return None
            dtype = str(given.get("dtype"))
            kind = dtype if "float16" in dtype else "float" if "float" in dtype else ""
            found.append((kind, math.prod(given["shape"][1:])))
    return found or None


def arrays_of(given: Any) -> list[Mapping[str, Any]]:
    """What is said of each array of a structure, in the order in which Keras flattens it."""
    if isinstance(given, Mapping):
        table = cast("Mapping[str, Any]", given)
        if "shape" in table:
            return [table]
        return [each for name in sorted(table) for each in arrays_of(table[name])]
    if isinstance(given, list):
        return [each for part in cast("list[Any]", given) for each in arrays_of(part)]
    return [] if given is None else [{}]


def shuffles(call: Call) -> bool:
    """Whether a driver draws the order of the rows at random, or the data set that it was given."""
    data, drawn = call.arguments.get("x"), call.arguments.get("shuffle", True) is not False
    if isinstance(data, str) and " of " in data:  # Keras takes its batches as they come
        drawn = "Shuffle" in data or "RandomSampler" in data
    if data == "generator":  # nor does it draw what one yields
        drawn = False
    return call.driver in OF_EPOCHS and drawn


def leaves_out(call: Call) -> bool:
    """Whether the data set that a driver was given takes a part of another one's rows."""
    data = call.arguments.get("x")
    return isinstance(data, str) and any(part in data for part in _PARTS)


def trains_on_all(call: Call, rows: int) -> bool:
    """Whether an epoch of so many rows has each row of the arrays that a driver was given."""
    given = arrays_of(call.arguments.get("x")) if call.driver in OF_EPOCHS else []
    shape = given[0].get("shape") if given else None
    split = call.arguments.get("validation_split") or 0
    return bool(shape) and math.floor(shape[0] * (1 - split)) == rows


def reorders(reading: Reading) -> bool:
    """Whether a loop trains the same rows in another order in its second epoch."""
    ids = first_epochs(reading)
    return bool(len(ids[1])) and order(*ids) in ("permuted", "rebatched")


def first_epochs(reading: Reading) -> list[Ids]:
    """The batches of a call's first epoch, and of the second."""
    of_call = {"call": reading.call.number}
    return [
        epoch_column(reading.run, (reading.call,), {**of_call, "epoch": epoch}, "batch_id")
        for epoch in (0, 1)
    ]
