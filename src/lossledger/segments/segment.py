"""A segment to read, whichever form it has by then."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lossledger.entry import NAMES
from lossledger.folder import MOST_BYTES, content_of
from lossledger.segments.sealed import sealed_batches, sealed_file, sealed_rows
from lossledger.segments.stream import stream_batches
from lossledger.segments.tables import (
    BATCH_ROWS,
    concatenated,
    damaged,
    gathered,
    schema,
    with_columns,
)

if TYPE_CHECKING:
    import pyarrow as pa


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
                try:
                    return path, content_of(path, MOST_BYTES)
                except ValueError as error:
                    raise damaged(path, error) from error
        raise damaged(self._stem.with_suffix(".parquet"), "no such file, though later ones exist")

    def outputs(self) -> tuple[str, ...]:
        """Names of the named outputs' losses in it."""
        path, data = self._load()
        layout: pa.Schema | None = None
        if path.suffix == ".parquet":
            layout = sealed_file(path, data).schema_arrow
        else:
            layout = next((batch.schema for batch in stream_batches(data, path)), None)
        return tuple(name for name in (layout.names if layout else ()) if name not in NAMES)

    def chunks(self, columns: Sequence[str]) -> Iterator["pa.Table"]:
        """Its rows in order, up to `BATCH_ROWS` a chunk of one piece; lacking columns are null."""
        path, data = self._load()
        if path.suffix == ".parquet":
            batches = sealed_batches(path, data, columns)
        else:
            batches = gathered(stream_batches(data, path), BATCH_ROWS)
        for batch in batches:
            yield with_columns(batch, columns, path)

    def filtered(self, columns: Sequence[str], outputs: Sequence[str], rule: Any) -> "pa.Table":
        """The rows that a `pyarrow.compute` expression keeps; it may name any column of the run."""
        path, data = self._load()
        layout = schema(tuple(outputs))
        if path.suffix == ".parquet":
            return sealed_rows(path, data, columns, rule, layout)
        pieces = [
            with_columns(chunk, layout.names, path).filter(rule).select(list(columns))
            for chunk in gathered(stream_batches(data, path), BATCH_ROWS)
        ]
        return concatenated(pieces, columns)
