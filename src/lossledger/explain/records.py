"""TFRecord files: records with their lengths and checksums, read and written in bounded pieces.

A record is its length (u64, little-endian), the masked CRC-32C of those 8 bytes, the data, and
the masked CRC-32C of the data (tensorflow/core/lib/io/record_writer.h).
"""

import struct
from collections.abc import Iterator, Sequence
from typing import BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray

HEADER = struct.Struct("<QI")
FOOTER = struct.Struct("<I")
RECORD_BYTES = 256 * 2**20
"""Size of a record, at most: a graph or an image may be large, never a number."""
_PIECE = 4 * 2**20

Words: TypeAlias = NDArray[np.uint32]


class Damaged(Exception):
    """A record is not what its checksum says; the message says where."""


def _table() -> Words:
    """The 256 remainders of CRC-32C (Castagnoli, reflected polynomial 0x82f63b78)."""
    words = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        words = np.where(words & 1, (words >> 1) ^ np.uint32(0x82F63B78), words >> 1)
    return words.astype(np.uint32)


_TABLE = _table()
_BY_BYTE: list[int] = _TABLE.tolist()
_ALL = np.uint32(0xFFFFFFFF)
_MASK = 0xA282EAD8
_SIDE_BY_SIDE = 8192


def _advance(state: Words, lanes: NDArray[np.uint8]) -> Words:
    """States after the bytes (lanes, length), side by side."""
    for place in range(lanes.shape[1]):
        state = _TABLE[(state ^ lanes[:, place]) & 0xFF] ^ (state >> np.uint32(8))
    return state


def crc32c(data: bytes) -> int:
    """CRC-32C of bytes.

    Long data are cut into lanes that are run side by side, each from state 0. A step is linear
    over GF(2), so the state after a lane is that of the bytes alone, xor the state before it,
    carried over as many zero bytes: 32 further lanes carry one bit each.
    """
    if len(data) < 64:
        crc = 0xFFFFFFFF
        for byte in data:
            crc = _BY_BYTE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
        return crc ^ 0xFFFFFFFF
    content = np.frombuffer(data, np.uint8)
    state = np.array([_ALL])
    width = int(len(content) ** 0.5)
    lanes = content[: len(content) // width * width].reshape(-1, width)
    bits = np.uint32(1) << np.arange(32, dtype=np.uint32)
    states = _advance(
        np.concatenate((bits, np.zeros(len(lanes), np.uint32))),
        np.concatenate((np.zeros((32, width), np.uint8), lanes)),
    )
    carried = states[:32]
    for own in states[32:]:
        before = carried[(state[0] & bits) != 0]
        state = np.array([np.bitwise_xor.reduce(before, initial=np.uint32(0)) ^ own])
    content = content[lanes.size :]
    return int(_advance(state, content[None, :])[0] ^ _ALL)


def crc32c_each(lanes: NDArray[np.uint8]) -> Words:
    """CRC-32C of each of many equally long rows of bytes (rows, length)."""
    return _advance(np.full(len(lanes), _ALL), lanes) ^ _ALL


def framed(rows: NDArray[np.uint8]) -> bytes:
    """Equally long records (records, length), as they stand in a file one after another."""
    head = struct.pack("<Q", rows.shape[1])
    head += FOOTER.pack(masked(crc32c(head)))
    whole = np.empty((len(rows), len(head) + rows.shape[1] + FOOTER.size), np.uint8)
    whole[:, : len(head)] = np.frombuffer(head, np.uint8)
    whole[:, len(head) : -FOOTER.size] = rows
    # So many that their states and the columns of their bytes stay in a cache.
    for begin in range(0, len(rows), _SIDE_BY_SIDE):
        crc = crc32c_each(rows[begin : begin + _SIDE_BY_SIDE])
        turned = (crc >> np.uint32(15) | crc << np.uint32(17)) + np.uint32(_MASK)
        whole[begin : begin + len(crc), -FOOTER.size :] = (
            turned.astype("<u4").view(np.uint8).reshape(-1, FOOTER.size)
        )
    return whole.tobytes()


def masked(crc: int) -> int:
    """A checksum as it is stored (tensorflow/core/lib/hash/crc32c.h)."""
    return ((crc >> 15 | crc << 17) + _MASK) & 0xFFFFFFFF


def begins(head: bytes) -> bool:
    """Whether bytes begin as a record does: a length with its checksum."""
    if len(head) < HEADER.size:
        return False
    _, checksum = HEADER.unpack_from(head)
    return masked(crc32c(head[:8])) == checksum


def records(file: BinaryIO, size: int) -> Iterator[tuple[int, bytes]]:
    """The records of a file, each with the byte at which it begins, checked.

    A last record that the file has not all of yet ends them.

    Args:
        file: Open at its start.
        size: Its size in bytes, as far as it is to be read.

    Raises:
        Damaged: A length or the data are not what their checksum says, or a record is too large.
    """
    start = 0
    waiting: list[tuple[int, bytes, int]] = []
    held = 0
    while size - start >= HEADER.size:
        head = file.read(HEADER.size)
        if len(head) < HEADER.size:
            break
        length, checksum = HEADER.unpack(head)
        if masked(crc32c(head[:8])) != checksum:
            yield from _checked(waiting)
            raise Damaged(f"the length of the record at byte {start:,} fails its checksum")
        if length > RECORD_BYTES:
            raise Damaged(f"the record at byte {start:,} is {length:,} bytes long")
        if start + HEADER.size + length + FOOTER.size > size:
            break
        data, footer = file.read(length), file.read(FOOTER.size)
        if len(footer) < FOOTER.size:
            break
        waiting.append((start, data, FOOTER.unpack(footer)[0]))
        held += length
        if held > _PIECE or len(waiting) >= 4096:
            yield from _checked(waiting)
            waiting, held = [], 0
        start += HEADER.size + length + FOOTER.size
    yield from _checked(waiting)


def _checked(waiting: Sequence[tuple[int, bytes, int]]) -> Iterator[tuple[int, bytes]]:
    """Records whose checksums hold; those of one length are checked side by side."""
    by_length: dict[int, list[int]] = {}
    for place, (_, data, _) in enumerate(waiting):
        by_length.setdefault(len(data), []).append(place)
    good = np.ones(len(waiting), bool)
    for length, places in by_length.items():
        if len(places) < 4 or length > 4096:
            crcs = [crc32c(waiting[place][1]) for place in places]
        else:
            together = b"".join(waiting[place][1] for place in places)
            lanes = np.frombuffer(together, np.uint8).reshape(len(places), length)
            crcs = crc32c_each(lanes).tolist()
        for place, crc in zip(places, crcs, strict=True):
            good[place] = masked(crc) == waiting[place][2]
    for fine, (start, data, _) in zip(good.tolist(), waiting, strict=True):
        if not fine:
            raise Damaged(f"the record at byte {start:,} fails its checksum")
        yield start, data
