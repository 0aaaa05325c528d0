"""A reconciliation as a notebook shows it: one static table of HTML."""

from typing import TYPE_CHECKING

from lossledger.notebook import table

if TYPE_CHECKING:
    from lossledger.reconciliation.result import Reconciliation


def html(result: "Reconciliation") -> str:
    """A table from a to b, a row a cause; everything that comes from a run is escaped."""
    a, b = result.a, result.b
    rows = [(f"a = {a.run}:{a.statistic}", f"{a.value:.9g}", a.note)]
    rows += [
        (f"{each.cause} ({each.kind})", f"{each.amount:+.3e}", f"{each.evidence} {each.advice}")
        for each in result.causes
    ]
    if result.unexplained:
        rows.append(("unexplained", f"{result.unexplained:+.3e}", ""))
    rows += [("not comparable", "", reason) for reason in result.reasons]
    rows.append((f"b = {b.run}:{b.statistic}", f"{b.value:.9g}", b.note))
    return table(f"gap {result.gap:+.6g}. {result.verdict}", rows)
