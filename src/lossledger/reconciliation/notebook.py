"""A reconciliation as a notebook shows it: one static table of HTML."""

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lossledger.reconciliation.result import Reconciliation

_LEFT = "text-align:left"
_RIGHT = "text-align:right"


def html(result: "Reconciliation") -> str:
    """A table from a to b, a row a cause; everything that comes from a run is escaped."""
    a, b = result.a, result.b
    rows = [_row(f"a = {a.run}:{a.statistic}", f"{a.value:.9g}", a.note)]
    rows += [
        _row(f"{each.cause} ({each.kind})", f"{each.amount:+.3e}", f"{each.evidence} {each.advice}")
        for each in result.causes
    ]
    if result.unexplained:
        rows.append(_row("unexplained", f"{result.unexplained:+.3e}", ""))
    rows += [_row("not comparable", "", reason) for reason in result.reasons]
    rows.append(_row(f"b = {b.run}:{b.statistic}", f"{b.value:.9g}", b.note))
    caption = f"<caption>gap {result.gap:+.6g}. {escape(result.verdict)}</caption>"
    return f"<table>{caption}<tbody>{''.join(rows)}</tbody></table>"


def _row(name: str, amount: str, text: str) -> str:
    cells = ((name, _LEFT), (amount, _RIGHT), (text, _LEFT))
    return "<tr>" + "".join(_cell(*cell) for cell in cells) + "</tr>"


def _cell(text: str, style: str) -> str:
    return f'<td style="{style}">{escape(text)}</td>'
