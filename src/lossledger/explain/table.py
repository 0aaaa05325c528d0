"""A text table, read within bounds: its header, and its cells column by column."""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

from lossledger.explain.source import NUMBERS, SERIES, Source

MISSING = ("", "NA")
"""How a cell says that it has no number: Lightning, and Keras's CSVLogger."""
SEPARATORS = ",;\t|"


@dataclass(frozen=True, eq=False)
class Table:
    """Cells of a file.

    Args:
        header: Names of the columns.
        rows: Cells, a row each, as many as the header has.
        notes: What else to know of the text: lines that were left out, an end that is cut.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]

    def column(self, name: str) -> tuple[str, ...]:
        """The cells of a column."""
        place = self.header.index(name)
        return tuple(row[place] for row in self.rows)


def header_of(opening: str) -> tuple[str, ...]:
    """The names in the first line of a text; empty where it is no header."""
    line = opening.partition("\n")[0].rstrip("\r")
    try:
        names = next(csv.reader([line], delimiter=separator_of(line)), [])
    except csv.Error:
        return ()
    named = [name.strip() for name in names]
    return tuple(named) if len(set(named)) == len(named) > 1 else ()


def separator_of(line: str) -> str:
    """What parts the cells of a header: that which is most often in it."""
    return max(SEPARATORS, key=line.count)


def read_table(source: Source) -> Table:
    """Reads a text table.

    Raises:
        LossLedgerError: A row is longer or shorter than the header (`file-damaged`), or there are
            too many cells (`file-too-large`).
    """
    text = source.text()
    header = header_of(text)
    if len(header) > SERIES:
        raise source.too_large(f"{len(header):,} columns; at most {SERIES:,} are read")
    separator = separator_of(text.partition("\n")[0])
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    rows: list[tuple[str, ...]] = []
    torn, repeated = False, 0
    try:
        next(lines)
        for cells in lines:
            if torn:
                raise source.damaged(f"line {lines.line_num - 1:,} is cut off")
            if not cells:
                continue
            if tuple(cells) == header:
                repeated += 1
                continue
            torn = len(cells) < len(header)
            if len(cells) > len(header):
                raise source.damaged(
                    f"line {lines.line_num:,} has {len(cells)} cells under {len(header)} names"
                )
            if not torn:
                rows.append(tuple(cells))
            if len(rows) * len(header) > NUMBERS:
                raise source.too_large(f"more than {NUMBERS:,} cells")
    except csv.Error as error:
        raise source.damaged(f"line {lines.line_num:,}: {error}") from error
    notes = [f"the header stands in it {repeated + 1} times: files were joined"] * bool(repeated)
    if torn:
        notes.append("its last row is cut off and left out")
    elif rows and not text.endswith("\n"):
        notes.append("its last line has no end: its last number may be cut off")
    return Table(header, tuple(rows), tuple(notes))


def number(cell: str) -> float | None:
    """A cell as a number; `None` where it is none."""
    if "_" in cell:  # Python's own spelling, which no tool writes
        return None
    try:
        return float(cell)
    except ValueError:
        return None


def whole_numbers(source: Source, name: str, cells: Sequence[str]) -> list[int]:
    """Cells as whole numbers.

    Raises:
        LossLedgerError: One is none (`file-damaged`).
    """
    found: list[int] = []
    for place, cell in enumerate(cells):
        value = number(cell)
        if value is None or not math.isfinite(value) or value % 1 or abs(value) >= 2**62:
            raise source.damaged(f"{name} is {cell[:40]!r} in row {place + 1:,}, no whole number")
        found.append(int(value))
    return found


def numbers(cells: Sequence[str]) -> tuple[list[int], list[float]] | None:
    """The places of the cells that have a number, and the numbers; `None` where one is a text."""
    places: list[int] = []
    values: list[float] = []
    for place, cell in enumerate(cells):
        if cell.strip() in MISSING:
            continue
        value = number(cell)
        if value is None:
            return None
        places.append(place)
        values.append(value)
    return places, values
