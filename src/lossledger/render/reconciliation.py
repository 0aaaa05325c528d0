"""A reconciliation in a terminal: the way from a to b, a cause a line, then why and what to do."""

import math
from typing import Any

from lossledger.reconciliation.moves import spans
from lossledger.reconciliation.result import Reconciliation
from lossledger.render.base import Options, Renderer
from lossledger.render.figures import Format
from lossledger.render.objects import to_json
from lossledger.render.terminal import Column, Page
from lossledger.words import counted

DIFFERENCES = 12
"""Differences that are listed, at most."""

COLORS = {"exact": "green", "measured": "yellow", "replayed": "magenta"}
"""Of bars, by how an amount is known."""

_LEAST = 12
_MOST = 40
_TAKEN = 55


class JsonReconciliation(Renderer[Reconciliation]):
    """The object that `reconcile --json` prints."""

    def render(self, content: Reconciliation) -> str:
        """Gives the object."""
        return to_json(content.to_dict())


class TerminalReconciliation(Renderer[Reconciliation]):
    """Both numbers, a waterfall from a to b, and each cause with its evidence."""

    def render(self, content: Reconciliation) -> str:
        """Gives the text."""
        page = _Page(content, self.options)
        page.head()
        if content.comparable or content.causes:
            page.waterfall()
            page.causes()
        page.parting()
        page.differences()
        return page.text()


class _Page:
    """One reconciliation, part by part."""

    def __init__(self, content: Reconciliation, options: Options) -> None:
        self.content = content
        self.options = options
        self._page = Page(options)
        amounts = [abs(cause.amount) for cause in content.causes]
        values = (content.a.value, content.b.value, *amounts, abs(content.unexplained))
        self._form = Format.of(values)

    def text(self) -> str:
        return self._page.text()

    def head(self) -> None:
        a, b = self.content.a, self.content.b
        for name, side in (("a", a), ("b", b)):
            self._page.fact(name, f"{self._form.text(side.value)}  {side.words()}")
        part = _percent(self.content.gap, a.value)
        share = f", {part} of a" if part else ""
        self._page.fact("gap", f"{self._form.signed(self.content.gap)}{share}")
        self._page.fact("answer", self.content.verdict)
        for reason in self.content.reasons:
            self._page.fact("reason", reason)

    def waterfall(self) -> None:
        """A table whose amounts add up, from a's row to b's."""
        content = self.content
        if not content.causes and content.gap == 0:
            return
        names = [*(cause.cause for cause in content.causes), "unexplained"]
        kinds = [*(cause.known for cause in content.causes), ""]
        amounts = [*(cause.amount for cause in content.causes), content.unexplained]
        noises = [*(cause.noise for cause in content.causes), None]
        columns = [
            Column("", ["a", *names, "b"], left=True),
            Column("", ["", *kinds, ""], left=True),
            Column(
                "amount",
                [
                    self._form.text(content.a.value),
                    *map(self._form.signed, amounts),
                    self._form.text(content.b.value),
                ],
            ),
            Column("share", ["", *(_percent(each, content.gap) for each in amounts), ""], 1),
        ]
        if any(noise is not None for noise in noises):
            texts = ["" if noise is None else f"{noise:.1e}" for noise in noises]
            columns.append(Column("noise", ["", *texts, ""], 2))
        styles = ["", *(COLORS.get(kind, "red") for kind in kinds), ""]
        columns.append(Column("", self._bars(amounts), 3, left=True, styles=styles))
        self._page.table(columns)

    def _bars(self, amounts: list[float]) -> list[str]:
        """Each amount where it lies between a and b; a bar of a and of b where they are."""
        width = max(min(self.options.width - _TAKEN, _MOST), _LEAST)
        block, mark = ("█", "│") if self.options.blocks else ("#", "|")
        first, *moves, last = spans(amounts, width) or [range(0)] * (len(amounts) + 2)
        ends = [" " * end.start + mark * len(end) for end in (first, last)]
        return [ends[0], *(" " * each.start + block * len(each) for each in moves), ends[1]]

    def causes(self) -> None:
        for cause in self.content.causes:
            self._page.title(f"{cause.cause}  {self._form.signed(cause.amount)}, {cause.known}")
            self._page.fact("evidence", cause.evidence)
            self._page.fact("advice", cause.advice)

    def parting(self) -> None:
        parted = self.content.divergence
        if parted is None:
            return
        epoch = "" if parted.epoch is None else f", in epoch {parted.epoch}"
        self._page.title("where the trainings part")
        # A cause that says it as its evidence has said it.
        said = any(parted.evidence in cause.evidence for cause in self.content.causes)
        told = "" if said else f": {parted.evidence}"
        self._page.fact(parted.cause, f"{parted.where}{epoch}{told}")

    def differences(self) -> None:
        found = self.content.differences
        if not found:
            return
        self._page.title(f"{counted(len(found), 'difference')} on record")
        for each in found[:DIFFERENCES]:
            self._page.fact(each.name, f"{_short(each.a)} in a, {_short(each.b)} in b")
        if len(found) > DIFFERENCES:
            self._page.fact("...", f"{len(found) - DIFFERENCES} left out; --json has them all")


def _percent(part: float, whole: float) -> str:
    if not whole or not math.isfinite(part / whole):
        return ""
    value = 100 * part / whole or 0.0  # no minus before a zero
    return f"{value:,.0f} %" if abs(value) >= 10 else f"{value:.2g} %"


def _short(value: Any) -> str:
    if value is None:
        return "not said"
    text = ", ".join(map(_short, value)) if isinstance(value, list) else _plain(value)
    return f"{text[:57]}..." if len(text) > 60 else text or "none"


def _plain(value: Any) -> str:
    if isinstance(value, dict) and "class" in value:
        own = [f"{key}={_plain(each)}" for key, each in value.items() if key != "class"]
        return f"{value['class']}({', '.join(own)})"
    if isinstance(value, dict) and "class_name" in value:
        return f"{value['class_name']}({value.get('config', '')})"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
