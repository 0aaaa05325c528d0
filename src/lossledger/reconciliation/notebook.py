"""A reconciliation as a notebook shows it: one static table of HTML."""

from typing import TYPE_CHECKING

from lossledger.notebook import table
from lossledger.reconciliation.moves import spans

if TYPE_CHECKING:
    from lossledger.reconciliation.result import Reconciliation

_WIDTH = 24
"""Characters of a bar."""


def html(result: "Reconciliation") -> str:
    """A table from a to b, a row a cause; everything that comes from a run is escaped."""
    a, b = result.a, result.b
    moves = [
        (f"{each.cause} ({each.known})", each.amount, f"{each.evidence} {each.advice}")
        for each in result.causes
    ]
    if result.unexplained:
        moves.append(("unexplained", result.unexplained, ""))
    first, *bars, last = _bars([amount for _, amount, _ in moves])
    rows = [(f"a = {a.run}:{a.statistic}", f"{a.value:.9g}", first, a.note)]
    rows += [
        (name, f"{amount:+.3e}", bar, told)
        for (name, amount, told), bar in zip(moves, bars, strict=True)
    ]
    rows += [("not comparable", "", "", reason) for reason in result.reasons]
    rows.append((f"b = {b.run}:{b.statistic}", f"{b.value:.9g}", last, b.note))
    return table(f"gap {result.gap:+.6g}. {result.verdict}", rows)


def _bars(amounts: list[float]) -> list[str]:
    """The way from a to b as text, which stands in a notebook wherever it is shown."""
    found = spans(amounts, _WIDTH)
    if not found:
        return [""] * (len(amounts) + 2)
    return ["".join("█" if at in span else "░" for at in range(_WIDTH)) for span in found]
