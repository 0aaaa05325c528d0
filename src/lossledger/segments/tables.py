"""What both forms of a segment share: the schema, tables of Arrow, and blocks of numpy.

pyarrow is imported when it is first needed: whatever reads no entries starts without it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lossledger.entry import DTYPES, NAMES, dtype_of
from lossledger.errors import LossLedgerError

if TYPE_CHECKING:
    import pyarrow as pa

Block = Mapping[str, np.ndarray]

BATCH_ROWS = 65_536
"""Rows of a batch that is written, and of a block that is read, at most."""
GROUP_ROWS = 131_072
"""Rows of a Parquet row group: what a filter can skip, and what sealing holds at once."""


@cache
def schema(outputs: tuple[str, ...]) -> "pa.Schema":
    """The Arrow schema of the entry's columns and of named outputs."""
    import pyarrow as pa

    return pa.schema([(name, pa.from_numpy_dtype(dtype_of(name))) for name in NAMES + outputs])


def check_schema(layout: "pa.Schema") -> None:
    """Raises a `ValueError` where the columns are none that entries have."""
    import pyarrow as pa

    names = layout.names  # raises, too, where one is no UTF-8
    if len(set(names)) < len(names):
        raise ValueError("two columns have one name")
    known = [pa.from_numpy_dtype(dtype) for dtype in DTYPES.values()]
    wrong = [name for name, kind in zip(names, layout.types, strict=True) if kind not in known]
    if wrong:
        raise ValueError(f"column {wrong[0][:80]!r} has no type of an entry")


def rows_of(block: Block) -> int:
    """Rows of a block, the length of any of its columns."""
    return len(next(iter(block.values()), ()))


def gathered(batches: Iterable["pa.RecordBatch"], rows: int) -> Iterator["pa.Table"]:
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


def with_columns(chunk: "pa.Table", columns: Sequence[str], path: Path) -> "pa.Table":
    """A chunk with the columns named, null where it lacks one.

    Raises:
        LossLedgerError: A column has another type (slug `segment-damaged`).
    """
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


def table_of(columns: Block) -> "pa.Table":
    """Arrays of blocks as a table: what is not known, NaN or no fingerprint, is null again."""
    import pyarrow as pa

    arrays = {name: pa.array(each, mask=unknown(name, each)) for name, each in columns.items()}
    return pa.table(arrays)


def unknown(name: str, values: np.ndarray) -> np.ndarray | None:
    """Where a folded column is not known: NaN, or no fingerprint; `None` where it always is."""
    if name == "batch_id":
        return values == 0
    return np.isnan(values) if values.dtype.kind == "f" and name not in ("loss", "weight") else None


def marked(table: "pa.Table", since: Mapping[int, int | None]) -> "pa.Table":
    """The table with the column `superseded`: of these calls, from these steps on, true."""
    import pyarrow as pa

    calls, steps = table.column("call").to_numpy(), table.column("step").to_numpy()
    mark = np.zeros(len(steps), bool)
    for call, first in since.items():
        if first is not None:
            mark |= (calls == call) & (steps >= first)
    return table.append_column("superseded", pa.array(mark))


def block_of(chunk: "pa.Table") -> dict[str, np.ndarray]:
    """A chunk as read-only arrays; null is NaN, in integers 0, in `updated` true."""
    return {name: _numpy(chunk.column(name), name) for name in chunk.column_names}


def null(name: str) -> str:
    """The column of a block that says where another column is null; no name begins so."""
    return f"\0{name}"


def nulls_of(chunk: "pa.Table") -> dict[str, np.ndarray]:
    """Where a chunk's columns are null: bool (rows,), of those that are somewhere."""
    columns = {name: chunk.column(name).chunk(0) for name in chunk.column_names}
    return {null(name): ~_bits(a, 0) for name, a in columns.items() if a.null_count}


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
        # A buffer may be longer than its values, by anything.
        begin = array.offset * dtype.itemsize
        values = np.frombuffer(array.buffers()[1], dtype, len(array), begin)
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
