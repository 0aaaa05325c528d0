"""One Chromium for all tests of this folder, and pages that say what went wrong in them."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

# Runs are written as in the tests of `tests/unit`.
sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))

from lossledger.page.content import Content
from lossledger.render.base import Options
from lossledger.render.page import PageReport

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_HOW = "no Chromium: `apt-get install chromium`, or name one in LOSSLEDGER_CHROMIUM"


@pytest.fixture(scope="session")
def browser():
    path = os.environ.get("LOSSLEDGER_CHROMIUM") or next(
        filter(None, map(shutil.which, _NAMES)), ""
    )
    if not path:
        pytest.skip(_HOW)
    api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    with api.sync_playwright() as playwright:
        # In a container there is no other sandbox for root.
        sandbox = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=path, args=sandbox)
        yield browser
        browser.close()


@dataclass
class Seen:
    """A page in the browser, with what it said and asked for."""

    page: object
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def data(self, name: str) -> str | None:
        return self.page.locator("html").get_attribute(f"data-{name}")

    def painted(self) -> None:
        self.page.wait_for_selector("html[data-painted]", state="attached", timeout=60_000)

    def after(self, act: Callable[[], object]) -> None:
        """Does something, and waits until the chart of losses is painted anew."""
        before = int(self.data("paints") or 0)
        act()
        for _ in range(200):
            if int(self.data("paints") or 0) > before:
                return
            self.page.wait_for_timeout(10)
        raise AssertionError("the chart was not painted again")

    def picture(self, chart: str = "loss") -> str:
        """A chart's canvas as it is painted."""
        canvas = self.page.locator(f"[data-chart={chart}] canvas")
        return canvas.evaluate("(canvas) => canvas.toDataURL()")

    def has(self, color: str, chart: str = "loss") -> int:
        """How many pixels of a chart's canvas have, nearly, a colour of the page's style."""
        canvas = self.page.locator(f"[data-chart={chart}] canvas")
        return canvas.evaluate(_COUNT, color)


_COUNT = """
(canvas, name) => {
  const named = document.body.appendChild(document.createElement("i"));
  named.style.color = `var(${name})`;
  const wanted = getComputedStyle(named).color.match(/[0-9]+/g).map(Number);
  named.remove();
  const copy = document.createElement("canvas");
  [copy.width, copy.height] = [canvas.width, canvas.height];
  const context = copy.getContext("2d", { willReadFrequently: true });
  context.drawImage(canvas, 0, 0);
  const { data } = context.getImageData(0, 0, copy.width, copy.height);
  let found = 0;
  for (let i = 0; i < data.length; i += 4) {
    if (data[i + 3] > 40 && wanted.every((v, k) => Math.abs(data[i + k] - v) < 40)) found++;
  }
  return found;
}
"""


@pytest.fixture
def opened(browser, tmp_path: Path) -> Iterator[Callable[..., Seen]]:
    """Opens a page of runs from a file; at the end nothing may have gone wrong in it."""
    seen: list[Seen] = []

    def open_(*runs, url: str | None = None, paint: bool = True, **context) -> Seen:
        if url is None:
            path = tmp_path / f"page-{len(seen)}.html"
            path.write_text(PageReport(Options()).render(Content(runs)), encoding="utf-8")
            url = path.as_uri()
        made = browser.new_context(viewport={"width": 1200, "height": 900}, **context)
        page = made.new_page()
        mine = Seen(page)
        page.on("console", lambda m: mine.errors.append(f"{m.type}: {m.text}"))
        page.on("pageerror", lambda error: mine.errors.append(str(error)))
        page.on("dialog", lambda dialog: mine.errors.append(f"dialog: {dialog.message}"))
        page.on("request", lambda request: mine.requests.append(request.url))
        page.goto(url)
        seen.append(mine)
        if paint:
            mine.painted()
        return mine

    yield open_
    for each in seen:
        each.page.context.close()
        assert not each.errors
