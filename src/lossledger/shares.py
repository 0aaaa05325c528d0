"""A run's entries as one row a step, whoever wrote them: replicas' and workers' shares folded.

A share of a step is a row with its loss and its weight. The step's loss is their weighted mean
`sum(w l) / sum(w)`, in float64, whatever the sizes of the shares, and its weight their sum: pairs
of a sum and a weight merge (see `lossledger.statistics`). A run without shares is read as it is.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lossledger import store
from lossledger.entry import NAMES, WHOLE, dtype_of
from lossledger.folder import read_json
from lossledger.merging import WORKER, Rows, merged, steps_begin
from lossledger.segments.spans import Spans
from lossledger.segments.tables import null, table_of, unknown
from lossledger.words import counted
from lossledger.workers import entries_folders, is_shared, is_written, workers_of

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Missing", "Tail", "fold", "missing", "outputs", "scan", "state", "table"]

MISSING = "missing"
"""A column that `scan` can give of a run with workers: how many have no row of the step."""

_SUMMED = ("weight", "rows", "elements", "sample_weight")
_MEANS = ("loss", "penalty")
_FIRST = ("step", "call", "model", "epoch", "batch", "learning_rate", "time", "updated", "reported")
_NEEDED = ("step", "call", "replica", "weight", "rows")


def state(folder: Path) -> tuple[object, ...]:
    """Differs when the run has grown."""
    return tuple((rank, store.state(path)) for rank, path in entries_folders(folder))


def outputs(folder: Path) -> tuple[str, ...]:
    """Names of the named outputs whose losses a run has, in order of first appearance."""
    names = (name for _, path in entries_folders(folder) for name in store.outputs(path))
    return tuple(dict.fromkeys(names))


def scan(
    folder: Path, columns: Sequence[str] | None = None, *, shares: bool = False
) -> Iterator[Rows]:
    """Reads a run's entries block by block, a row a step; see `lossledger.store.scan`.

    Where shares are folded, losses are float64, and the steps of a call ascend.

    Args:
        folder: The run's folder. Writers may be at work in it.
        columns: Names of columns, `missing` among them; all that the run has by default.
        shares: Whether to give the rows as they were written, with their `worker` and `replica`.
    """
    if not is_shared(folder):
        yield from store.scan(folder, columns)
        return
    names = [*NAMES, *outputs(folder)] if columns is None else list(columns)
    if shares:
        names = [*names, *(name for name in (WORKER, "replica") if name not in names)]
    stored = list(dict.fromkeys((*names, *_NEEDED)))
    stored = [name for name in stored if name not in (MISSING, WORKER)]
    workers = _workers(folder)
    written = {
        rank: store.scan(path, stored, more=stored) for rank, path in entries_folders(folder)
    }
    for rows in merged(written):
        block = rows if shares else fold(rows, workers)
        yield {name: block[name] for name in names}


@dataclass(frozen=True)
class Missing:
    """What a run with workers lacks of one of them.

    Args:
        worker: Its rank.
        call: The call.
        steps: Steps of which it has no row, though others do.
        last: The last step of the call of which it has one; `None` without any.
    """

    worker: int
    call: int
    steps: int
    last: int | None

    @property
    def told(self) -> str:
        """In words: whose rows of how many steps, and the last that there is."""
        ends = "it has none" if self.last is None else f"the last that it has is {self.last}"
        steps = counted(self.steps, "step")
        return f"worker {self.worker}'s rows of {steps} of call {self.call}: {ends}"


def missing(folder: Path) -> list[Missing]:
    """What each worker's share lacks; nothing where every row is the whole step."""
    if not is_shared(folder) or not workers_of(folder):
        return []
    count = _workers(folder)
    steps: Counter[int] = Counter()
    has: Counter[int] = Counter()
    last: dict[int, int] = {}
    for rows in scan(folder, ["step", "call"], shares=True):
        rows = {name: values[rows["replica"] != WHOLE] for name, values in rows.items()}
        steps.update(_counted(rows["call"][steps_begin(rows)]))
        own = steps_begin(rows, of=("call", "step", WORKER))
        share = rows["call"][own].astype(np.int64) * count + rows[WORKER][own]
        has.update(_counted(share))
        shares, place = np.unique(share[::-1], return_index=True)
        last |= dict(zip(shares.tolist(), rows["step"][own][::-1][place].tolist(), strict=True))
    return [
        Missing(worker, call, total - has[share], last.get(share))
        for call, total in steps.items()
        for worker, share in enumerate(range(call * count, (call + 1) * count))
        if has[share] < total
    ]


def _counted(numbers: np.ndarray) -> dict[int, int]:
    found, counts = np.unique(numbers, return_counts=True)
    return dict(zip(found.tolist(), counts.tolist(), strict=True))


def _workers(folder: Path) -> int:
    count = read_json(folder / "run.json").get("workers", 1)
    return count if isinstance(count, int) else len(workers_of(folder))


def fold(rows: Rows, workers: int = 1) -> Rows:
    """One row a step of rows that lie side by side; see the module.

    A share of no weight has no part in a mean. A row that is the whole step (`replica` -1) is the
    same in every worker, and stands alone. Fingerprints of shares add up, lane by lane, mod 2^32.

    Args:
        rows: Columns, with `worker`, `replica`, `call`, `step`, `weight` and `rows`; losses of
            named outputs are weighted by rows.
        workers: How many workers there are: `missing` says how many have no row of a step.
    """
    begins = steps_begin(rows)
    again = (rows["replica"] == WHOLE) & (
        np.arange(len(rows["step"]))
        != np.repeat(begins, np.diff(np.append(begins, len(rows["step"]))))
    )
    if again.any():
        rows = {name: values[~again] for name, values in rows.items()}
        begins = steps_begin(rows)
    return {name: _folded(name, rows, begins) for name in rows} | {
        MISSING: _missing(rows, begins, workers)
    }


def _folded(name: str, rows: Rows, begins: np.ndarray) -> np.ndarray:
    values = rows[name]
    if name in _FIRST or name in (WORKER, "replica"):
        return values[begins]
    if name == "batch_id":
        return _added(values, rows["rows"], begins)
    if name in _SUMMED:
        return _summed(values, rows["rows"], begins)
    weight = rows["weight"] if name in _MEANS else rows["rows"]
    return _mean(values.astype(np.float64), weight.astype(np.float64), begins)


def _summed(values: np.ndarray, rows: np.ndarray, begins: np.ndarray) -> np.ndarray:
    """Sums; NaN, which is not known, where no share of a step has a value, or one with rows none.

    Of some shares alone it would be taken for all.
    """
    if values.dtype.kind != "f":
        return np.add.reduceat(values, begins).astype(values.dtype)
    known = ~np.isnan(values)
    total = np.add.reduceat(np.where(known, values, 0.0), begins)
    lacking = np.logical_or.reduceat(~known & (rows != 0), begins)
    return np.where(np.logical_or.reduceat(known, begins) & ~lacking, total, np.nan)


def _mean(values: np.ndarray, weight: np.ndarray, begins: np.ndarray) -> np.ndarray:
    used = weight != 0
    with np.errstate(all="ignore"):
        total = np.add.reduceat(np.where(used, values * weight, 0.0), begins)
        mean = total / np.add.reduceat(weight, begins)
    parts = np.add.reduceat(used, begins, dtype=np.int64)
    # One share is the step: w l / w could round.
    only = np.maximum.reduceat(np.where(used, np.arange(len(values)), begins[0]), begins)
    alone = np.where(parts == 0, begins, only)
    return np.where(parts <= 1, values[alone], mean)


def _added(ids: np.ndarray, rows: np.ndarray, begins: np.ndarray) -> np.ndarray:
    lanes = (ids >> np.uint64(32), ids & np.uint64(2**32 - 1))
    high, low = (np.add.reduceat(lane, begins) & np.uint64(2**32 - 1) for lane in lanes)
    unknown = np.logical_or.reduceat((ids == 0) & (rows != 0), begins)
    return np.where(unknown, np.uint64(0), high << np.uint64(32) | low)


def _missing(rows: Rows, begins: np.ndarray, workers: int) -> np.ndarray:
    change = np.diff(rows[WORKER], prepend=-1) != 0
    change[begins] = True
    there = np.add.reduceat(change, begins, dtype=np.int32)
    whole = rows["replica"][begins] == WHOLE
    return np.where(whole, 0, np.maximum(workers - there, 0)).astype("i4")


class Tail:
    """Reads the entries of a run that may grow, each of them once; see `lossledger.store.Tail`.

    What workers share is given when all of them are done: until then a step may lack some rows.

    Args:
        folder: The run's folder. Writers may be at work in it.
        columns: Names of columns of `lossledger.entry`; the losses of named outputs are added.
    """

    def __init__(self, folder: Path, columns: Sequence[str]) -> None:
        self._folder = folder
        self._columns = list(columns)
        stored = dict.fromkeys((*columns, *_NEEDED))
        self._own = store.Tail(folder, [*stored])
        self._plain = store.Tail(folder, columns)
        self._done = False

    def read(self) -> Iterator[Rows]:
        """The entries since the last reading, which must have been read to its end."""
        if not is_shared(self._folder):
            yield from self._plain.read()
        elif not workers_of(self._folder):
            for rows in _by_steps(self._own.read()):
                yield self._with_nulls(fold(rows))
        elif not self._done and not is_written(self._folder):
            self._done = True
            for block in scan(self._folder, [*self._columns, *outputs(self._folder)]):
                yield self._with_nulls(block)

    def _with_nulls(self, block: Rows) -> Rows:
        apart = {WORKER, MISSING, *_NEEDED} - set(self._columns)
        found = {name: values for name, values in block.items() if name not in apart}
        for name, values in [*found.items()]:
            lacking = unknown(name, values)
            if lacking is not None and lacking.any():
                found[null(name)] = lacking
        return found


def _by_steps(blocks: Iterator[Rows]) -> Iterator[Rows]:
    """Rows of one process's replicas, no step in two blocks; its named losses may change."""
    marks = null("")
    told = ({n: v for n, v in each.items() if not n.startswith(marks)} for each in blocks)
    for _, alike in groupby(told, key=tuple):
        yield from merged({0: alike})


def table(
    folder: Path,
    *,
    columns: Sequence[str] | None = None,
    spans: Spans | None = None,
    shares: bool = False,
) -> "pa.Table":
    """Reads a run's entries at once; see `lossledger.store.table`.

    Where shares are folded, a loss is float64, and what is not known is null.
    """
    if not is_shared(folder):
        return store.table(folder, columns=columns, spans=spans)
    known = [*NAMES, *outputs(folder)]
    more = [WORKER, "replica"] if shares else []
    store.check_columns(columns, known, more)
    read = [*known, *more]
    blocks = list(scan(folder, read, shares=shares))
    arrays = {
        name: np.concatenate([block[name] for block in blocks] or [np.empty(0, dtype_of(name))])
        for name in read
    }
    whole = table_of(arrays)
    chosen = list(dict.fromkeys((*(known if columns is None else columns), *more)))
    return (whole if spans is None else spans.of(whole)).select(chosen)
