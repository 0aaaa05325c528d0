"""The open segment: an Arrow stream that grows.

A flush is one record batch in one write, so a process that is killed leaves at most one torn
batch, and readers leave it out. Each batch has a checksum: see `checked`.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lossledger.entry import dtype_of
from lossledger.segments.bounds import check_batch
from lossledger.segments.checked import EMPTY, KEY, Chain, begun, signed, whole
from lossledger.segments.tables import Block, check_schema, damaged, rows_of, schema

if TYPE_CHECKING:
    import pyarrow as pa

_COMPRESSED_ROWS = 256  # compressing the columns of a smaller batch costs more than their bytes


class Stream:
    """The open segment: batches appended to a new file, each whole or taken back.

    Args:
        path: The file; must not exist.
        outputs: Names of the named outputs' losses, beyond the columns of `lossledger.entry`.
        start: Rows of the run's writer before this segment.

    Raises:
        OSError: The file exists, or the disk refuses.
    """

    def __init__(self, path: Path, outputs: tuple[str, ...], start: int) -> None:
        self.path = path
        self.outputs = outputs
        self.start = start
        # One attribute, so that an interrupt sees all agree: (bytes, rows of the run, checksum).
        self.written = (0, start, 0)
        self.broken = False
        self._header: bytes = schema(outputs).serialize().to_pybytes()
        # Exclusive: never an existing file, and never through a link out of the folder.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        self._descriptor = os.open(path, flags, 0o644)
        try:
            self._append(self._header, 0, begun(self._header))
        except BaseException:
            self.close()
            path.unlink()
            raise

    @property
    def open(self) -> bool:
        """Whether another batch may follow."""
        return self._descriptor >= 0 and not self.broken

    def write(self, blocks: Sequence[Block]) -> None:
        """Appends blocks as one batch: plain where small, LZ4 above; a stream may mix them."""
        batch = _batch(blocks, schema(self.outputs))
        message = bytearray(memoryview(_message(batch))[len(self._header) :])
        self._append(message, batch.num_rows, signed(message, self.written[2]))

    def _append(self, data: bytes | bytearray, rows: int, checksum: int) -> None:
        size, end, _ = self.written
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(self._descriptor, left) :]
            self.written = (size + len(data), end + rows, checksum)
        except BaseException:
            # Without this, the next batch would follow half a batch and be lost with it.
            try:
                os.ftruncate(self._descriptor, self.written[0])
                os.lseek(self._descriptor, self.written[0], os.SEEK_SET)
            except OSError:
                self.broken = True
            raise

    def close(self) -> None:
        """Ends the segment where it stands: a stream is readable without an end mark."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def _batch(blocks: Sequence[Block], layout: "pa.Schema") -> "pa.RecordBatch":
    import pyarrow as pa

    rows = [rows_of(block) for block in blocks]
    return pa.record_batch([_column(blocks, rows, field) for field in layout], schema=layout)


def _column(blocks: Sequence[Block], rows: list[int], field: "pa.Field") -> "pa.Array":
    import pyarrow as pa

    name, dtype = field.name, dtype_of(field.name)
    given = [block[name] for block in blocks if name in block]
    if not given:
        return pa.nulls(sum(rows), field.type)
    if len(given) == len(blocks):
        return pa.array(given[0] if len(given) == 1 else np.concatenate(given), type=field.type)
    parts = [block.get(name, np.zeros(n, dtype)) for block, n in zip(blocks, rows, strict=True)]
    missing = np.repeat([name not in block for block in blocks], rows)
    return pa.array(np.concatenate(parts), type=field.type, mask=missing)


def _message(batch: "pa.RecordBatch") -> "pa.Buffer":
    """A stream of this batch alone: after the header, its message."""
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    packed = None if batch.num_rows < _COMPRESSED_ROWS else "lz4"
    # Here, as a training may wait: other threads may not be scheduled at once, nor find a core.
    options = pa.ipc.IpcWriteOptions(compression=packed, use_threads=False)
    # Left open: closing would append the mark that ends a stream.
    pa.ipc.new_stream(sink, batch.schema, options=options).write_batch(
        batch, custom_metadata={KEY: EMPTY}
    )
    return sink.getvalue()


def stream_batches(data: bytes, path: Path) -> Iterator["pa.RecordBatch"]:
    """The complete batches of a stream; a torn tail ends it as a regular end does.

    Raises:
        LossLedgerError: It is not what was written (slug `segment-damaged`).
    """
    import pyarrow as pa

    source = pa.BufferReader(data)
    start, chain, batches = 0, Chain(data), None
    while True:
        try:
            if batches is None:
                batches = pa.ipc.open_stream(source)
                check_schema(batches.schema)
                start = chain.header(source.tell())
            check_batch(data, start)
            batch = batches.read_next_batch()
            batch.validate()
            start = chain.batch(start, source.tell())
        except StopIteration:
            # Zeros end a stream, and are what a power cut leaves of a tail that was not synced.
            if data[source.tell() :].strip(b"\0"):
                raise damaged(path, "bytes after the end") from None
            return
        except (pa.ArrowException, OSError, EOFError) as error:
            if source.tell() < len(data) or whole(data, start):
                raise damaged(path, error) from error
            return
        except ValueError as error:
            raise damaged(path, error) from error
        yield batch
