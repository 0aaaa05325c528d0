"""Tables for a terminal, and plain aligned text where there is none; the only file with rich."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lossledger.errors import printable
from lossledger.render.base import Options

GAP = 2
"""Spaces between columns."""
CUT = ".."
"""What a name that was cut ends in."""


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Args:
        header: Its name.
        cells: Its text, a row each.
        rank: Where it stands when columns are chosen for the width: 0 is always shown, and
            columns of one rank together.
        left: Whether it is aligned to the left.
        cut: To how many characters its cells may be cut, so that further columns fit.
        styles: Colours of its cells, where they have any.
    """

    header: str
    cells: Sequence[str]
    rank: int = 0
    left: bool = False
    cut: int | None = None
    styles: Sequence[str] = ()

    @cached_property
    def width(self) -> int:
        """Characters that it takes."""
        return max(_length(text) for text in (self.header, *self.cells))

    @property
    def least(self) -> int:
        """Characters that it takes at least."""
        return min(self.width, self.cut or self.width)


def fitting(columns: Sequence[Column], width: int) -> list[Column]:
    """The columns that fit into a line, in their order: rank after rank, and rank 0 always."""
    last = 0
    for rank in sorted({column.rank for column in columns}):
        if sum(column.least + GAP for column in columns if column.rank <= rank) > width + GAP:
            break
        last = rank
    return [column for column in columns if column.rank <= last]


def _widths(columns: Sequence[Column], width: int) -> list[int]:
    """Widths of columns; those that may be cut share what room the others leave, in order."""
    room = width - sum(column.least + GAP for column in columns) + GAP
    widths: list[int] = []
    for column in columns:
        more = max(min(column.width - column.least, room), 0)
        room -= more
        widths.append(column.least + more)
    return widths


def _aligned(text: str, width: int, left: bool) -> str:
    length = _length(text)
    if length > width:
        return f"{set_cell_size(text, width - len(CUT))}{CUT}"
    blank = " " * (width - length)
    return text + blank if left else blank + text


def _length(text: str) -> int:
    """Places that a text takes in a terminal; wide characters take two."""
    return len(text) if text.isascii() else cell_len(text)


class Page:
    """Text that grows downwards, made for one width.

    Args:
        options: Its width, and whether it may have colour.
    """

    def __init__(self, options: Options) -> None:
        self._width = options.width
        self._colored = options.color
        self._console = Console(
            file=io.StringIO(),
            width=options.width,
            force_terminal=options.color,
            color_system="standard" if options.color else None,
            legacy_windows=False,
            highlight=False,
            markup=False,
            emoji=False,
        )

    def title(self, text: str) -> None:
        """Adds a blank line and a heading."""
        self._console.print()
        self._console.print(Text(printable(text), style="bold"))

    def fact(self, name: str, text: str, style: str = "") -> None:
        """Adds a named fact; text that is too long goes on below its own beginning."""
        grid = Table.grid(padding=(0, GAP, 0, 0))
        grid.add_column(min_width=9)
        grid.add_column(overflow="fold")
        grid.add_row(Text(printable(name), style="dim"), Text(printable(text), style=style))
        self._console.print(grid)

    def line(self, name: str, text: str) -> None:
        """Adds a named fact in one line however long, so that it can be copied."""
        line = Text.assemble((f"{name:9}", "dim"), " " * GAP, printable(text))
        self._console.print(line, soft_wrap=True)

    def table(self, columns: Sequence[Column], skipped_after: int | None = None) -> list[str]:
        """Adds a table of the columns that fit.

        Args:
            columns: Equally long.
            skipped_after: The row after which rows are left out, marked with dots.

        Returns:
            The headers of the columns that did not fit.
        """
        columns = [replace(c, cells=[_in_a_cell(text) for text in c.cells]) for c in columns]
        shown = fitting(columns, self._width)
        widths = _widths(shown, self._width)
        self._console.print()
        self._row(shown, widths, [column.header for column in shown], "bold")
        for place, row in enumerate(zip(*(column.cells for column in shown), strict=True)):
            self._row(shown, widths, row, place=place)
            if place == skipped_after:
                self._row(shown, widths, ["..."] + [""] * (len(shown) - 1), "dim")
        return [column.header for column in columns if column not in shown]

    def _row(
        self,
        columns: Sequence[Column],
        widths: Sequence[int],
        cells: Sequence[str],
        style: str = "",
        place: int | None = None,
    ) -> None:
        # Not a table of rich's, which takes four seconds for a list of ten thousand runs.
        texts = [
            _aligned(text, width, column.left)
            for text, width, column in zip(cells, widths, columns, strict=True)
        ]
        styles = [
            style or _own(column, place) or _style(text, column.left)
            for text, column in zip(cells, columns, strict=True)
        ]
        if self._colored and any(styles):
            gap = [Text(" " * GAP)] * (len(texts) - 1)
            parts = [Text(text, style=name) for text, name in zip(texts, styles, strict=True)]
            line = Text.assemble(
                *(part for pair in zip(parts, [*gap, Text()], strict=True) for part in pair)
            )
            line.rstrip()
            self._console.print(line, soft_wrap=True)
        else:
            self._console.file.write((" " * GAP).join(texts).rstrip(" ") + "\n")

    def space(self) -> None:
        """Adds a blank line."""
        self._console.print()

    def text(self) -> str:
        """All of it, without blanks at the ends of lines."""
        file = self._console.file
        assert isinstance(file, io.StringIO)
        return "\n".join(_lines(file.getvalue()))


def _in_a_cell(text: str) -> str:
    return text if text.isprintable() else printable(text).replace("\n", " ")


def _lines(text: str) -> Iterator[str]:
    for line in text.strip("\n").split("\n"):
        yield line.rstrip(" ")


def _own(column: Column, place: int | None) -> str:
    return column.styles[place] if column.styles and place is not None else ""


def _style(cell: str, left: bool) -> str:
    """What stands out: a number that is none, and how a run ended. A name may be any word."""
    bad = cell in ("incomplete", "unreadable") if left else cell in ("nan", "inf", "-inf")
    return "red" if bad or cell.endswith(" finite") else ""
