"""The report page: one self-contained file that asks the network for nothing."""

import base64
import hashlib
import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from lossledger import __version__
from lossledger.page.content import Content
from lossledger.page.drawn import drawn, glance
from lossledger.render import sections
from lossledger.render.base import Renderer
from lossledger.render.head import head, remarks, summary, title
from lossledger.render.markup import Html, text

_ASSETS = files("lossledger.render") / "assets"
_SCRIPTS = ("data", "view", "paint", "chart", "app", "live", "controls")
_POLICY = (
    "default-src 'none'; script-src {script}; style-src {style}; img-src data:; "
    "connect-src {connect}; base-uri 'none'; form-action 'none'"
)


class PageReport(Renderer[Content]):
    """Runs as an HTML page; `live` makes one that asks its server for what is new."""

    def render(self, content: Content, live: Mapping[str, Any] | None = None) -> str:
        """Gives the page.

        Args:
            content: The runs.
            live: `generation` of what is in the page; `None` for a page that stands alone.
        """
        script, style = _script(), _style()
        whole, few = drawn(content), glance(content)
        parts: dict[str, str] = {
            "title": text(title(content)),
            "policy": policy(script, style, live=live is not None),
            "style": style,
            "script": script,
            "data": _inert({**(few or whole), "live": live}),
            "whole": _inert(whole if few else None),
            "live": "<p id=live role=status>live</p>" if live is not None else "",
            "version": text(__version__),
            **page_sections(content),
        }
        page = _asset("page.html")
        # Split, not replaced one after another: no name in a run can stand for a part.
        first, *rest = page.split("{{")
        pieces = [first]
        for piece in rest:
            name, _, after = piece.partition("}}")
            pieces += [parts[name], after]
        return "".join(pieces)


def page_sections(content: Content) -> dict[str, Html]:
    """The parts of a page that tell what is in the runs, by the ids of their places."""
    return {
        "head": head(content),
        "remarks": text(remarks(content)),
        "summary": text(summary(content)),
        "reconciliation": sections.reconciliation(content),
        "steps": sections.steps(content),
        "statements": sections.statements(content),
        "reported": sections.reported(content),
        "configuration": sections.configuration(content),
    }


def policy(script: str, style: str, *, live: bool) -> str:
    """The page's Content-Security-Policy: nothing but this script and this style."""
    return _POLICY.format(
        script=_hash(script), style=_hash(style), connect="'self'" if live else "'none'"
    )


def _hash(content: str) -> str:
    digest = hashlib.sha256(content.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _inert(content: Any) -> str:
    """JSON that can't end the element that it stands in."""
    plain = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return plain.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _script() -> str:
    own = "\n".join(_asset(f"{name}.js") for name in _SCRIPTS)
    return f'{_asset("uplot/uPlot.iife.min.js")}\n(() => {{\n"use strict";\n{own}\n}})();'


def _style() -> str:
    return f"{_asset('uplot/uPlot.min.css')}\n{_asset('page.css')}"


def _asset(name: str) -> str:
    return (_ASSETS / name).read_text(encoding="utf-8")
