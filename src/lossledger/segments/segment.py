"""A segment to read, whichever form it has by then."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lossledger.entry import NAMES
from lossledger.folder import MOST_BYTES, content_of
from lossledger.segments.sealed import sealed_batches, sealed_file
from lossledger.segments.spans import Spans
from lossledger.segments.stream import stream_batches
from lossledger.segments.tables import BATCH_ROWS, damaged, gathered, with_columns

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

    def chunks(self, columns: Sequence[str], spans: Spans | None = None) -> Iterator["pa.Table"]:
        """Its rows in order, up to `BATCH_ROWS` a chunk; lacking columns are null.

        Args:
            columns: Names of columns.
            spans: Which rows are meant; all by default.
        """
        more = () if spans is None else (name for name in ("call", "step") if name not in columns)
        needed = [*columns, *more]
        path, data = self._load()
        if path.suffix == ".parquet":
            batches = sealed_batches(path, data, needed, spans)
        else:
            batches = gathered(stream_batches(data, path), BATCH_ROWS)
        for batch in batches:
            chunk = with_columns(batch, needed, path)
            yield chunk if spans is None else spans.of(chunk).select(list(columns))
