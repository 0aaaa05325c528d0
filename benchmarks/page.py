"""The report page of long runs: how long it takes to write, its memory and size, and to paint.

The run is made with the store itself: losses that fall, with noise, epochs of 10,000 steps. The
page is written by `lossledger report` in a process of its own, and painted in Chromium, from the
navigation's start to the first painted frame of the chart; the median of several openings.

    python benchmarks/page.py                   # 10^5 to 10^7 entries: minutes
    python benchmarks/page.py 1e8               # a section of its own; gigabytes of disk
    python benchmarks/page.py 1000000           # prints this row
    python benchmarks/page.py live              # from an entry on the disk to the live page

Rewrites the sections `page` and `live` of `docs/benchmarks.md`.
"""

import contextlib
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import section

from lossledger import store
from lossledger.folder import append_line, create_folder, read_json, write_json

EPOCH = 10_000
BLOCK = 500_000
OPENINGS = 5
GROWTHS = 30
NAMES = ("entries", "written in, s", "memory, MB", "page, MB", "painted, s", "all read, s")
NAMES = (*NAMES, "zoom, s")
COUNTS, LARGE = [10**5, 10**6, 10**7], [10**8]


def begun(directory: Path) -> tuple[Path, store.Writer]:
    """A run that has begun, and what writes its entries."""
    path = create_folder(directory, "long", datetime.now())
    call = {"call": 0, "driver": "fit", "model": 0, "model_name": "net", "loss_name": "loss"}
    append_line(path / "calls.jsonl", call)
    info = {"format": 1, "id": path.name, "name": "long", "complete": False}
    write_json(path / "run.json", {**info, "versions": {"keras": "3.15.1"}})
    return path, store.Writer(path)


def append(writer: store.Writer, step: np.ndarray, rng: np.random.Generator) -> None:
    """Entries of so many steps."""
    n = len(step)
    noise = rng.normal(scale=0.1, size=n).astype("f4")
    writer.append(
        {
            "step": step,
            "call": np.zeros(n, "i4"),
            "model": np.zeros(n, "i4"),
            "epoch": step // EPOCH,
            "batch": step % EPOCH,
            "loss": 1 / (1 + step / 20_000) + 0.5 + noise,
            "weight": np.full(n, 32.0),
            "rows": np.full(n, 32),
            "penalty": np.full(n, 0.01, "f4"),
            "learning_rate": 0.1 / (1 + step / 50_000),
            "time": (step + rng.random(n)) * 1_000_000,
            "batch_id": rng.integers(1, 2**63, n),
        }
    )


def make(directory: Path, entries: int) -> Path:
    """A run of so many entries."""
    path, writer = begun(directory)
    rng = np.random.default_rng(1)
    for start in range(0, entries, BLOCK):
        append(writer, np.arange(start, min(start + BLOCK, entries)), rng)
    writer.close()
    info = read_json(path / "run.json")
    write_json(path / "run.json", {**info, "complete": True, "entries": entries})
    return path


def report(run: Path, page: Path) -> tuple[float, float]:
    """Writes the page; seconds, and the largest memory in MB."""
    begin = time.perf_counter()
    command = [sys.executable, "-m", "lossledger", "report", str(run), "-o", str(page), "--force"]
    subprocess.run(command, check=True, capture_output=True)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return time.perf_counter() - begin, peak


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """The browser."""
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium")
    if path is None:
        raise SystemExit("The page is painted in Chromium, and there is no `chromium` on PATH.")
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


def paint(page: Path) -> tuple[float, float, float]:
    """Seconds from the navigation's start to the painted chart, to all entries, and of a zoom."""
    with chromium() as browser:
        opened: list[float] = []
        whole: list[float] = []
        zoomed: list[float] = []
        for _ in range(OPENINGS):
            tab = browser.new_page(viewport={"width": 1280, "height": 900})
            tab.goto(page.as_uri())
            tab.wait_for_selector("html[data-whole]", state="attached", timeout=120_000)
            root = tab.locator("html")
            opened.append(float(root.get_attribute("data-painted")) / 1000)
            whole.append(float(root.get_attribute("data-whole")) / 1000)
            zoomed.append(tab.evaluate(_ZOOM) / 1000)
            tab.close()
    return tuple(map(statistics.median, (opened, whole, zoomed)))


def live(directory: Path) -> list[float]:
    """Seconds from entries that were flushed to the live page that shows them."""
    path, writer = begun(directory)
    rng = np.random.default_rng(1)
    command = [sys.executable, "-m", "lossledger", "report", "--live", str(path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        address = server.stderr.readline().split(" at ")[1].split()[0]
        took: list[float] = []
        with chromium() as browser:
            tab = browser.new_page()
            tab.goto(address)
            for number in range(GROWTHS):
                time.sleep(0.07 * (number % 10))  # wherever the page is between two questions
                append(writer, np.arange(10) + 10 * number, rng)
                writer.flush()
                begin = time.perf_counter()
                tab.wait_for_function(_SHOWN, arg=f"one entry: {10 * (number + 1)} in", polling=5)
                took.append(time.perf_counter() - begin)
        server.kill()
    writer.close()
    return took


_SHOWN = "text => document.getElementById('caption').textContent.includes(text)"
_ZOOM = """
async () => {
  const root = document.documentElement, before = root.dataset.paints, begin = performance.now();
  document.getElementById("in").click();
  while (root.dataset.paints === before) await new Promise((go) => setTimeout(go, 1));
  return performance.now() - begin;
}
"""


def row(entries: int) -> tuple[str, ...]:
    """A line of the table."""
    section.doing(f"a page of {entries:,} entries")
    with tempfile.TemporaryDirectory(prefix="lossledger-") as folder:
        run, page = make(Path(folder), entries), Path(folder, "page.html")
        seconds, peak = report(run, page)
        times = [f"{seconds:.2f}" for seconds in paint(page)]
        size = page.stat().st_size / 1e6
    return (f"{entries:,}", f"{seconds:.1f}", f"{peak:.0f}", f"{size:.2f}", *times)


def main() -> None:
    asked = sys.argv[1:]
    counts = [int(float(text)) for text in asked if text != "live"]
    if counts or "live" not in asked:
        rows = [row(entries) for entries in counts or COUNTS]
        title = f"Pages, medians of {OPENINGS} openings"
        head = section.head(title, {**section.versions("pyarrow"), **browser()})
        name = f"page {counts[0]}" if counts == LARGE else "page"
        section.write(name, head, section.table(NAMES, rows), whole=counts in ([], LARGE))
    if "live" in asked or not counts:
        section.doing("a live page")
        with tempfile.TemporaryDirectory(prefix="lossledger-") as folder:
            took = live(Path(folder))
        title = f"From entries on the disk to the live page that shows them, {GROWTHS} times"
        figures = f"{statistics.median(took):.2f} s in the median, {max(took):.2f} s at most."
        section.write("live", section.head(title, browser()), figures)


def browser() -> dict[str, str]:
    """Its version."""
    with chromium() as found:
        return {"Chromium": found.version}


if __name__ == "__main__":
    main()
