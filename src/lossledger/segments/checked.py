"""The checksum of an open segment: each batch of the stream says what it should be.

It is custom metadata of the batch's message, which other readers of Arrow pass over, and as long
whatever it says. A batch's CRC-32 goes on from the one before it, and the first one's from the
header, so it also tells of a batch that is missing or in another place. The length tells a batch
that was flipped, so that it seems to be cut, from one that is; the zeros tell one whose tail the
system never wrote (a power cut leaves zeros there, from a page on) from one whose tail is zero.
"""

import re
import zlib

KEY = "lossledger"
EMPTY = "crc32=00000000 bytes=0000000000000000 zeros=0000000000000000"

_MARK = re.compile(rb"crc32=([0-9a-f]{8}) bytes=([0-9a-f]{16}) zeros=([0-9a-f]{16})")
_PAGE = 4096


def begun(header: bytes | memoryview) -> int:
    """The checksum that the first batch's goes on from."""
    return zlib.crc32(header)


def signed(message: bytearray, before: int) -> int:
    """Writes into the message of a batch what it should be; gives the checksum.

    Args:
        message: The whole message; has `EMPTY` under `KEY` in its custom metadata.
        before: The checksum of the batch before it.
    """
    place = message.index(EMPTY.encode())
    filled = f"crc32={0:08x} bytes={len(message):016x} zeros={_zeros(message):016x}".encode()
    message[place : place + len(filled)] = filled
    crc = zlib.crc32(message, before)
    message[place + 6 : place + 14] = b"%08x" % crc
    return crc


class Chain:
    """The checksums of a stream that is read, batch by batch.

    Args:
        data: The stream.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._crc = 0
        self._says: bool | None = None

    def header(self, end: int) -> int:
        """The header ends there, and the first batch begins."""
        self._crc = begun(memoryview(self._data)[:end])
        return end

    def batch(self, start: int, end: int) -> int:
        """Checks the message of the batch that lies there; gives its end.

        Raises:
            ValueError: It is not what was written.
            EOFError: Its tail was never written.
        """
        mark = _MARK.search(self._data, start, end)
        # Streams of before there were checksums have none at all.
        if self._says not in (None, mark is not None):
            raise ValueError("a batch has lost its checksum")
        self._says = mark is not None
        if mark is not None:
            self._crc = _crc(self._data, start, end, mark, self._crc)
            same = self._crc == int(mark[1], 16)
            if end - start != int(mark[2], 16) or (not same and whole(self._data, start)):
                raise ValueError("the checksum over a batch does not match")
            if not same:
                raise EOFError("a batch ends in zeros that were never written")
        return end


def whole(data: bytes, start: int) -> bool:
    """Whether a batch that can't be read was written to its end, and not cut, or left zero."""
    mark = _MARK.search(data, start)
    if mark is None or int(mark[2], 16) > len(data) - start:
        return False
    unwritten = (len(data) - _zeros(data) + _PAGE - 1) // _PAGE * _PAGE
    return unwritten >= len(data) or _zeros(data) <= int(mark[3], 16)


def _crc(data: bytes, start: int, end: int, mark: re.Match[bytes], before: int) -> int:
    view = memoryview(data)
    crc = zlib.crc32(view[start : mark.start(1)], before)
    return zlib.crc32(view[mark.end(1) : end], zlib.crc32(b"00000000", crc))


def _zeros(data: bytes | bytearray) -> int:
    """How many zeros the bytes end with."""
    left = len(data)
    while piece := data[max(left - _PAGE, 0) : left]:
        kept = len(piece.rstrip(b"\0"))
        left -= len(piece) - kept
        if kept:
            break
    return len(data) - left
