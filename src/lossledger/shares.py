"""A run's entries as one row a step, whoever wrote them: replicas' and workers' shares folded.

A share of a step is a row with its loss and its weight. The step's loss is their weighted mean
`sum(w l) / sum(w)`, in float64, whatever the sizes of the shares, and its weight their sum: pairs
of a sum and a weight merge (see `lossledger.statistics`). A run without shares is read as it is.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lossledger import store
from lossledger.entry import NAMES, WHOLE, dtype_of
from lossledger.folder import read_json
from lossledger.segments.spans import Spans
from lossledger.segments.tables import null, table_of, unknown
from lossledger.workers import entries_folders, is_shared, is_written, workers_of

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Missing", "Tail", "fold", "missing", "outputs", "scan", "state", "table"]

MISSING = "missing"
"""A column that `scan` can give of a run with workers: how many have no row of the step."""

WORKER = "worker"

_SUMMED = ("weight", "rows", "elements", "sample_weight")
_MEANS = ("loss", "penalty")
_FIRST = ("step", "call", "model", "epoch", "batch", "learning_rate", "time", "updated", "reported")
_NEEDED = ("step", "call", "replica", "weight", "rows")

Block = dict[str, np.ndarray]


def state(folder: Path) -> tuple[object, ...]:
    """Differs when the run has grown."""
    return tuple((rank, store.state(path)) for rank, path in entries_folders(folder))


def outputs(folder: Path) -> tuple[str, ...]:
    """Names of the named outputs whose losses a run has, in order of first appearance."""
    names = (name for _, path in entries_folders(folder) for name in store.outputs(path))
    return tuple(dict.fromkeys(names))


def scan(
    folder: Path, columns: Sequence[str] | None = None, *, shares: bool = False
) -> Iterator[Block]:
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
    for rows in _in_step(entries_folders(folder), stored):
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


def missing(folder: Path) -> list[Missing]:
    """What each worker's share lacks; nothing where every row is the whole step."""
    if not is_shared(folder) or not workers_of(folder):
        return []
    count = _workers(folder)
    steps: dict[int, int] = {}
    has: dict[tuple[int, int], tuple[int, int]] = {}
    for rows in scan(folder, ["step", "call"], shares=True):
        shares = rows["replica"] != WHOLE
        step, worker = rows["step"][shares], rows[WORKER][shares]
        if not len(step):
            continue
        call = int(rows["call"][0])
        steps[call] = steps.get(call, 0) + len(_begins(step))
        first = (np.diff(step, prepend=-1) != 0) | (np.diff(worker, prepend=-1) != 0)
        for rank in np.unique(worker).tolist():
            own = step[first & (worker == rank)]
            before = has.get((call, rank), (0, -1))[0]
            has[call, rank] = (before + len(own), int(own[-1]))
    return [
        Missing(
            rank,
            call,
            total - has.get((call, rank), (0, 0))[0],
            has.get((call, rank), (0, None))[1],
        )
        for call, total in steps.items()
        for rank in range(count)
        if has.get((call, rank), (0, 0))[0] < total
    ]


def _workers(folder: Path) -> int:
    count = read_json(folder / "run.json").get("workers", 1)
    return count if isinstance(count, int) else len(workers_of(folder))


def _in_step(folders: Sequence[tuple[int, Path]], columns: Sequence[str]) -> Iterator[Block]:
    """The rows of all shares, those of a step side by side, each step in one block.

    The share that is furthest behind is read on. Memory holds what the others are ahead.
    """
    blocks = {rank: store.scan(path, columns, more=columns) for rank, path in folders}
    reached = {rank: -1 for rank in blocks}
    ends: dict[int, dict[int, int]] = {rank: {} for rank in blocks}
    waiting: dict[int, list[Block]] = {}
    while blocks:
        rank = min(blocks, key=lambda each: reached[each])
        block = next(blocks[rank], None)
        if block is None:
            del blocks[rank]
        elif len(block["step"]):
            reached[rank] = max(reached[rank], int(block["step"].max()))
            for call in np.unique(block["call"]).tolist():
                of_call = block["call"] == call
                part = {name: values[of_call] for name, values in block.items()}
                part[WORKER] = np.full(len(part["step"]), rank, "i4")
                waiting.setdefault(call, []).append(part)
                ends[rank][call] = int(part["step"][-1])
        for call, parts in list(waiting.items()):
            # The last step that a share has reached may go on in its next block.
            limit = min((ends[each].get(call, -1) for each in blocks), default=None)
            if limit is None or any(part["step"][0] < limit for part in parts):
                ready, waiting[call] = _ready(parts, limit)
                yield from ready


def _ready(parts: Sequence[Block], limit: int | None) -> tuple[list[Block], list[Block]]:
    """The rows before a step, in the order of steps, and the others; all before `None`.

    A step's rows lie worker by worker: those of one may have come in two blocks, with others' in
    between.
    """
    rows = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    order = np.lexsort((rows[WORKER], rows["step"]))
    rows = {name: values[order] for name, values in rows.items()}
    cut = len(order) if limit is None else int(np.searchsorted(rows["step"], limit))
    pieces = [{n: v[part] for n, v in rows.items()} for part in (slice(cut), slice(cut, None))]
    ready, rest = ([piece] if len(piece["step"]) else [] for piece in pieces)
    return ready, rest


def fold(rows: Block, workers: int = 1) -> Block:
    """One row a step of rows that lie side by side; see the module.

    A share of no weight has no part in a mean. A row that is the whole step (`replica` -1) is the
    same in every worker, and stands alone. Fingerprints of shares add up, lane by lane, mod 2^32.

    Args:
        rows: Columns of one call, with `worker`, `replica`, `step`, `weight` and `rows`; losses of
            named outputs are weighted by rows.
        workers: How many workers there are: `missing` says how many have no row of a step.
    """
    begins = _begins(rows["step"])
    again = (rows["replica"] == WHOLE) & (
        np.arange(len(rows["step"]))
        != np.repeat(begins, np.diff(np.append(begins, len(rows["step"]))))
    )
    if again.any():
        rows = {name: values[~again] for name, values in rows.items()}
        begins = _begins(rows["step"])
    return {name: _folded(name, rows, begins) for name in rows} | {
        MISSING: _missing(rows, begins, workers)
    }


def _begins(step: np.ndarray) -> np.ndarray:
    return np.flatnonzero(np.diff(step, prepend=-1))


def _folded(name: str, rows: Block, begins: np.ndarray) -> np.ndarray:
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


def _missing(rows: Block, begins: np.ndarray, workers: int) -> np.ndarray:
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

    def read(self) -> Iterator[Block]:
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

    def _with_nulls(self, block: Block) -> Block:
        apart = {WORKER, MISSING, *_NEEDED} - set(self._columns)
        found = {name: values for name, values in block.items() if name not in apart}
        for name, values in [*found.items()]:
            lacking = unknown(name, values)
            if lacking is not None and lacking.any():
                found[null(name)] = lacking
        return found


def _by_steps(blocks: Iterator[Block]) -> Iterator[Block]:
    """Rows of one process's replicas call by call, no step in two blocks."""
    held: dict[int, Block] = {}
    for block in blocks:
        marks = {null(name) for name in block}
        columns = {name: values for name, values in block.items() if name not in marks}
        for call in np.unique(columns["call"]).tolist():
            rows = {name: values[columns["call"] == call] for name, values in columns.items()}
            rows[WORKER] = np.zeros(len(rows["step"]), "i4")
            if call in held and held[call].keys() != rows.keys():  # another named loss
                yield held.pop(call)
            if call in held:
                rows = {name: np.concatenate((held[call][name], v)) for name, v in rows.items()}
            cut = int(_begins(rows["step"])[-1])
            held[call] = {name: values[cut:] for name, values in rows.items()}
            if cut:
                yield {name: values[:cut] for name, values in rows.items()}
    yield from held.values()


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
