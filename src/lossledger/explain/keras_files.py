"""A row an epoch of Keras's `fit`: a CSVLogger file, or a table of its History."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

from lossledger.conventions import Convention
from lossledger.explain.explained import Explained, Series
from lossledger.explain.kind import Kind, Versions, epoch_series, is_loss, losses_first, rows
from lossledger.explain.source import Source
from lossledger.explain.table import Table, header_of, numbers, read_table, whole_numbers

_COUNTERS = {"epoch", "batch", "iteration", "global_step"}
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
        """A first column `epoch` (or pandas's nameless one), a loss, and no column `step`.

        Or, of a History that pandas wrote without its index, a loss and its validation's.
        """
        header = header_of(source.opening)
        if not header or "step" in header:
            return False
        if header[0] in ("epoch", ""):
            return any(is_loss(name) for name in header)
        return {"loss", "val_loss"} <= set(header) and not _COUNTERS & set(header)

    def read(self, source: Source, versions: Versions) -> Explained:
        """Reads it."""
        table = read_table(source)
        index = table.header[0] if table.header[0] in ("epoch", "") else None
        epochs = list(range(len(table.rows)))
        notes = [CUSTOM]
        if index is None:
            notes.append("it has no column epoch: its rows are taken for epochs, from 0 on")
        else:
            epochs = whole_numbers(source, "epoch", table.column(index))
        notes += _notes(table, epochs)
        found: list[Series] = []
        for name in table.header if index is None else table.header[1:]:
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
