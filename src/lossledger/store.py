"""The entries of a run on disk: append, flush, seal, scan.

Entries lie in numbered segments under `entries/`: the open one an Arrow stream
(`000000.arrows`), to which every flush appends; a full one rewritten as Parquet
(`000000.parquet`) aside, synced, renamed, and only then its stream deleted. Where both lie, the
Parquet file is the truth. A writer on an existing folder starts a new segment.
"""

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lossledger.entry import NAMES, SPARSE, dtype_of
from lossledger.errors import LossLedgerError
from lossledger.lock import Lock
from lossledger.segments.sealed import seal
from lossledger.segments.segment import Segment
from lossledger.segments.spans import Spans
from lossledger.segments.stream import Stream
from lossledger.segments.tables import (
    BATCH_ROWS,
    block_of,
    concatenated,
    nulls_of,
    rows_of,
)

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "Tail",
    "Writer",
    "check_columns",
    "outputs",
    "scan",
    "state",
    "table",
]

STREAM_BYTES = 16 << 20
"""A stream this long is sealed, however few its rows: small flushes take more bytes a row."""
PENDING_ROWS = 1_000_000
"""Rows that wait in memory, at most, while the disk refuses them."""

_SEGMENT = re.compile(r"(\d{6,9})\.(arrows|parquet)")


class Writer:
    """Appends entries to a run's folder, as its only writer.

    What an `OSError` leaves is whole: the entries flushed before it stay readable, and those that
    wait are tried again by the next flush. When too many wait, further blocks are refused for
    good, since a ledger that ends early is honest and one with a hole is not. An interrupt
    (Ctrl-C) inside any method neither loses nor doubles a block.

    Args:
        folder: The run's folder; exists. Its segments, if any, are continued by a new one.
        segment_rows: Rows after which a segment is sealed.
        shared: Called before a segment is begun in which steps have a row a replica; what it
            raises, the flush raises.

    Raises:
        LossLedgerError: Another writer is at work in the folder (slug `folder-in-use`).
    """

    def __init__(
        self,
        folder: Path,
        *,
        segment_rows: int = 1_000_000,
        shared: Callable[[], None] = lambda: None,
    ) -> None:
        self._folder = folder
        self._entries = folder / "entries"
        self._segment_rows = segment_rows
        self._shared = shared
        self._batch_rows = min(BATCH_ROWS, segment_rows)
        self._process = os.getpid()
        # What waits, each with the count of rows up to its end: what the stream has of it is
        # known by its own count, so that no moment between two statements can double a block.
        self._pending: list[tuple[int, dict[str, np.ndarray]]] = []
        self._stream: Stream | None = None
        self._refused: OSError | None = None
        self._closed = False
        self._lock = Lock(folder)
        try:
            self._entries.mkdir(exist_ok=True)
            self._number = _tidied(self._entries)
        except BaseException:
            self._lock.release()
            raise

    @property
    def rows(self) -> int:
        """Rows appended to this writer so far."""
        return self._pending[-1][0] if self._pending else self._written

    @property
    def refuses(self) -> bool:
        """Whether too much waits, so that no further block is taken."""
        return self._refused is not None

    @property
    def _written(self) -> int:
        return self._stream.written[1] if self._stream else 0

    def append(self, block: Mapping[str, np.ndarray]) -> None:
        """Takes a block of entries into memory, and flushes where much has gathered.

        Args:
            block: Columns of equal length, by name; see `lossledger.entry`. Copied.

        Raises:
            OSError: The disk refused; see the class.
            ValueError: The columns differ in length, or the writer is closed.
        """
        self._check_usable()
        if self._refused is not None:
            raise self._refused
        columns = {name: np.array(values, dtype_of(name)) for name, values in block.items()}
        if len({values.shape for values in columns.values()}) > 1:
            shapes = {name: values.shape for name, values in columns.items()}
            raise ValueError(f"A block's columns must have one length. Received: {shapes}")
        before = self.rows
        blocks = [
            (before + piece.stop, {name: values[piece] for name, values in columns.items()})
            for piece in _pieces(columns, self._batch_rows)
        ]
        self._pending += blocks  # all or none
        if self.rows - self._written >= BATCH_ROWS:
            try:
                self.flush()
            except OSError as error:
                if self.rows - self._written >= PENDING_ROWS:
                    self._refused = error
                raise

    def flush(self) -> None:
        """Hands what was appended to the system: it survives this process, however it ends.

        Raises:
            OSError: The disk refused; what waits is kept and tried again by the next flush.
        """
        self._check_usable()
        while blocks := self._next_blocks():
            stream = self._stream_for(blocks)
            stream.write(blocks)
            size, rows, _ = stream.written
            if rows - stream.start >= self._segment_rows or size >= STREAM_BYTES:
                self._seal()

    def close(self, *, flush: bool = True) -> None:
        """Flushes, seals the open segment, lets another writer in; a second call does nothing.

        Args:
            flush: Whether to write what waits; otherwise it is given up.

        Raises:
            OSError: The disk refused; what was flushed stays readable.
        """
        if self._closed or self._process != os.getpid():
            return
        try:
            if flush:
                self.flush()
            self._seal()
        finally:
            if self._stream is not None:
                self._stream.close()
            self._closed = True
            self._lock.release()

    def _check_usable(self) -> None:
        if self._closed:
            raise ValueError("The writer is closed.")
        if self._process != os.getpid():
            raise LossLedgerError(
                "A forked process can't write into its parent's run. "
                f"Received: {self._folder}. Record into a folder of its own.",
                slug="folder-in-use",
            )

    def _next_blocks(self) -> list[dict[str, np.ndarray]]:
        written = self._written
        done = 0
        while done < len(self._pending) and self._pending[done][0] <= written:
            done += 1
        del self._pending[:done]
        return [block for end, block in self._pending if end <= written + self._batch_rows]

    def _stream_for(self, blocks: Sequence[Mapping[str, np.ndarray]]) -> Stream:
        stream = self._stream
        known = stream.outputs if stream else ()
        new = dict.fromkeys(name for block in blocks for name in block)
        wanted = (*known, *(name for name in new if name not in NAMES and name not in known))
        if stream is not None and stream.open:
            if wanted == known:
                return stream
            self._seal()
        if "replica" in wanted:
            self._shared()
        while True:
            path = self._entries / f"{self._number:06d}.arrows"
            if not path.with_suffix(".parquet").exists():
                with contextlib.suppress(FileExistsError):
                    self._stream = Stream(path, wanted, self._written)
                    return self._stream
            # Asked of the folder, not counted: an interrupt or a full disk may have left a
            # segment behind or none, and a number that is left out reads as a lost segment.
            self._number += 1

    def _seal(self) -> None:
        if self._stream is not None and self._stream.open:
            self._stream.close()
            seal(self._stream)


def _pieces(block: Mapping[str, np.ndarray], most: int) -> Iterator[slice]:
    """Where to cut a block: between steps, so that no flush leaves some replicas of one."""
    begin, rows = 0, rows_of(block)
    while begin < rows:
        end = min(begin + most, rows)
        if end < rows:
            last = np.flatnonzero(np.diff(block["step"][begin : end + 1]))[-1:]
            end = begin + int(last[0]) + 1 if len(last) else end
        yield slice(begin, end)
        begin = end


def _tidied(entries: Path) -> int:
    """Removes what crashes left behind; the number of the first segment to write."""
    for path in entries.glob("*.parquet.tmp"):
        path.unlink()
    for path in entries.glob("*.parquet"):
        path.with_suffix(".arrows").unlink(missing_ok=True)
    return max(_numbers(entries), default=-1) + 1


def _numbers(entries: Path) -> list[int]:
    """Numbers of the segments there are, in order."""
    with contextlib.suppress(FileNotFoundError):
        found = (_SEGMENT.fullmatch(name) for name in os.listdir(entries))
        return sorted({int(match[1]) for match in found if match})
    return []


def _segments(folder: Path) -> list[Segment]:
    """All segments up to the first that is missing: reading that one is an error."""
    entries = folder / "entries"
    numbers = _numbers(entries)
    gap = next((place for place, number in enumerate(numbers) if place != number), None)
    return [Segment(entries, number) for number in range(len(numbers) if gap is None else gap + 1)]


def state(folder: Path) -> tuple[tuple[str, int], ...]:
    """Differs when the run has grown: its files and their lengths in bytes."""
    found: list[tuple[str, int]] = []
    for place in (folder / "entries", folder):
        with contextlib.suppress(FileNotFoundError), os.scandir(place) as files:
            # A stream may be sealed while this looks.
            for file in files:
                with contextlib.suppress(FileNotFoundError):
                    found.append((file.name, file.stat().st_size))
    return tuple(sorted(found))


def outputs(folder: Path) -> tuple[str, ...]:
    """Names of the named outputs whose losses a run has, in order of first appearance."""
    return _outputs(_segments(folder))


def _outputs(segments: Sequence[Segment]) -> tuple[str, ...]:
    names = dict.fromkeys(name for each in segments for name in each.outputs())
    return tuple(name for name in names if name not in SPARSE)


def scan(
    folder: Path, columns: Sequence[str] | None = None, *, more: Sequence[str] = ()
) -> Iterator[dict[str, np.ndarray]]:
    """Reads a run's entries block by block, in the order of writing, in bounded memory.

    Args:
        folder: The run's folder. A writer may be at work in it.
        columns: Names of columns; all that the run has by default.
        more: Names of columns that others of the run's folders have: null where this has none.

    Yields:
        The columns by name, each of shape (rows,), rows <= 65,536, read-only. A null is NaN
        where floating, 0 where integer (no `batch_id` is 0), and true in `updated`.

    Raises:
        LossLedgerError: A segment is damaged (slug `segment-damaged`), or the run has no such
            column (slug `no-column`).
    """
    segments = _segments(folder)
    chosen = _chosen(segments, columns, more)
    for each in segments:
        for chunk in each.chunks(chosen):
            yield block_of(chunk)


class Tail:
    """Reads the entries of a run that may grow, each of them once, in bounded memory.

    Args:
        folder: The run's folder. A writer may be at work in it.
        columns: Names of columns of `lossledger.entry`; the losses of named outputs are added.
    """

    def __init__(self, folder: Path, columns: Sequence[str]) -> None:
        self._folder = folder
        self._columns = list(columns)
        self._segment = self._rows = 0

    def read(self) -> Iterator[dict[str, np.ndarray]]:
        """The entries since the last reading, which must have been read to its end.

        Yields:
            Blocks as `scan` has them. Where a column has nulls, `null(column)` is one more column
            that says where: bool (rows,).

        Raises:
            LossLedgerError: A segment is damaged (slug `segment-damaged`).
        """
        # A segment that has a successor is whole: look which there are before reading any.
        for number, segment in enumerate(_segments(self._folder)):
            if number < self._segment:
                continue
            if number > self._segment:
                self._segment, self._rows = number, 0
            before = 0
            outputs = [name for name in segment.outputs() if name not in SPARSE]
            for chunk in segment.chunks([*self._columns, *outputs]):
                new = chunk.slice(max(self._rows - before, 0))
                before += chunk.num_rows
                if new.num_rows:
                    self._rows = before
                    yield {**block_of(new), **nulls_of(new)}


def table(
    folder: Path, *, columns: Sequence[str] | None = None, spans: Spans | None = None
) -> "pa.Table":
    """Reads a run's entries at once; a null stays null, apart from NaN.

    Args:
        folder: The run's folder. A writer may be at work in it.
        columns: Names of columns; all that the run has by default.
        spans: Which rows are meant; all by default. Sealed segments skip the row groups that have
            none of them.

    Returns:
        A table of one row a step, in the order of writing.

    Raises:
        LossLedgerError: As `scan`.
    """
    segments = _segments(folder)
    chosen = _chosen(segments, columns)
    tables = [chunk for each in segments for chunk in each.chunks(chosen, spans)]
    return concatenated(tables, chosen)


def _chosen(
    segments: Sequence[Segment], columns: Sequence[str] | None, more: Sequence[str] = ()
) -> list[str]:
    if columns is not None and set(columns) <= {*NAMES, *SPARSE, *more}:
        return list(columns)
    known = (*NAMES, *_outputs(segments))
    check_columns(columns, known)
    return list(known if columns is None else columns)


def check_columns(
    columns: Sequence[str] | None, known: Sequence[str], more: Sequence[str] = SPARSE
) -> None:
    """Raises a `LossLedgerError` (slug `no-column`) if a run doesn't have all these columns."""
    unknown = sorted(set(columns or ()) - {*known, *more})
    if unknown:
        raise LossLedgerError(
            f"The run has no such column. Received: {', '.join(unknown)}. "
            f"It has: {', '.join(known)}.",
            slug="no-column",
        )
