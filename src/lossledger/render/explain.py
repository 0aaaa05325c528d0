"""`explain`: a file's series, which statistic each is, and what it can't say."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lossledger.conventions import Convention
from lossledger.explain.explained import Explained, Series, holds
from lossledger.explain.kind import promises_loss
from lossledger.render.base import Renderer
from lossledger.render.figures import UNKNOWN, shorten, single
from lossledger.render.objects import to_json
from lossledger.render.terminal import Column, Page
from lossledger.words import counted

SERIES = 40
SECTIONS = 8


class TerminalExplain(Renderer[Explained]):
    """A file as a table of its series, and a section a loss."""

    def render(self, content: Explained) -> str:
        """Gives the table and the sections."""
        page = Page(self.options)
        page.line("file", str(content.path))
        tool = f", numbers as {content.tool} reports them" if content.tool else ""
        page.fact("kind", f"{content.kind}{tool}")
        for note in content.notes:
            page.fact("note", note)
        if content.series:
            self._table(page, content.series)
        told = [each for each in content.series if each.conventions]
        others = [each for each in content.series if not each.conventions]
        sections = [*told, *(each for each in others if promises_loss(each.name))]
        said: dict[tuple[Convention, ...], str] = {}
        for series in sections[:SECTIONS]:
            _section(page, series, said.setdefault(series.conventions, series.name))
        if not all(each.settled for each in told) and content.tool:
            page.space()
            page.fact("more", f"--{content.tool} VERSION keeps the rows that hold for it")
        if len(sections) > SECTIONS:
            page.title(f"{counted(len(sections) - SECTIONS, 'series')} more: --json has them all")
        return page.text()

    def _table(self, page: Page, every: Sequence[Series]) -> None:
        places, left_out = shorten(len(every), SERIES)
        shown = [every[place] for place in places]
        page.table(
            [
                Column("series", [each.name for each in shown], left=True, cut=24),
                Column("statistic", [each.statistic or UNKNOWN for each in shown], left=True),
                Column("count", [f"{len(each.values):,}" for each in shown], 1),
                Column("at", [_at(each) for each in shown], 2, left=True),
                *(
                    Column(name, [single(_figures(each)[name]) for each in shown], rank)
                    for rank, name in ((3, "first"), (1, "last"), (4, "min"), (4, "max"))
                ),
                *_nonfinite(shown),
            ],
            SERIES // 2 - 1 if left_out else None,
        )


def _nonfinite(shown: Sequence[Series]) -> list[Column]:
    if not any(each.nonfinite for each in shown):
        return []
    return [Column("nonfinite", [f"{each.nonfinite:,}" for each in shown], 1)]


def _section(page: Page, series: Series, first: str) -> None:
    """What is to be said of one series; `first` is the one with the same conventions before it."""
    page.title(f"{series.name}{_verdict(series)}")
    if first != series.name and series.conventions:
        page.fact("holds", f"as of {first}, above")
    else:
        _list(page, "holds", [holds(row) for row in series.conventions])
    _list(page, "known", series.recoverable)
    _list(page, "lost", series.not_recoverable)


def _verdict(series: Series) -> str:
    rows = series.conventions
    if not rows:
        return ": the file doesn't tell which statistic it is"
    if series.settled:
        return f" is {series.statistic}"
    if len({row.statistic for row in rows}) == 1:
        return f" is {series.statistic}; what weighs how depends on the version"
    newest = f"{rows[-1].tool} from {rows[-1].since} on"
    return f" is {series.statistic} in {newest}; it depends on the version"


def _list(page: Page, name: str, texts: Sequence[str]) -> None:
    for place, text in enumerate(texts):
        page.fact("" if place else name, text)


def _at(series: Series) -> str:
    if not len(series.steps):
        return UNKNOWN
    first, last = int(series.steps[0]), int(series.steps[-1])
    return f"{series.per} {first:,}" if first == last else f"{series.per}s {first:,} to {last:,}"


def _figures(series: Series) -> dict[str, float | None]:
    """First and last as they are; the smallest and the largest of the finite."""
    values = series.values
    finite = values[np.isfinite(values)]
    return {
        "first": float(values[0]) if len(values) else None,
        "last": float(values[-1]) if len(values) else None,
        "min": float(finite.min()) if len(finite) else None,
        "max": float(finite.max()) if len(finite) else None,
    }


class JsonExplain(Renderer[Explained]):
    """A file as one object: `file`, `kind`, `tool`, `notes`, and `series`."""

    def render(self, content: Explained) -> str:
        """Gives the file's object."""
        return to_json(
            {
                "file": str(content.path),
                "kind": content.kind,
                "tool": content.tool,
                "notes": list(content.notes),
                "series": [_object(series) for series in content.series],
            }
        )


def _object(series: Series) -> dict[str, Any]:
    ends = [int(series.steps[0]), int(series.steps[-1])] if len(series.steps) else []
    return {
        "name": series.name,
        "statistic": series.statistic,
        "convention": "; or ".join(map(holds, series.conventions)) or None,
        "conventions": [_row(row) for row in series.conventions],
        "settled": series.settled,
        "per": series.per,
        "at": ends,
        "count": len(series.values),
        **_figures(series),
        "nonfinite": series.nonfinite,
        "recoverable": list(series.recoverable),
        "not_recoverable": list(series.not_recoverable),
    }


def _row(row: Convention) -> dict[str, Any]:
    names = ("tool", "since", "until", "statistic", "weight_kind", "note", "source")
    return {**{name: getattr(row, name) for name in names}, "parameters": dict(row.parameters)}
