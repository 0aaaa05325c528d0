"""Arrays as text in JSON: compact, exact, and with NaN and infinities as they are.

Packed, an array is `{"type": "f4" | "f8", "length": n, "delta": bool, "zip": bool, "data": text}`.
The text is base64 over the array's little-endian bytes, transposed: first the lowest byte of each
number, then the next. High bytes hardly differ from number to number, so under zlib, which a long
array is put through (`zip`), they take next to nothing. With `delta`, numbers are differences from
the one before; the first is from 0.
"""

import base64
import zlib
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

Packed: TypeAlias = dict[str, Any]

# The low bytes of losses are noise, on which a higher level spends time for nothing.
_LEVEL = 2
# To inflate takes a browser's turn, in which it may do something else before it paints.
_SHORT = 4096


def pack(values: ArrayLike, kind: Literal["f4", "f8"] = "f4", *, delta: bool = False) -> Packed:
    """Packs numbers.

    Args:
        values: (n,).
        kind: float32, or float64.
        delta: Whether to keep differences: whole numbers in float64, below 2^53 all of them.
    """
    with np.errstate(over="ignore"):  # a float64 beyond float32's range is drawn as infinite
        numbers = np.asarray(values, np.float64).astype(f"<{kind}")
    if delta:
        numbers = np.diff(numbers, prepend=numbers.dtype.type(0))
    planes = numbers.view(np.uint8).reshape(len(numbers), numbers.itemsize).T
    short = len(numbers) <= _SHORT
    data = planes.tobytes() if short else zlib.compress(planes.tobytes(), _LEVEL)
    return {
        "type": kind,
        "length": len(numbers),
        "delta": delta,
        "zip": not short,
        "data": base64.b64encode(data).decode("ascii"),
    }
