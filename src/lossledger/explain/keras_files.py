"""What Keras's `fit` leaves an epoch: a CSVLogger file, or its History dumped as JSON."""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, TypeGuard, cast

from lossledger.conventions import Convention
from lossledger.explain.explained import Explained, Series
from lossledger.explain.kind import Kind, Versions, epoch_series, is_loss, losses_first, rows
from lossledger.explain.source import NUMBERS, SERIES, Source
from lossledger.explain.table import Table, header_of, numbers, read_table, whole_numbers

COLLECTED = (
    "numbers that a callback collected batch by batch look the same in JSON: they would be "
    "batch_logs, which are running_mean in Keras 3"
)
CUSTOM = (
    "a custom train_step that returns other keys than its metrics' names has the last step's "
    "values reported as the epoch's; the file doesn't tell"
)


def keras_rows(name: str, versions: Versions) -> tuple[Convention, ...]:
    """What `fit` reports for an epoch under a name; nothing where it is no loss."""
    place = "evaluate" if name.startswith("val_") else "history"
    return rows(versions, place, "tf.keras", "keras") if is_loss(name) else ()


class KerasCsvLogger(Kind):
    """`keras.callbacks.CSVLogger`, or a History that pandas wrote: a row an epoch."""

    name = "keras-csvlogger"

    def recognises(self, source: Source) -> bool:
        """A first column `epoch` (or pandas's nameless one), a loss, and no column `step`."""
        header = header_of(source.opening)
        return (
            bool(header)
            and header[0] in ("epoch", "")
            and "step" not in header
            and any(is_loss(name) for name in header)
        )

    def read(self, source: Source, versions: Versions) -> Explained:
        """Reads it."""
        table = read_table(source)
        epochs = whole_numbers(source, "epoch", table.column(table.header[0]))
        found: list[Series] = []
        notes = [CUSTOM, *_notes(table, epochs)]
        for name in table.header[1:]:
            read = numbers(table.column(name))
            if read is None:
                notes.append(f"{name} is left out: not all of it is numbers")
                continue
            places, values = read
            if not values and name.startswith("val_"):
                notes.append(f"{name} has no number: CSVLogger adds it where nothing is validated")
                continue
            at = [epochs[place] for place in places]
            found.append(epoch_series(name, at, values, keras_rows(name, versions)))
        return Explained(source.path, self.name, "keras", losses_first(found), tuple(notes))


def _notes(table: Table, epochs: Sequence[int]) -> Iterator[str]:
    restarts = sum(after <= before for before, after in pairwise(epochs))
    if restarts:
        yield (
            f"epochs go back {restarts} time{'s' * (restarts > 1)}: the file holds several "
            "trainings, appended (CSVLogger(append=True)), which may overlap"
        )
    yield from table.notes


class KerasHistory(Kind):
    """`History.history` as JSON: of `json.dump`, or of a pandas table of it."""

    name = "keras-history"

    def recognises(self, source: Source) -> bool:
        """An object; whether it holds lists of numbers is seen when it is read."""
        return source.opening.lstrip().startswith("{")

    def read(self, source: Source, versions: Versions) -> Explained:
        """Reads it."""
        content = read_json(source)
        history, epochs, notes = _history(source, content)
        if not any(is_loss(name) for name in history):
            keys = ", ".join(list(map(str, content))[:8])
            raise source.unknown(f"a JSON object without a list of losses; its keys: {keys[:200]}")
        if len(history) > SERIES or sum(map(len, history.values())) > NUMBERS:
            raise source.too_large(f"at most {NUMBERS:,} numbers in {SERIES:,} lists are read")
        series: list[Series] = []
        for name, values in history.items():
            at = epochs if len(epochs) == len(values) else list(range(len(values)))
            series.append(epoch_series(name, at, values, keras_rows(name, versions)))
        longest = max(map(len, history.values()))
        short = [
            name
            for name, values in history.items()
            if len(values) < longest and not name.startswith("val_")
        ]
        if short:
            notes.append(
                f"{', '.join(short[:8])}: fewer numbers than epochs; which ones is unknown"
            )
        if any(len(v) < longest for n, v in history.items() if n.startswith("val_")):
            notes.append(
                "val_ numbers are fewer than epochs (validation_freq): their epochs aren't in the "
                "file"
            )
        return Explained(
            source.path, self.name, "keras", losses_first(series), (CUSTOM, COLLECTED, *notes)
        )


def _history(
    source: Source, content: Mapping[str, Any]
) -> tuple[dict[str, list[float]], list[int], list[str]]:
    """The lists of a History, the epochs they are of, and what to note."""
    inner = content.get("history")
    if isinstance(inner, dict) and "loss" not in content:
        told = content.get("epoch")
        epochs = [int(e) for e in told if _is_number(e)] if isinstance(told, list) else []
        return _history(source, cast("dict[str, Any]", inner))[0], epochs, []
    found: dict[str, list[float]] = {}
    notes: list[str] = []
    for name, values in content.items():
        # pandas writes a column as {"0": 0.7, "1": 0.6}.
        if isinstance(values, dict):
            values = list(cast("dict[str, Any]", values).values())
        if not isinstance(values, list):
            if is_loss(name):
                raise source.damaged(f"{name} is no list of numbers")
            continue
        items = cast("list[Any]", values)
        if all(value is None or _is_number(value) for value in items):
            found[name] = [float("nan") if value is None else float(value) for value in items]
        elif is_loss(name):
            raise source.damaged(f"{name} is no list of numbers")
        else:
            notes.append(f"{name} is left out: not all of it is numbers")
    return found, [], notes


def _is_number(value: Any) -> TypeGuard[int | float]:
    return (isinstance(value, int) and abs(value) < 2**62) or isinstance(value, float)


def read_json(source: Source) -> Any:
    """The file's JSON, NaN and infinities as Python writes them.

    Raises:
        LossLedgerError: It is none, or nested too deeply (`file-damaged`).
    """
    try:
        return json.loads(source.text())
    except (ValueError, RecursionError) as error:
        what = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise source.damaged(f"no valid JSON: {what[:200]}") from error
