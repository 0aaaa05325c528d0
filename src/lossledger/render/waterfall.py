"""A reconciliation as a picture: from a, cause by cause, to b; inline SVG without a style."""

import math
from itertools import accumulate, pairwise

from lossledger.reconciliation.result import Reconciliation
from lossledger.render.figures import Format
from lossledger.render.markup import Html, element, joined

_WIDTH = 860
_LABEL = 190
_NUMBER = 118
_ROW = 30


def waterfall(content: Reconciliation) -> Html:
    """The picture; "" where a number on the way is not finite, which has no place on it."""
    moves = [(cause.cause, cause.known, cause.amount) for cause in content.causes]
    if content.unexplained:
        moves.append(("unexplained", "unexplained", content.unexplained))
    amounts = [amount for *_, amount in moves]
    places = list(accumulate(amounts, initial=content.a.value))
    if not all(map(math.isfinite, places)) or not amounts:
        return Html("")
    form = Format.of([content.a.value, content.b.value, *map(abs, amounts)])
    low, high = min(places), max(places)
    width = _WIDTH - _LABEL - _NUMBER

    def x(value: float) -> float:
        return _LABEL + (value - low) / (high - low or 1.0) * (width - 16) + 8

    rows: list[Html] = [_end("a", content.a.value, x(content.a.value), 0, form)]
    for row, ((name, kind, amount), (begin, end)) in enumerate(
        zip(moves, pairwise(places), strict=True), start=1
    ):
        rows.append(_cause(name, kind, (x(begin), x(end)), amount, row, form))
    rows.append(_end("b", content.b.value, x(places[-1]), len(moves) + 1, form))
    lines = [_link(x(place), row) for row, place in enumerate(places)]
    height = _ROW * (len(moves) + 2) + 4
    title = element("title", _words(content, moves, form))
    return element(
        "svg",
        title,
        *lines,
        *rows,
        viewBox=f"0 0 {_WIDTH} {height}",
        role="img",
        class_="waterfall",
    )


def _words(content: Reconciliation, moves: list[tuple[str, str, float]], form: Format) -> str:
    steps = ", ".join(f"{name} {form.signed(amount)}" for name, _, amount in moves)
    return f"From a, {form.text(content.a.value)}: {steps}; to b, {form.text(content.b.value)}."


def _text(x: float, row: int, content: str, **attributes: str) -> Html:
    return element("text", content, x=f"{x:.1f}", y=f"{_ROW * row + 20}", **attributes)


def _end(name: str, value: float, at: float, row: int, form: Format) -> Html:
    mark = element(
        "rect", x=f"{at - 2:.1f}", y=f"{_ROW * row + 5}", width="4", height="20", class_="end"
    )
    number = _text(_WIDTH - 2, row, form.text(value), text_anchor="end", class_="strong")
    return joined([_text(0, row, name, class_="strong"), mark, number])


def _cause(
    name: str, kind: str, span: tuple[float, float], amount: float, row: int, form: Format
) -> Html:
    begin, end = sorted(span)
    bar = element(
        "rect",
        x=f"{begin:.1f}",
        y=f"{_ROW * row + 7}",
        width=f"{max(end - begin, 1.5):.1f}",
        height="16",
        class_=f"bar {'up' if amount > 0 else 'down'} {kind}",
    )
    number = _text(_WIDTH - 2, row, form.signed(amount), text_anchor="end")
    return joined([_text(0, row, name), bar, number])


def _link(x: float, row: int) -> Html:
    """From the bar where the last amount ended down to the one that begins there."""
    return element(
        "line",
        x1=f"{x:.1f}",
        x2=f"{x:.1f}",
        y1=f"{_ROW * row + 15}",
        y2=f"{_ROW * (row + 1) + 15}",
        class_="link",
    )
