"""What a segment may claim: checked before any memory is taken for it.

A segment of ours is small: a batch has 65,536 rows at most, a row group 131,072, and no column
more than 8 bytes a row. A file may come from somebody else, and a few bytes of compressed data
claim what no machine has. Both formats say before each compressed piece how long it will be, and
Arrow takes that much memory; so these numbers are read here first. The layouts are those of Arrow's
`Message.fbs` (a FlatBuffer) and of Parquet's `FileMetaData` and
`PageHeader` (Thrift's compact protocol).
"""

import struct
from collections.abc import Iterator, Mapping
from typing import Any

from lossledger.folder import MOST_BYTES
from lossledger.segments.tables import BATCH_ROWS, GROUP_ROWS

MOST_ROWS = 1 << 21
"""Rows of a segment: one is sealed after a million, and a batch may still follow."""
MOST_GROUPS = 1024
"""Row groups of a segment: of more than 65,536 rows each but the last, or it is none of ours."""
MOST_FOOTER = 1 << 26
"""Bytes of a footer: some 200 a column and row group."""

_WIDEST = 8
_SLACK = 1 << 16  # levels, headers of encodings, padding
_RECORD_BATCH = 3
_BOOLS, _VARINTS, _BINARY, _LIST, _STRUCT = (1, 2), (4, 5, 6), 8, 9, 12
_SIZES = {1: 1, 2: 1, 3: 1, 7: 8}  # of a list's true and false, of a byte and a double
_DEEPEST = 16


def check_batch(data: bytes, start: int) -> None:
    """Checks what the message at `start` of a stream claims; one that is cut claims nothing.

    Raises:
        ValueError: More than a batch of entries has.
    """
    try:
        if start + 8 > len(data):
            return
        first, size = struct.unpack_from("<iI", data, start)
        if first not in (-1, 0):
            raise ValueError("no message follows")  # or one of a layout that nobody writes now
        if first == 0 or size == 0 or start + 8 + size > len(data):
            return  # the end of the stream, or a tail that Arrow won't read
        claims = list(_claims(data, start + 8, start + 8 + size))
    except struct.error:
        raise ValueError("a batch's message points out of the file") from None
    if max(claims, default=0) > _WIDEST * BATCH_ROWS + _SLACK or sum(claims) > MOST_BYTES:
        raise ValueError(f"a batch claims {sum(claims)} bytes")


def _claims(data: bytes, begin: int, body: int) -> Iterator[int]:
    """The bytes that each buffer of a batch is to grow to."""
    message = _Table(data, begin + _u32(data, begin))
    if message.byte(1) != _RECORD_BATCH:
        raise ValueError("a message is no batch")
    batch = _Table(data, message.place(2))
    rows = batch.long(0)
    if not 0 <= rows <= BATCH_ROWS:
        raise ValueError(f"a batch claims {rows} rows")
    if not batch.has(3):
        return  # not compressed: as long as the file says
    buffers = batch.place(2)
    for place in range(buffers + 4, buffers + 4 + 16 * _u32(data, buffers), 16):
        offset, length = struct.unpack_from("<qq", data, place)
        if length >= 8 and offset >= 0 and body + offset + length <= len(data):
            yield max(struct.unpack_from("<q", data, body + offset)[0], 0)


def _u32(data: bytes, place: int) -> int:
    return struct.unpack_from("<I", data, place)[0]


class _Table:
    """A table of a FlatBuffer: its fields by number."""

    def __init__(self, data: bytes, place: int) -> None:
        self._data = data
        self._place = place
        self._fields = place - struct.unpack_from("<i", data, place)[0]
        if self._fields < 0:
            raise struct.error
        self._size = struct.unpack_from("<H", data, self._fields)[0]

    def has(self, field: int) -> bool:
        return self._at(field) != self._place

    def _at(self, field: int) -> int:
        entry = 4 + 2 * field
        if entry + 2 > self._size:
            return self._place
        return self._place + struct.unpack_from("<H", self._data, self._fields + entry)[0]

    def byte(self, field: int) -> int:
        return struct.unpack_from("<B", self._data, self._at(field))[0] if self.has(field) else 0

    def long(self, field: int) -> int:
        return struct.unpack_from("<q", self._data, self._at(field))[0] if self.has(field) else 0

    def place(self, field: int) -> int:
        return self._at(field) + _u32(self._data, self._at(field))


def check_sealed(data: bytes) -> None:
    """Checks what a Parquet file claims: rows, and the size of each page.

    Its footer is read here, and not asked of Arrow, which ends the process on some damage.

    Raises:
        ValueError: More than a sealed segment has.
    """
    length = _u32(data, len(data) - 8) if len(data) > 12 else 0
    if not 0 < length <= min(len(data) - 12, MOST_FOOTER):
        raise ValueError("its footer lies outside of the file, or is too long")
    footer, _ = _decoded(data, len(data) - 8 - length)
    rows = _int(footer, 3)
    if not 0 <= rows <= MOST_ROWS:
        raise ValueError(f"it claims {rows} rows")
    groups = _list(footer, 4)
    if len(groups) > MOST_GROUPS:
        raise ValueError(f"it claims {len(groups)} row groups")
    for group in groups:
        _check_group(data, group)
        rows -= _int(group, 3)
    if rows:
        raise ValueError("its row groups have another number of rows than it")


def _check_group(data: bytes, group: Any) -> None:
    rows, total = _int(group, 3), 0
    if not 0 <= rows <= GROUP_ROWS:
        raise ValueError(f"a row group claims {rows} rows")
    for chunk in _list(group, 1):
        column = chunk.get(3) if isinstance(chunk, dict) else None
        begin, size, dictionary = _int(column, 9), _int(column, 7), _int(column, 11, 0)
        begin = dictionary if 0 < dictionary < begin else begin
        if not 0 < begin <= begin + size <= len(data):
            raise ValueError("a column lies outside of the file")
        total += max(_pages(data, begin, begin + size), default=0)
    if total > MOST_BYTES:
        raise ValueError(f"a row group claims {total} bytes")


def _pages(data: bytes, place: int, end: int) -> Iterator[int]:
    """The bytes that each page of a column grows to."""
    while place < end:
        header, place = _decoded(data, place)
        size, packed = _int(header, 2), _int(header, 3)
        if not 0 <= size <= _WIDEST * GROUP_ROWS + _SLACK or not 0 <= packed <= end - place:
            raise ValueError(f"a page claims {size} bytes, {packed} of them in the file")
        place += packed
        yield size


def _int(struct: Any, field: int, default: int | None = None) -> int:
    found = struct.get(field, default) if isinstance(struct, dict) else None
    if not isinstance(found, int):
        raise ValueError("its footer lacks what each has")
    return found


def _list(struct: Mapping[int, Any], field: int) -> list[Any]:
    found = struct.get(field)
    if not isinstance(found, list):
        raise ValueError("its footer lacks what each has")
    return found


def _decoded(data: bytes, place: int) -> tuple[dict[int, Any], int]:
    try:
        return _struct(data, place, 0)
    except IndexError:
        raise ValueError("its footer is cut") from None


# Thrift's compact protocol: a value begins at `place`; given with it is where it ends. Binary
# values are passed over.


def _struct(data: bytes, place: int, depth: int) -> tuple[dict[int, Any], int]:
    if depth > _DEEPEST:
        raise ValueError("its footer is nested too deeply")
    fields: dict[int, Any] = {}
    number = 0
    while data[place]:
        head, place = data[place], place + 1
        if head >> 4:
            number += head >> 4
        else:
            number, place = _zigzag(data, place)
        if head & 15 in _BOOLS:
            fields[number] = head & 15 == 1
        else:
            fields[number], place = _value(data, place, head & 15, depth)
    return fields, place + 1


def _value(data: bytes, place: int, kind: int, depth: int) -> tuple[Any, int]:
    if kind in _VARINTS:
        return _zigzag(data, place)
    if kind == _BINARY:
        size, place = _varint(data, place)
        return None, place + size
    if kind == _STRUCT:
        return _struct(data, place, depth + 1)
    if kind == _LIST:
        size, kind, place = data[place] >> 4, data[place] & 15, place + 1
        if size == 15:
            size, place = _varint(data, place)
        items: list[Any] = []
        for _ in range(size):
            item, place = _value(data, place, kind, depth + 1)
            items.append(item)
        return items, place
    if kind in _SIZES:
        return data[place], place + _SIZES[kind]
    raise ValueError("its footer holds what none has")


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
    raise ValueError("a number in its footer has no end")


def _zigzag(data: bytes, place: int) -> tuple[int, int]:
    value, place = _varint(data, place)
    return value >> 1 ^ -(value & 1), place
