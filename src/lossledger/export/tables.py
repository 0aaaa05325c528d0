"""CSV and Parquet: a table of the entries, one of the epochs, one of what was reported."""

import io
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np

from lossledger.entry import dtype_of
from lossledger.export.base import InFolder, is_output
from lossledger.export.pieces import Epochs, Shown, Steps
from lossledger.export.progress import Progress
from lossledger.segments.tables import null
from lossledger.statement import EpochStatement

if TYPE_CHECKING:
    import pyarrow as pa

_COUNTS = ("steps", "rows", "nonfinite")
_OTHER = ("epoch", "reported", "missing", *_COUNTS)
_EPOCH = [each.name for each in fields(EpochStatement) if each.name not in _OTHER]
_GROUP = 131_072
"""Rows of a Parquet file, at least, but for the last."""


class Tables(InFolder):
    """Three tables in a folder named like the run: `steps`, `epochs`, `reported`."""

    columns = ("step", "batch", "elements", "sample_weight", "batch_id", "reported")
    whole = True

    def open(self, *, force: bool) -> Progress:
        """See `Tracker`."""
        return self.place(force=force)

    def add(self, name: str, table: "pa.Table") -> None:
        """Takes rows of a table."""
        raise NotImplementedError

    def _add(self, name: str, columns: Mapping[str, Any]) -> None:
        import pyarrow as pa

        table = pa.table(dict(columns))
        self.added += sum(table.num_rows - column.null_count for column in table.columns)
        self.add(name, table)

    def steps(self, piece: Steps, *, own: bool, running: bool) -> None:
        """See `Tracker`."""
        columns: dict[str, Any] = {
            "optimizer_step": piece.optimizer_step,
            **{name: _column(piece, name) for name in ("step", "call", "model")},
            "epoch": piece.epoch,
            **{name: _column(piece, name) for name in ("batch", "time", "rows", "weight")},
            "loss/raw": _column(piece, "loss"),
            "loss/running_mean": piece.running_mean,
            "loss/penalty": _column(piece, "penalty"),
        }
        rest = ("learning_rate", "updated", "elements", "sample_weight", "batch_id", "reported")
        columns |= {name: _column(piece, name) for name in rest}
        columns |= {f"{n}/raw": _column(piece, n) for n in piece.block if is_output(n)}
        self._add("steps", columns)

    def epochs(self, piece: Epochs) -> None:
        """See `Tracker`."""
        count = piece.count
        columns: dict[str, Any] = {
            "optimizer_step": [end.optimizer_step for end in piece.ends],
            "call": np.full(count, piece.call, np.int32),
            "model": np.full(count, piece.model, np.int32),
            "epoch": [each.epoch for each in piece.statements],
            "time": [end.time for end in piece.ends],
        }
        for name in _COUNTS:
            columns[name] = np.array([getattr(each, name) for each in piece.statements], np.int64)
        for name in _EPOCH:
            values = [getattr(each, name) for each in piece.statements]
            columns[f"loss/{name}"] = np.array(values, np.float64)
        self._add("epochs", columns)

    def shown(self, piece: Shown) -> None:
        """See `Tracker`."""
        pairs = [
            (end, item)
            for end, item in zip(piece.ends, piece.items, strict=True)
            if end is not None
        ]
        if pairs:
            columns: dict[str, Any] = {
                "optimizer_step": [end.optimizer_step for end, _ in pairs],
                "call": np.full(len(pairs), piece.call, np.int32),
                "model": np.full(len(pairs), piece.model, np.int32),
                "epoch": [end.epoch for end, _ in pairs],
                "time": [end.time for end, _ in pairs],
                "place": [str(item["place"]) for _, item in pairs],
                "name": [str(item["name"]) for _, item in pairs],
                "value": np.array([float(item["value"]) for _, item in pairs], np.float64),
            }
            self._add("reported", columns)


def _column(piece: Steps, name: str) -> "pa.Array":
    import pyarrow as pa

    values = np.asarray(piece.block[name], dtype_of(name))
    return pa.array(values, mask=piece.block.get(null(name)))


class Csv(Tables):
    """`steps.csv`, `epochs.csv`, `reported.csv`: empty where there is no value, `nan`, `inf`.

    A file's columns are those that it began with: a named loss that appears later has a file of
    its own, `steps-1.csv`.
    """

    name = "csv"

    def open(self, *, force: bool) -> Progress:
        """See `Tracker`."""
        progress = super().open(force=force)
        self._heads: dict[str, bytes] = {}
        for name, size in self.files.sizes.items():
            if size:
                with (self.files.folder / name).open("rb") as file:
                    self._heads[name] = file.readline()
        return progress

    def add(self, name: str, table: "pa.Table") -> None:
        """See `Tables`."""
        head, rows = _csv(table)
        number = 0
        while self._heads.get(file := _numbered(name, number), head) != head:
            number += 1
        if file not in self._heads:
            self._heads[file] = head
            self.files.append(file, head)
        self.files.append(file, rows)


def _numbered(name: str, number: int) -> str:
    return f"{name}-{number}.csv" if number else f"{name}.csv"


def _csv(table: "pa.Table") -> tuple[bytes, memoryview]:
    """Its line of names, and its rows."""
    from pyarrow import csv

    sink = io.BytesIO()
    csv.write_csv(table, sink)
    text = sink.getbuffer()
    cut = bytes(text[:65_536]).index(b"\n") + 1
    return bytes(text[:cut]), text[cut:]


class Parquet(Tables):
    """`steps-000000.parquet` and so on: files of each table, read together as one.

    A file is whole when it is there. While a run grows one is written when there are rows enough.
    """

    name = "parquet"

    def open(self, *, force: bool) -> Progress:
        """See `Tracker`."""
        self._waiting: dict[str, list[pa.Table]] = {}
        return super().open(force=force)

    def add(self, name: str, table: "pa.Table") -> None:
        """See `Tables`."""
        self._waiting.setdefault(name, []).append(table)

    def commit(self, progress: Progress, *, last: bool) -> None:
        """See `Tracker`."""
        rows = {name: sum(t.num_rows for t in tables) for name, tables in self._waiting.items()}
        if not last and max(rows.values(), default=0) < _GROUP:
            return  # what was committed before still says how far it goes
        waiting, self._waiting = self._waiting, {}
        for name, tables in waiting.items():
            self.files.put(self._next(name), _parquet(tables))
        super().commit(progress, last=last)

    def _next(self, name: str) -> str:
        number = sum(file.startswith(f"{name}-") for file in self.files.sizes)
        return f"{name}-{number:06d}.parquet"


def _parquet(tables: "list[pa.Table]") -> memoryview:
    import pyarrow as pa
    from pyarrow import parquet

    sink = io.BytesIO()
    parquet.write_table(
        pa.concat_tables(tables, promote_options="default"), sink, compression="zstd"
    )
    return sink.getbuffer()
