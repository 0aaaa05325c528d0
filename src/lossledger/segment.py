"""One segment of entries as a file: an open Arrow stream, or sealed Parquet.

The only file that knows pyarrow, which it imports when first needed. A flush is one record batch
in one write, so a process that is killed leaves at most one torn batch, and readers leave it out.
A sealed segment carries two checksums: one a page, which every Parquet reader can verify, and one
over the whole file, since a Parquet footer, which says where each column lies, has none.
"""

import contextlib
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache, reduce
from operator import or_
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from lossledger.entry import NAMES, dtype_of
from lossledger.errors import LossLedgerError
from lossledger.folder import sync_directory

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

Block = Mapping[str, np.ndarray]

BATCH_ROWS = 65_536
"""Rows of a batch that is written, and of a block that is read, at most."""
GROUP_ROWS = 131_072
"""Rows of a Parquet row group: what a filter can skip, and what sealing holds at once."""

_COMPRESSED_ROWS = 256  # compressing the columns of a smaller batch costs more than their bytes
_MARK = b"lossledger-crc32="
_DELTA = ("step", "batch", "time")
_DICTIONARY = ("call", "model", "epoch", "weight", "rows", "learning_rate", "batch_id", "updated")


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
        # One attribute, so that an interrupt sees bytes and rows agree: (bytes, rows of the run).
        self.written = (0, start)
        self.broken = False
        self._header: bytes = schema(outputs).serialize().to_pybytes()
        # Exclusive: never an existing file, and never through a link out of the folder.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        self._descriptor = os.open(path, flags, 0o644)
        try:
            self._append(self._header, 0)
        except BaseException:
            self.close()
            path.unlink()
            raise

    @property
    def open(self) -> bool:
        """Whether another batch may follow."""
        return self._descriptor >= 0 and not self.broken

    def write(self, blocks: Sequence[Block]) -> None:
        """Appends blocks as one batch: plain where small, zstd above; a stream may mix them."""
        batch = _batch(blocks, schema(self.outputs))
        if batch.num_rows < _COMPRESSED_ROWS:
            data = memoryview(batch.serialize())
        else:
            data = memoryview(_compressed(batch))[len(self._header) :]
        self._append(data, batch.num_rows)

    def _append(self, data: bytes | memoryview, rows: int) -> None:
        size, end = self.written
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(self._descriptor, left) :]
            self.written = (size + len(data), end + rows)
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


@cache
def schema(outputs: tuple[str, ...]) -> "pa.Schema":
    """The Arrow schema of the entry's columns and of named outputs."""
    import pyarrow as pa

    return pa.schema([(name, pa.from_numpy_dtype(dtype_of(name))) for name in NAMES + outputs])


def rows_of(block: Block) -> int:
    """Rows of a block, the length of any of its columns."""
    return len(next(iter(block.values()), ()))


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


def _compressed(batch: "pa.RecordBatch") -> "pa.Buffer":
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    # Left open: closing would append the mark that ends a stream.
    pa.ipc.new_stream(sink, batch.schema, options=options).write_batch(batch)
    return sink.getvalue()


def seal(stream: Stream) -> None:
    """Replaces a closed stream by Parquet; at every moment one of the two is there, whole.

    Raises:
        OSError: The disk refused, or does not give back what was written; the stream stays.
    """
    rows = stream.written[1] - stream.start
    if rows:
        target = stream.path.with_suffix(".parquet")
        aside = target.with_suffix(".parquet.tmp")
        try:
            with aside.open("wb") as file:
                file.write(_sealed(stream, rows))
                file.flush()
                os.fsync(file.fileno())
            aside.replace(target)
        except BaseException:
            with contextlib.suppress(OSError):
                aside.unlink()
            raise
        sync_directory(target.parent)
    with contextlib.suppress(PermissionError):  # Windows, while somebody reads it
        stream.path.unlink()


def _sealed(stream: Stream, rows: int) -> bytearray:
    import pyarrow as pa
    from pyarrow import parquet

    layout = schema(stream.outputs)
    sink = pa.BufferOutputStream()
    split = [name for name in layout.names if name not in _DELTA + _DICTIONARY]
    writer = parquet.ParquetWriter(
        sink,
        layout,
        compression="zstd",
        use_dictionary=cast("Any", list(_DICTIONARY)),  # its stub knows only bool
        column_encoding=dict.fromkeys(_DELTA, "DELTA_BINARY_PACKED")
        | dict.fromkeys(split, "BYTE_STREAM_SPLIT"),
        write_page_checksum=True,
    )
    batches = _stream_batches(stream.path.read_bytes(), stream.path)
    for chunk in _gathered(batches, GROUP_ROWS):
        writer.write_table(chunk, row_group_size=GROUP_ROWS)
        rows -= chunk.num_rows
    if rows:
        raise OSError(f"{stream.path} lacks {rows} of the rows that were written to it")
    writer.add_key_value_metadata({"lossledger": f"{_MARK.decode()}{0:08x}"})
    writer.close()
    data = bytearray(sink.getvalue())
    place = data.rfind(_MARK) + len(_MARK)
    data[place : place + 8] = b"%08x" % zlib.crc32(data)
    return data


def _gathered(batches: Iterable["pa.RecordBatch"], rows: int) -> Iterator["pa.Table"]:
    """Puts small batches together, up to about `rows` rows a piece."""
    import pyarrow as pa

    waiting: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        if count and count + batch.num_rows > rows:
            yield pa.Table.from_batches(waiting).combine_chunks()
            waiting, count = [], 0
        waiting.append(batch)
        count += batch.num_rows
    if count:
        yield pa.Table.from_batches(waiting).combine_chunks()


def _stream_batches(data: bytes, path: Path) -> Iterator["pa.RecordBatch"]:
    """The complete batches of a stream; a torn tail ends it as a regular end does."""
    import pyarrow as pa

    source = pa.BufferReader(data)
    batches = None
    while True:
        try:
            batches = batches or pa.ipc.open_stream(source)
            batch = batches.read_next_batch()
            batch.validate()
        except StopIteration:
            # Zeros end a stream, and are what a power cut leaves of a tail that was not synced.
            if data[source.tell() :].strip(b"\0"):
                raise damaged(path, "bytes after the end") from None
            return
        except (pa.ArrowException, OSError) as error:
            if source.tell() < len(data):
                raise damaged(path, error) from error
            return
        yield batch


class Segment:
    """A segment to read, as it is when first read; bounded in memory, since segments are.

    Args:
        entries: The folder of the segments.
        number: Which of them.

    Raises:
        LossLedgerError: On reading: it is damaged or missing (slug `segment-damaged`).
    """

    def __init__(self, entries: Path, number: int) -> None:
        self._stem = entries / f"{number:06d}"

    def _load(self) -> tuple[Path, bytes]:
        # Sealing puts the Parquet file there before it takes the stream away.
        for suffix in (".parquet", ".arrows", ".parquet"):
            path = self._stem.with_suffix(suffix)
            with contextlib.suppress(FileNotFoundError):
                return path, path.read_bytes()
        raise damaged(self._stem.with_suffix(".parquet"), "no such file, though later ones exist")

    def outputs(self) -> tuple[str, ...]:
        """Names of the named outputs' losses in it."""
        path, data = self._load()
        layout: pa.Schema | None = None
        if path.suffix == ".parquet":
            layout = _sealed_file(path, data).schema_arrow
        else:
            layout = next((batch.schema for batch in _stream_batches(data, path)), None)
        return tuple(name for name in (layout.names if layout else ()) if name not in NAMES)

    def chunks(self, columns: Sequence[str]) -> Iterator["pa.Table"]:
        """Its rows in order, up to `BATCH_ROWS` a chunk of one piece; lacking columns are null."""
        path, data = self._load()
        if path.suffix == ".parquet":
            batches = _sealed_batches(path, data, columns)
        else:
            batches = _gathered(_stream_batches(data, path), BATCH_ROWS)
        for batch in batches:
            yield _with_columns(batch, columns, path)

    def filtered(self, columns: Sequence[str], outputs: Sequence[str], rule: Any) -> "pa.Table":
        """The rows that a `pyarrow.compute` expression keeps; it may name any column of the run."""
        import pyarrow as pa

        path, data = self._load()
        layout = schema(tuple(outputs))
        if path.suffix == ".parquet":
            from pyarrow import parquet

            _sealed_file(path, data)
            return parquet.read_table(
                pa.BufferReader(data),
                columns=list(columns),
                filters=rule,
                schema=layout,
                page_checksum_verification=True,
            )
        pieces = [
            _with_columns(chunk, layout.names, path).filter(rule).select(list(columns))
            for chunk in _gathered(_stream_batches(data, path), BATCH_ROWS)
        ]
        return concatenated(pieces, columns)


def _sealed_file(path: Path, data: bytes) -> "ParquetFile":
    import pyarrow as pa
    from pyarrow import parquet

    place = data.rfind(_MARK) + len(_MARK)
    view = memoryview(data)
    found = zlib.crc32(view[place + 8 :], zlib.crc32(b"00000000", zlib.crc32(view[:place])))
    if b"%08x" % found != data[place : place + 8]:
        raise damaged(path, "the checksum over the file does not match")
    return parquet.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)


def _sealed_batches(path: Path, data: bytes, columns: Sequence[str]) -> Iterator["pa.Table"]:
    import pyarrow as pa

    file = _sealed_file(path, data)
    present = [name for name in columns if name in file.schema_arrow.names]
    # Without any column there would be no count of rows.
    for batch in file.iter_batches(BATCH_ROWS, columns=present or ["step"], use_threads=False):
        yield pa.Table.from_batches([batch])


def _with_columns(chunk: "pa.Table", columns: Sequence[str], path: Path) -> "pa.Table":
    import pyarrow as pa

    arrays: list[Any] = []
    for name in columns:
        kind = pa.from_numpy_dtype(dtype_of(name))
        if name not in chunk.column_names:
            arrays.append(pa.nulls(chunk.num_rows, kind))
        elif chunk.schema.field(name).type != kind:
            raise damaged(path, f"column {name!r} is no {kind}")
        else:
            arrays.append(chunk.column(name))
    return pa.table(arrays, names=list(columns))


def concatenated(tables: Sequence["pa.Table"], columns: Sequence[str]) -> "pa.Table":
    """Tables of the same columns one after another; an empty one where there are none."""
    import pyarrow as pa

    fields = [(name, pa.from_numpy_dtype(dtype_of(name))) for name in columns]
    return pa.concat_tables(tables) if tables else pa.schema(fields).empty_table()


def steps_of(spans: Mapping[int, tuple[int, int] | None]) -> Any:
    """The expression that keeps the rows of some calls, each from a first to a last step."""
    from pyarrow import compute

    rules: list[Any] = []
    for call, span in spans.items():
        rule = compute.field("call") == call
        if span is not None:
            step = compute.field("step")
            rule = rule & (step >= span[0]) & (step <= span[1])
        rules.append(rule)
    return reduce(or_, rules)


def block_of(chunk: "pa.Table") -> dict[str, np.ndarray]:
    """A chunk as read-only arrays; null is NaN, in integers 0, in `updated` true."""
    return {name: _numpy(chunk.column(name), name) for name in chunk.column_names}


def _numpy(column: "pa.ChunkedArray", name: str) -> np.ndarray:
    array, dtype = column.chunk(0), dtype_of(name)
    if array.null_count == 0:
        return array.to_numpy(zero_copy_only=False)
    fill = {"f": np.nan, "b": True}.get(dtype.kind, 0)
    if array.null_count == len(array):
        return np.full(len(array), fill, dtype)
    if dtype.kind == "b":
        values = _bits(array, 1)
    else:
        values = np.frombuffer(array.buffers()[1], dtype)[array.offset : array.offset + len(array)]
    return np.where(_bits(array, 0), values, np.asarray(fill, dtype))


def _bits(array: "pa.Array", buffer: int) -> np.ndarray:
    packed = np.frombuffer(array.buffers()[buffer], np.uint8)
    bits = np.unpackbits(packed, bitorder="little")
    return bits[array.offset : array.offset + len(array)].astype(bool)


def damaged(path: Path, what: object) -> LossLedgerError:
    """The error for a segment whose numbers can't be trusted."""
    return LossLedgerError(
        "A segment of the run's entries is damaged; no number is given from it. "
        f"Received: {path}: {what}. Restore the file from a copy.",
        slug="segment-damaged",
    )
