"""A sealed segment: Parquet, whole or not there.

It carries two checksums: one a page, which every Parquet reader can verify, and one over the
whole file, since a Parquet footer, which says where each column lies, has none.
"""

import contextlib
import os
import zlib
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from lossledger.folder import sync_directory
from lossledger.segments.bounds import check_sealed
from lossledger.segments.spans import Spans
from lossledger.segments.stream import Stream, stream_batches
from lossledger.segments.tables import (
    BATCH_ROWS,
    GROUP_ROWS,
    check_schema,
    damaged,
    gathered,
    schema,
)

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

_MARK = b"lossledger-crc32="
_DELTA = ("step", "batch", "time")
_DICTIONARY = ("call", "model", "epoch", "weight", "rows", "learning_rate", "batch_id", "updated")


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
        _let_go()
    with contextlib.suppress(PermissionError):  # Windows, while somebody reads it
        stream.path.unlink()


def _let_go() -> None:
    """Gives memory back to the system: Arrow's pool would keep what sealing took, some 50 MB."""
    import pyarrow as pa

    pa.default_memory_pool().release_unused()


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
    batches = stream_batches(stream.path.read_bytes(), stream.path)
    for chunk in gathered(batches, GROUP_ROWS):
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


def sealed_file(path: Path, data: bytes) -> "ParquetFile":
    """Opens the bytes of a sealed segment, if they are those that were written.

    Raises:
        LossLedgerError: They are not, or claim what no segment has (slug `segment-damaged`).
    """
    import pyarrow as pa
    from pyarrow import parquet

    place = data.rfind(_MARK) + len(_MARK)
    view = memoryview(data)
    found = zlib.crc32(view[place + 8 :], zlib.crc32(b"00000000", zlib.crc32(view[:place])))
    if b"%08x" % found != data[place : place + 8]:
        raise damaged(path, "the checksum over the file does not match")
    with _whole(path):
        check_sealed(data)
        file = parquet.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        check_schema(file.schema_arrow)
        return file


@contextlib.contextmanager
def _whole(path: Path) -> Generator[None]:
    """What Arrow raises inside is told as damage of the file."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:
        raise damaged(path, error) from error


def sealed_batches(
    path: Path, data: bytes, columns: Sequence[str], spans: Spans | None = None
) -> Iterator["pa.Table"]:
    """Its rows in order, up to `BATCH_ROWS` a table; lacks the columns that it has not.

    Row groups that hold none of the rows that are meant are left out.
    """
    import pyarrow as pa

    file = sealed_file(path, data)
    present = [name for name in columns if name in file.schema_arrow.names]
    with _whole(path):
        groups = [n for n in range(file.num_row_groups) if spans is None or _meets(file, n, spans)]
        # Without any column there would be no count of rows.
        names = present or ["step"]
        for batch in file.iter_batches(BATCH_ROWS, groups, names, use_threads=False):
            yield pa.Table.from_batches([batch])


def _meets(file: "ParquetFile", group: int, spans: Spans) -> bool:
    """Whether a row group may hold rows that are meant, as its least and greatest values tell."""
    found: list[tuple[int, int]] = []
    for name in ("call", "step"):
        place = file.schema_arrow.get_field_index(name)
        bounds = file.metadata.row_group(group).column(place).statistics if place >= 0 else None
        if bounds is None or not bounds.has_min_max:
            return True
        found.append((bounds.min, bounds.max))
    return spans.meets(found[0], found[1])
