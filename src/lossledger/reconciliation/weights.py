"""Whether calls trained from the same weights, and moved them.

Copies of initial weights are read with care, as files of any origin are.
"""

import math
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lossledger.call import Call
from lossledger.run import Run

_OURS = re.compile(r"(worker-\d{1,6}/)?weights/\d{6,9}\.npz")
"""Where a recorder keeps weights: any other path in a run's record is not followed."""
_DAMAGED = (
    *(OSError, ValueError, RuntimeError, EOFError, MemoryError, KeyError, TypeError),
    *(zipfile.BadZipFile, zlib.error, struct.error, SyntaxError),
)
_MOST = 2**21
"""Values of a copy that are looked at, at most: of weights of 1 MiB there are no more."""
_COARSE = {"bfloat16": 2.0**-8, "float16": 2.0**-10, "float32": 2.0**-23}
"""How far rounding to a dtype takes a value, relatively, at most."""


def weights_file(run: Run, call: Call) -> Path | None:
    """The copy of a call's initial weights; `None` where there is none that may be read."""
    name = call.info.get("weights_file")
    if not isinstance(name, str) or not _OURS.fullmatch(name):
        return None
    path = Path(run.path, name)
    return path if path.is_file() and path.resolve() == run.path.resolve() / name else None


def shapes_in(path: Path) -> list[list[int]] | None:
    """Shapes of the arrays of an `.npz` file: of each its first bytes, whatever it claims to be."""
    from numpy.lib import format as npy

    shapes: list[list[int]] = []
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                with archive.open(name) as file:
                    first = npy.read_magic(file) == (1, 0)
                    read = npy.read_array_header_1_0 if first else npy.read_array_header_2_0
                    shapes.append(list(read(file)[0]))
    except _DAMAGED:
        return None
    return shapes


def begin_alike(a: tuple[Run, Call], b: tuple[Run, Call]) -> bool:
    """Whether two calls began from the same weights, though their fingerprints differ.

    They are rounded to other dtypes; or one model keeps more numbers beside its layers' arrays, as
    a mean of its own.
    """
    policies = [str(call.configuration.get("dtype_policy")) for _, call in (a, b)]
    limits = [_COARSE[policy] for policy in policies if policy in _COARSE]
    rounds = policies[0] != policies[1] and bool(limits)
    kept = [_values(*each) for each in (a, b)]
    arrays = [[array for array in each or () if array.ndim] for each in kept]
    if None in kept or [each.shape for each in arrays[0]] != [each.shape for each in arrays[1]]:
        return False
    if not rounds and len(kept[0] or ()) == len(kept[1] or ()):
        return False
    limit = max(limits) if rounds else 0.0
    return all(np.allclose(*pair, rtol=limit, atol=0) for pair in zip(*arrays, strict=True))


def _values(run: Run, call: Call) -> list[np.ndarray] | None:
    """The initial weights as float64; `None` where they aren't kept."""
    path = weights_file(run, call)
    shapes = None if path is None else shapes_in(path)
    if path is None or shapes is None or sum(map(math.prod, shapes)) > _MOST:
        return None
    try:
        with np.load(path, allow_pickle=False) as archive:
            return [_decoded(archive[name]) for name in archive.files]
    except _DAMAGED:
        return None


def _decoded(array: np.ndarray) -> np.ndarray:
    """Values as float64; NumPy keeps bfloat16, the upper half of a float32, as two bytes."""
    if array.dtype.kind == "V" and array.dtype.itemsize == 2:
        return (array.view("u2").astype("u4") << 16).view("f4").astype("f8")
    return array.astype("f8")


def stood_still(call: Call) -> bool:
    """Whether a call left the weights that it trains where they were.

    Equal ones at both ends don't say so where updates were made: the program may have put them
    back. Nor does a learning rate of 0 at the beginning, where a callback raises it.
    """
    first, last = call.info.get("initial_weights"), call.info.get("final_weights")
    states = [call.info.get(f"{which}_optimizers") for which in ("initial", "final")]
    if first and first == last and states[0] == states[1]:
        return True
    optimizer = call.configuration.get("optimizer")
    table: Mapping[str, Any] = optimizer if isinstance(optimizer, Mapping) else {}
    return table.get("learning_rate") == 0 and not table.get("weight_decay")
