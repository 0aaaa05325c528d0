"""HTML, with everything that comes from a run escaped."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from lossledger.render.figures import shorten
from lossledger.words import counted


class Html(str):
    """Text that is HTML already; any other is escaped where it is put into HTML."""

    __slots__ = ()


def text(value: str) -> Html:
    """The HTML of a text: escaped, unless it is HTML already."""
    return value if isinstance(value, Html) else Html(escape(value))


def element(tag: str, *content: str, **attributes: str | None) -> Html:
    """An element with its content.

    Args:
        tag: Its name.
        *content: Texts and HTML.
        **attributes: Its attributes, `class_` for `class`; none where `None`.
    """
    parts = [
        f' {name.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for name, value in attributes.items()
        if value is not None
    ]
    return Html(f"<{tag}{''.join(parts)}>{joined(content)}</{tag}>")


def joined(parts: Iterable[str]) -> Html:
    """One HTML of several texts and HTMLs."""
    return Html("".join(map(text, parts)))


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Args:
        head: What it is.
        cells: A cell a row.
        number: Whether the cells are numbers, which end at the right.
        title: More about it, where a pointer rests; "" without.
    """

    head: str
    cells: Sequence[str]
    number: bool = True
    title: str = ""


def table(columns: Sequence[Column], caption: str, *, limit: int = 200) -> Html:
    """A table that scrolls by itself where the page is narrow; the middle of a long one is cut.

    Args:
        columns: Its columns, of equal length; the first one heads the rows.
        caption: What it shows, for those who don't see it.
        limit: Rows, at most.
    """
    rows = len(columns[0].cells)
    places, left_out = shorten(rows, limit)
    heads = [
        element("th", c.head, scope="col", class_=_kind(c), title=c.title or None) for c in columns
    ]
    lines: list[str] = []
    for order, place in enumerate(places):
        if left_out and order == limit // 2:
            told = f"{counted(left_out, 'row')} left out here"
            lines.append(
                element("tr", element("td", told, colspan=str(len(columns)), class_="cut"))
            )
        first, *others = columns
        cells = [element("th", first.cells[place], scope="row", class_=_kind(first))]
        cells += [element("td", c.cells[place], class_=_kind(c)) for c in others]
        lines.append(element("tr", *cells))
    inner = element(
        "table",
        element("caption", caption, class_="unseen"),
        element("thead", element("tr", *heads)),
        element("tbody", *lines),
    )
    return element("div", inner, class_="scroll", tabindex="0", role="region", aria_label=caption)


def _kind(column: Column) -> str | None:
    return "number" if column.number else None
