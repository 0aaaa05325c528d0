"""The sections of `docs/benchmarks.md` that the benchmarks write, each between two marks.

Every script prints its section and puts it there. What measured only a part of a section is
printed and leaves the page as it is, but for a page that `PAGE` names: `PAGE=copy.md` takes all.
"""

import os
import platform
import re
import sys
from collections.abc import Iterable, Sequence
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PAGE = Path(os.environ.get("PAGE") or Path(__file__).resolve().parents[1] / "docs/benchmarks.md")
MARK = "<!-- measured: {} -->\n"
END = "<!-- end measured -->"
FIGURE = re.compile(r"[-+]?\d")


def head(title: str, versions: dict[str, str]) -> str:
    """When, where and with what it was measured."""
    told = [f"{name} {number}" for name, number in versions.items()]
    where = f"{os.cpu_count()} cores of {processor()}, {platform.system()}"
    return ", ".join(
        [f"**{title}**", str(date.today()), where, f"Python {platform.python_version()}", *told]
    )


def processor() -> str:
    """The processor's name, or else its kind."""
    try:
        names = re.findall(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.M)
    except OSError:
        names = []
    return names[0].strip() if names else platform.machine()


def versions(*packages: str) -> dict[str, str]:
    """The versions of those that are installed."""
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; columns of figures stand on the right."""
    rows = [*rows]
    columns = [[row[k] for row in rows if row[k]] for k in range(len(names))]
    figures = [bool(column) and all(map(FIGURE.match, column)) for column in columns]
    rule = ["---:" if each else "---" for each in figures]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (names, rule, *rows))


def doing(what: str) -> None:
    """Says what is measured now, to whoever waits."""
    print(f"   {what}", file=sys.stderr, flush=True)


def write(name: str, *parts: str, whole: bool = True) -> None:
    """Prints a section's parts, and puts them into the page.

    Args:
        name: As its mark in the page has it.
        parts: The head, tables and sentences, which stand apart.
        whole: Whether all of the section was measured.
    """
    text = "\n\n".join(part for part in parts if part)
    print(f"{text}\n", flush=True)
    if not whole and not os.environ.get("PAGE"):
        print(f"measured in part: section {name!r} of the page stays as it is", file=sys.stderr)
        return
    mark = MARK.format(name)
    pattern = re.compile(f"({re.escape(mark)}).*?({re.escape(END)})", re.DOTALL)
    page = PAGE.read_text()
    if not pattern.search(page):
        raise SystemExit(f"{PAGE} has no section {mark.strip()}")
    PAGE.write_text(pattern.sub(lambda m: f"{m[1]}{text}\n{m[2]}", page))
