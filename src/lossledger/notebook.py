"""What a notebook shows: small static tables of HTML, without scripts; everything is escaped."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

from lossledger.growth import condition

if TYPE_CHECKING:
    from lossledger.call import Call
    from lossledger.run import Run
    from lossledger.statement import EpochStatement

EPOCHS = 10
CALLS = 6
"""Epochs of a call and calls of a run that are shown, the last."""

_CAPTION = "min-width:20em;text-align:left"
"""A caption is as wide as its table: over two columns it would stand a word a line."""
_TEXT = "text-align:left"
_NUMBER = "text-align:right;white-space:nowrap"
"""Or a line would end within a number, behind the sign of its exponent."""

_COLUMNS = ("steps", "rows", "min", "max", "batch_mean", "epoch_mean", "reported", "nonfinite")


def table(caption: str, rows: Iterable[Sequence[str]], header: Sequence[str] = ()) -> str:
    """A table: the first and the last cell of a row are text, what lies between are numbers.

    Args:
        caption: A sentence.
        rows: The cells, as text; escaped here.
        header: Names of the columns; all but the first are then of numbers.
    """
    head = f"<thead>{_row(header, 'th', len(header))}</thead>" if header else ""
    body = "".join(_row(row, "td", len(header) or len(row) - 1) for row in rows)
    told = f'<caption style="{_CAPTION}">{escape(caption)}</caption>'
    return f"<table>{told}{head}<tbody>{body}</tbody></table>"


def _row(cells: Sequence[str], tag: str, numbers: int) -> str:
    styled = (
        f'<{tag} style="{_NUMBER if 0 < place < numbers else _TEXT}">{escape(cell)}</{tag}>'
        for place, cell in enumerate(cells)
    )
    return f"<tr>{''.join(styled)}</tr>"


def html(run: "Run") -> str:
    """A run: what it is, and the last epochs of its last calls."""
    state = condition(run.path, run.complete)
    calls = run.calls[-CALLS:]
    left_out = len(run.calls) - len(calls)
    facts = [["folder", run.where]]
    facts += [["warning", str(each.get("message"))] for each in run.info.get("warnings", [])[:3]]
    facts += [["missing", each.told] for each in run.missing[:3]]
    if left_out:
        facts.append(["calls", f"{left_out:,} earlier ones are left out"])
    stated = run.statements(calls)
    parts = [table(f"Run {run.name}, {state}", facts)]
    parts += [_call(call, stated[call.number]) for call in calls]
    return "".join(parts)


def _call(call: "Call", epochs: "Sequence[EpochStatement]") -> str:
    model = call.info.get("model_name") or f"model {call.model}"
    what = f"Call {call.number}: {call.driver}, {model}, {call.steps:,} steps"
    shown = epochs[-EPOCHS:]
    if len(shown) < len(epochs):
        what += f"; the last {len(shown)} of {len(epochs):,} epochs"
    rows = [[str(each.epoch), *(number(getattr(each, n)) for n in _COLUMNS)] for each in shown]
    return table(what, rows, ("epoch", *_COLUMNS))


def number(value: float | None) -> str:
    """A number as text, with the six digits that a float32 has; "" for `None`."""
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:#.6g}".rstrip(".")
