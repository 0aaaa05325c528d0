"""Scalars in the events that TensorBoard reads: the few fields of their protocol buffers.

Events are `tensorflow.Event` (tensorflow/core/util/event.proto) with a `Summary`
(tensorflow/core/framework/summary.proto), whose values are plain floats or tensors
(tensorflow/core/framework/tensor.proto). Unknown fields are skipped, as the format has it.
"""

import itertools
import struct
from collections.abc import Iterator, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from lossledger.vectors import Floats, Integers

Field: TypeAlias = "tuple[int, int | bytes]"

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FLOAT, _DOUBLE, _BFLOAT16, _HALF, _UINT32, _UINT64 = 1, 2, 14, 19, 22, 23
_IN_MEMORY = {
    _FLOAT: "<f4", _DOUBLE: "<f8", 3: "<i4", 4: "u1", 5: "<i2", 6: "i1", 9: "<i8", 10: "?",
    _HALF: "<f2", _UINT32: "<u4", _UINT64: "<u8",
}  # fmt: skip
"""Numpy's names of the dtypes, for `tensor_content`."""
_LISTS = {
    _FLOAT: 5, _DOUBLE: 6, 3: 7, 4: 7, 5: 7, 6: 7, 9: 10, 10: 11, _BFLOAT16: 13, _HALF: 13,
    _UINT32: 16, _UINT64: 17,
}  # fmt: skip
"""The field that has a dtype's values where there is no `tensor_content`."""


class Malformed(Exception):
    """Bytes that are no such message."""


def fields(data: bytes) -> Iterator[Field]:
    """The fields of a message: number, and an integer, its bytes, or 4 or 8 bytes of a number.

    Raises:
        Malformed: A field runs over the end, or is of no known wire type.
    """
    place, end = 0, len(data)
    while place < end:
        key, place = _varint(data, place)
        kind = key & 7
        if kind == _VARINT:
            value, place = _varint(data, place)
            yield key >> 3, value
            continue
        if kind == _BYTES:
            length, place = _varint(data, place)
        elif kind in (_FIXED32, _FIXED64):
            length = 4 if kind == _FIXED32 else 8
        else:
            raise Malformed(f"wire type {kind}")
        if length > end - place:
            raise Malformed("a field runs over the end")
        yield key >> 3, data[place : place + length]
        place += length


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while place < len(data) and shift < 70:
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (2**64 - 1), place
        shift += 7
    raise Malformed("a number runs over the end")


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


def scalars(data: bytes) -> tuple[str | None, int, list[tuple[str, float]], int]:
    """What an event says.

    Args:
        data: The event.

    Returns:
        Its file version, if it is the first of a file; its step; its scalars by tag; and how many
        of its values are something else: histograms, images, texts, a graph.

    Raises:
        Malformed: It is no event.
    """
    version, step, other = None, 0, 0
    found: list[tuple[str, float]] = []
    for number, value in fields(data):
        if number == 2 and isinstance(value, int):
            step = _signed(value)
        elif number == 3 and isinstance(value, bytes):
            version = value.decode("utf-8", errors="replace")
        elif number == 5 and isinstance(value, bytes):
            for part, content in fields(value):
                if part == 1 and isinstance(content, bytes):
                    scalar = _scalar(content)
                    if scalar is None:
                        other += 1
                    else:
                        found.append(scalar)
        elif number in (4, 9):
            other += 1
    return version, step, found, other


def _scalar(data: bytes) -> tuple[str, float] | None:
    tag, value = "", None
    for number, content in fields(data):
        if number == 1 and isinstance(content, bytes):
            tag = content.decode("utf-8", errors="replace")
        elif number == 2 and isinstance(content, bytes) and len(content) == 4:
            value = struct.unpack("<f", content)[0]
        elif number == 8 and isinstance(content, bytes):
            value = _of_tensor(content)
    return None if value is None else (tag, float(value))


def _of_tensor(data: bytes) -> float | None:
    """The number of a tensor without dimensions; `None` for any other."""
    parts = dict(fields(data))
    dtype, shape, content = parts.get(1), parts.get(2, b""), parts.get(4)
    if not isinstance(dtype, int) or dtype not in _LISTS:
        return None
    if not isinstance(shape, bytes) or any(True for _ in fields(shape)):
        return None
    if isinstance(content, bytes) and content:
        return _of_content(dtype, content)
    # A tensor that names no value is zero.
    value = parts.get(_LISTS[dtype], 0)
    if dtype in (_FLOAT, _DOUBLE):
        return _of_content(dtype, value) if isinstance(value, bytes) else 0.0
    if isinstance(value, bytes):
        value = _varint(value, 0)[0] if value else 0
    if dtype in (_BFLOAT16, _HALF):
        return _of_content(dtype, struct.pack("<H", value & 0xFFFF))
    return float(value if dtype in (_UINT32, _UINT64) else _signed(value))


def _of_content(dtype: int, content: bytes) -> float | None:
    if dtype == _BFLOAT16:  # the upper half of a float32
        return struct.unpack("<f", b"\0\0" + content)[0] if len(content) == 2 else None
    kind = np.dtype(_IN_MEMORY[dtype])
    return float(np.frombuffer(content, kind)[0]) if len(content) == kind.itemsize else None


def first_event(version: str, writer: str, time: float) -> bytes:
    """The event that begins a file: its version, and who wrote it.

    Args:
        version: As TensorBoard looks for it, `brain.Event:2`.
        writer: A name, which nothing reads (`SourceMetadata.writer`).
        time: Unix time in seconds.
    """
    source = _bytes(1, writer.encode())
    return b"\x09" + struct.pack("<d", time) + _bytes(3, version.encode()) + _bytes(10, source)


def packed(
    step: Integers, time: Floats, tags: Sequence[str], values: np.ndarray
) -> Iterator[NDArray[np.uint8]]:
    """Events of scalars, each with a number under every tag.

    Args:
        step: (events,), from 0.
        time: (events,), Unix time in seconds.
        tags: (tags,).
        values: (events, tags), kept as float32.

    Yields:
        Equally long events as rows of bytes: a step takes more bytes as it grows.
    """
    lengths = np.ones(len(step), np.int64)
    for bits in range(7, 63, 7):
        lengths += step >= 1 << bits
    cuts = [0, *(np.flatnonzero(np.diff(lengths)) + 1).tolist(), len(step)]
    numbers = np.ascontiguousarray(values, "<f4").view(np.uint8).reshape(len(step), -1, 4)
    times = np.ascontiguousarray(time, "<f8").view(np.uint8).reshape(-1, 8)
    for begin, end in itertools.pairwise(cuts):
        if begin == end:
            continue
        length = int(lengths[begin])
        summary, places = _summary(tags)
        head = b"\x09" + bytes(8) + b"\x10" + bytes(length)
        template = head + _bytes(5, summary)
        rows = np.tile(np.frombuffer(template, np.uint8), (end - begin, 1))
        rows[:, 1:9] = times[begin:end]
        for place in range(length):
            more = 0x80 if place + 1 < length else 0
            rows[:, 10 + place] = (step[begin:end] >> 7 * place & 0x7F) | more
        start = len(template) - len(summary)
        for tag, place in enumerate(places):
            rows[:, start + place : start + place + 4] = numbers[begin:end, tag]
        yield rows


def _summary(tags: Sequence[str]) -> tuple[bytes, list[int]]:
    """A summary with zeros under its tags, and where the numbers stand in it."""
    summary, places = b"", list[int]()
    for tag in tags:
        summary += _bytes(1, _bytes(1, tag.encode()) + b"\x15" + bytes(4))
        places.append(len(summary) - 4)
    return summary, places


def _bytes(number: int, content: bytes) -> bytes:
    """A field that holds bytes."""
    length, size = b"", len(content)
    while size > 0x7F:
        length, size = length + bytes((size & 0x7F | 0x80,)), size >> 7
    return bytes((number << 3 | _BYTES,)) + length + bytes((size,)) + content
