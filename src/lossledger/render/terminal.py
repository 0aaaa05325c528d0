"""Tables for a terminal, and plain aligned text where there is none; the only file with rich."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lossledger.render.base import Options

GAP = 2
"""Spaces between columns."""


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Args:
        header: Its name.
        cells: Its text, a row each.
        rank: Where it stands when columns are chosen for the width: 0 is always shown, and
            columns of one rank together.
        left: Whether it is aligned to the left.
    """

    header: str
    cells: Sequence[str]
    rank: int = 0
    left: bool = False

    @property
    def width(self) -> int:
        """Characters that it takes."""
        return max(cell_len(text) for text in (self.header, *self.cells))


def fitting(columns: Sequence[Column], width: int) -> list[Column]:
    """The columns that fit into a line, in their order: rank after rank, and rank 0 always."""
    last = 0
    for rank in sorted({column.rank for column in columns}):
        if sum(column.width + GAP for column in columns if column.rank <= rank) > width + GAP:
            break
        last = rank
    return [column for column in columns if column.rank <= last]


class Page:
    """Text that grows downwards, made for one width.

    Args:
        options: Its width, and whether it may have colour.
    """

    def __init__(self, options: Options) -> None:
        self._width = options.width
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
        self._console.print(Text(text, style="bold"))

    def fact(self, name: str, text: str, style: str = "") -> None:
        """Adds a named fact; text that is too long goes on below its own beginning."""
        grid = Table.grid(padding=(0, GAP, 0, 0))
        grid.add_column(min_width=9)
        grid.add_column(overflow="fold")
        grid.add_row(Text(name, style="dim"), Text(text, style=style))
        self._console.print(grid)

    def line(self, name: str, text: str) -> None:
        """Adds a named fact in one line however long, so that it can be copied."""
        line = Text.assemble((f"{name:9}", "dim"), " " * GAP, text)
        self._console.print(line, soft_wrap=True)

    def table(self, columns: Sequence[Column], skipped_after: int | None = None) -> list[str]:
        """Adds a table of the columns that fit.

        Args:
            columns: Equally long.
            skipped_after: The row after which rows are left out, marked with dots.

        Returns:
            The headers of the columns that did not fit.
        """
        shown = fitting(columns, self._width)
        table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
        for column in shown:
            table.add_column(
                column.header, justify="left" if column.left else "right", no_wrap=len(shown) > 1
            )
        for place, row in enumerate(zip(*(column.cells for column in shown), strict=True)):
            table.add_row(*(Text(cell, style=_style(cell)) for cell in row))
            if place == skipped_after:
                table.add_row(Text("...", style="dim"))
        self._console.print()
        self._console.print(table)
        return [column.header for column in columns if column not in shown]

    def space(self) -> None:
        """Adds a blank line."""
        self._console.print()

    def text(self) -> str:
        """All of it, without blanks at the ends of lines."""
        file = self._console.file
        assert isinstance(file, io.StringIO)
        return "\n".join(_lines(file.getvalue()))


def _lines(text: str) -> Iterator[str]:
    for line in text.strip("\n").split("\n"):
        yield line.rstrip(" ")


def _style(cell: str) -> str:
    return "red" if cell in ("nan", "inf", "-inf", "incomplete") or " finite" in cell else ""
