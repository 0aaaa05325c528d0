"""What a segment may claim: checked before any memory is taken for it.

A segment of ours is small: a batch has 65,536 rows at most, a row group 131,072, and no column
more than 8 bytes a row. A file may come from somebody else, and a few bytes of compressed data
claim what no machine has. Both formats say before each compressed piece how long it will be, and
Arrow takes that much memory; so these numbers are read here first. The layouts are those of Arrow's
`Message.fbs` (a FlatBuffer) and of Parquet's `PageHeader` (Thrift's compact protocol).
"""

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING

from lossledger.segments.tables import BATCH_ROWS, GROUP_ROWS

if TYPE_CHECKING:
    from pyarrow.parquet import FileMetaData

MOST_BYTES = 1 << 30
"""Of a segment's file, and of what one batch, or one row group's pages, grow to."""
MOST_ROWS = 1 << 21
"""Rows of a segment: one is sealed after a million, and a batch may still follow."""

_WIDEST = 8
_SLACK = 1 << 16  # levels, headers of encodings, padding
_RECORD_BATCH = 3
_VARINTS, _BINARY, _STRUCT = (4, 5, 6), 8, 12
_SIZES = {1: 0, 2: 0, 3: 1, 7: 8}  # true, false, a byte, a double
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


def check_sealed(data: bytes, footer: "FileMetaData") -> None:
    """Checks what a Parquet file claims: rows, and the size of each page.

    Raises:
        ValueError: More than a sealed segment has.
    """
    if not 0 <= footer.num_rows <= MOST_ROWS:
        raise ValueError(f"it claims {footer.num_rows} rows")
    rows = 0
    for number in range(footer.num_row_groups):
        group = footer.row_group(number)
        rows += group.num_rows
        if not 0 <= group.num_rows <= GROUP_ROWS:
            raise ValueError(f"a row group claims {group.num_rows} rows")
        total = 0
        for place in range(group.num_columns):
            column = group.column(place)
            begin = column.data_page_offset
            if column.has_dictionary_page and 0 < (column.dictionary_page_offset or 0) < begin:
                begin = column.dictionary_page_offset
            end = begin + column.total_compressed_size
            if not 0 < begin <= end <= len(data):
                raise ValueError("a column lies outside of the file")
            total += max(_pages(data, begin, end), default=0)
        if total > MOST_BYTES:
            raise ValueError(f"a row group claims {total} bytes")
    if rows != footer.num_rows:
        raise ValueError("its row groups have another number of rows than it")


def _pages(data: bytes, place: int, end: int) -> Iterator[int]:
    """The bytes that each page of a column grows to, the largest that was claimed so far."""
    while place < end:
        try:
            place, fields = _struct(data, place)
        except IndexError:
            raise ValueError("a page's header is cut") from None
        size, packed = fields.get(2, -1), fields.get(3, -1)
        if not 0 <= size <= _WIDEST * GROUP_ROWS + _SLACK or not 0 <= packed <= end - place:
            raise ValueError(f"a page claims {size} bytes, {packed} of them in the file")
        place += packed
        yield size


def _struct(data: bytes, place: int, depth: int = 0) -> tuple[int, dict[int, int]]:
    """Where a struct of Thrift's compact protocol ends, and its integers by field."""
    if depth > _DEEPEST:
        raise ValueError("a page's header is nested too deeply")
    fields: dict[int, int] = {}
    number = 0
    while data[place]:
        head, place = data[place], place + 1
        if head >> 4:
            number += head >> 4
        else:
            number, place = _zigzag(data, place)
        if head & 15 in _VARINTS:
            fields[number], place = _zigzag(data, place)
        else:
            place = _skipped(data, place, head & 15, depth)
    return place + 1, fields


def _skipped(data: bytes, place: int, kind: int, depth: int) -> int:
    if kind in _SIZES:
        return place + _SIZES[kind]
    if kind in _VARINTS:
        return _varint(data, place)[1]
    if kind == _BINARY:
        size, place = _varint(data, place)
        return place + size
    if kind == _STRUCT:
        return _struct(data, place, depth + 1)[0]
    # A page's header has no lists or maps.
    raise ValueError("a page's header holds what none has")


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
    raise ValueError("a number in a page's header has no end")


def _zigzag(data: bytes, place: int) -> tuple[int, int]:
    value, place = _varint(data, place)
    return value >> 1 ^ -(value & 1), place
