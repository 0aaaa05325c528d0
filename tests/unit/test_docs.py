"""The documents say what the code does: tables, help texts, names. Their programs: tests/docs.

Run as a program, this file writes the generated parts anew:

    python tests/unit/test_docs.py
"""

import ast
import importlib
import importlib.util
import inspect
import os
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from glance import glance, speed, table

import lossledger
from lossledger import records
from lossledger.cli import COMMANDS, _parser
from lossledger.cli.configuration import _TYPES
from lossledger.conventions import CONVENTIONS
from lossledger.entry import COLUMNS
from lossledger.reconciliation.slugs import SLUGS
from lossledger.replay.description import FACTORS
from lossledger.statement import EpochStatement
from lossledger.statistics import STATISTICS

ROOT = Path(__file__).parents[2]
SOURCE = Path(lossledger.__file__).parent
DOCS = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
CAUSES = ROOT / "docs/causes"
LINES = {"README.md": 120, "CONTRIBUTING.md": 60}

GENERATED = re.compile(r"(<!-- generated: ([\w ]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def columns() -> str:
    rows = ((f"`{c.name}`", np.dtype(c.dtype).name, c.unit, c.meaning) for c in COLUMNS)
    return table("column | type | unit | meaning", rows)


def statistics() -> str:
    def parameters(statistic) -> str:
        found = (f"`{name}={p.default!r}`: {p.wanted}" for name, p in statistic.parameters.items())
        return "; ".join(found)

    meant = ((f"`{s.name}`", s.per, s.meaning, f"`{s.formula}`") for s in STATISTICS.values())
    made = ((f"`{s.name}`", parameters(s), linked(s.source)) for s in STATISTICS.values())
    tables = [
        table("name | per | meaning | formula", meant),
        "Their parameters, as they are if not said, and where they are defined:",
        table("name | parameters | defined by", made),
    ]
    return "\n\n".join(tables)


def linked(source: str) -> str:
    """A source, with the issues and pull requests that it names as links."""
    link = r"[\2#\3](https://github.com/\1/\2/issues/\3)"
    return re.sub(r"([\w-]+)/([\w.-]+)#(\d+)", link, source)


def conventions() -> str:
    def statistic(row) -> str:
        given = ", ".join(f"{name}={value!r}" for name, value in row.parameters.items())
        return f"`{row.statistic}`" + (f" ({given})" if given else "")

    def rows(tool: str) -> Iterator[tuple[str, ...]]:
        for r in CONVENTIONS:
            if r.tool == tool:
                yield _range(r), r.place, statistic(r), r.weight_kind, r.note, linked(r.source)

    header = "versions | place | statistic | weight | note | source"
    tools = dict.fromkeys(row.tool for row in CONVENTIONS)
    return "\n\n".join(f"## {tool}\n\n{table(header, rows(tool))}" for tool in tools)


def factors() -> str:
    def default(values) -> str:
        told = [f"`{value!r}`" if value is not None else "as compiled" for value in values]
        return told[0] if len(told) == 1 else f"{told[0]}; `train_on_batch`: {told[1]}"

    rows = ((f"`{f.name}`", f.meaning, f.kind, f.cause, default(f.default)) for f in FACTORS)
    return table("key | what it says | kind | cause | if not said", rows)


def causes() -> str:
    rows = ((f"[`{s.name}`](causes/{s.name}.md)", s.kind, s.meaning) for s in SLUGS.values())
    return table("cause | kind | what it is", rows)


def cause(name: str) -> str:
    slug = SLUGS[name]
    return f"*{slug.meaning[0].upper()}{slug.meaning[1:]}* ({slug.kind})."


def five_rows() -> str:
    return f"```python\n{(ROOT / 'docs/five_rows.py').read_text()}```"


def _range(row) -> str:
    return f"{row.since} up to {row.until}" if row.until else f"from {row.since}"


def helps() -> dict[str, str]:
    """What the program and each command say of themselves, on a line of 80 characters."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "80"
    try:
        parser, _ = _parser()
        action = next(action for action in parser._actions if action.dest == "command")
        parsers = {"lossledger": parser}
        parsers |= {f"lossledger {name}": each for name, each in action.choices.items()}
        return {n: f"```text\n{p.format_help().strip()}\n```" for n, p in parsers.items()}
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before


def commands() -> str:
    return "\n\n".join(f"## {name}\n\n{text}" for name, text in helps().items())


WRITERS: dict[str, Callable[[], str]] = {
    "columns": columns,
    "statistics": statistics,
    "conventions": conventions,
    "factors": factors,
    "causes": causes,
    "commands": commands,
    "five rows": five_rows,
    "glance": glance,
    "speed": speed,
    **{f"cause {name}": lambda name=name: cause(name) for name in SLUGS},
}
ALSO: dict[str, Callable[[], str]] = {
    f"help {command.name}": lambda name=command.name: helps()[f"lossledger {name}"]
    for command in COMMANDS
}
"""What a page may show once more."""


def generated() -> list[tuple[str, str]]:
    found = [match for path in DOCS for match in GENERATED.finditer(path.read_text())]
    return [(match[2], match[3].strip()) for match in found]


def words(text: str) -> str:
    """Without what differs between versions of argparse: line breaks, `-o DIR, --output DIR`."""
    return " ".join(re.sub(r"(-\w) [A-Z]+, (--[\w-]+)", r"\1, \2", text).split())


def test_generated_parts_are_current() -> None:
    names = {name for name, _ in generated()}
    assert set(WRITERS) <= names <= WRITERS.keys() | ALSO.keys()
    for name, text in generated():
        wanted = (WRITERS | ALSO)[name]()
        same = (
            words(text) == words(wanted)
            if name.startswith(("commands", "help"))
            else text == wanted
        )
        assert same, f"{name} is not current: python tests/unit/test_docs.py writes it anew"


@pytest.mark.parametrize("name", LINES)
def test_length(name: str) -> None:
    assert len((ROOT / name).read_text().splitlines()) <= LINES[name]


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if target.startswith("https:"):
            continue
        file, _, anchor = target.partition("#")
        place = path.parent / file if file else path
        assert place.is_file(), target
        if place.suffix != ".md":
            continue
        heads = re.findall(r"^#+ (.+)$", place.read_text(), re.MULTILINE)
        anchors = {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}
        assert not anchor or anchor in anchors, target


# Messages


def slugs() -> set[str]:
    """The slug of every error and every warning in the source."""
    found: set[str] = set()
    for path in SOURCE.rglob("*.py"):
        text = path.read_text()
        found |= set(re.findall(r"(?:error|warning) \[([a-z-]+)\]", text))
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call):
                name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
                given = [k.value for k in node.keywords if k.arg == "slug"]
                given += node.args[:1] if name in ("warn", "guarded") else []
                found |= {c.value for c in given if isinstance(c, ast.Constant)}
    return found


def test_every_message_has_its_heading() -> None:
    heads = re.findall(r"^### (.+)$", (ROOT / "docs/messages.md").read_text(), re.MULTILINE)
    assert len(heads) == len(set(heads))
    assert set(heads) == slugs()
    assert {"no-run", "unseen-training", "cannot-write", "not-recording"} <= slugs()


# Architecture


def test_every_file_stands_on_its_level() -> None:
    """The table of levels has each file or its folder once, where the levels have it."""
    place = Path(__file__).with_name("test_architecture.py")
    spec = importlib.util.spec_from_file_location("architecture", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = (ROOT / "docs/architecture.md").read_text()
    rows = re.findall(r"^\| (\d) \|.*\| (.+) \|$", text, re.MULTILINE)
    named = [(file, int(level)) for level, files in rows for file in re.findall(r"`(.+?)`", files)]
    for name, path in module.MODULES.items():
        file = path.relative_to(SOURCE)
        shown = f"{file.parts[0]}/" if len(file.parts) > 1 else str(file)
        assert [level for where, level in named if where == shown] == [module.level_of(name)]
    assert all((SOURCE / where).exists() for where, _ in named)


# Names that the prose lists


def named_in(document: str, begin: str, end: str = "\n#") -> set[str]:
    """The names in backticks in the first cells of the table after `begin`."""
    text = (ROOT / document).read_text().partition(begin)[2].partition(end)[0]
    cells = re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`([\w.]+)`", cell)}


def test_statements_of_an_epoch_are_listed() -> None:
    fields = set(inspect.signature(EpochStatement).parameters)
    assert named_in("docs/statistics.md", "## What is stated of an epoch") == fields


def test_settings_are_listed() -> None:
    text = (ROOT / "docs/commands.md").read_text().partition("## Settings")[2].partition("\n## ")[0]
    assert {f"`{key} =" in text for key in _TYPES} == {True}


# The site


def test_every_cause_has_its_page() -> None:
    assert {path.stem for path in CAUSES.glob("*.md")} == set(SLUGS)
    for path in CAUSES.glob("*.md"):
        text = path.read_text()
        heads = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", text, flags=re.S | re.M), re.M)
        assert heads[:3] == [path.stem, "Arithmetic", "What removes it"]
        assert f"<!-- generated: cause {path.stem} -->" in text
        assert "**You see** " in text


def test_every_page_is_found_from_the_site() -> None:
    """The navigation has every page once; pages of causes are found from their table."""

    def leaves(item: object) -> list[str]:
        if isinstance(item, str):
            return [item]
        parts = item.values() if isinstance(item, dict) else item
        return [leaf for part in parts for leaf in leaves(part)]

    named = leaves(tomllib.loads((ROOT / "zensical.toml").read_text())["project"]["nav"])
    docs = ROOT / "docs"
    written = {str(path.relative_to(docs)) for path in docs.rglob("*.md")}
    assert len(named) == len(set(named))
    assert written == set(named)


def test_the_reference_names_what_is_public() -> None:
    """Each public name once, as the object that it is."""
    text = (ROOT / "docs/reference.md").read_text()
    paths = re.findall(r"^::: (\S+)$", text, re.MULTILINE)
    found = [
        getattr(importlib.import_module(p.rpartition(".")[0]), p.split(".")[-1]) for p in paths
    ]
    for name in lossledger.__all__:
        assert sum(each is getattr(lossledger, name) for each in found) == 1, name


def main() -> None:
    """Write the generated parts anew."""
    for path in DOCS:
        text = path.read_text()
        new = GENERATED.sub(lambda m: f"{m[1]}{(WRITERS | ALSO)[m[2]]()}\n{m[4]}", text)
        if new != text:
            path.write_text(new)
            print(path.relative_to(ROOT))


def test_the_format_names_every_key_that_readers_check():
    text = (ROOT / "docs/format.md").read_text()
    keys = {*records._KINDS, *records._RUN, *records._ITEM}
    assert {key for key in keys if f"`{key}`" not in text} == set()


if __name__ == "__main__":
    main()
