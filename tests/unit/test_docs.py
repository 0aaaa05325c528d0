"""The documents say what the code does: tables, help texts, names, and the programs in them.

Run as a program, this file writes the generated parts anew:

    python tests/unit/test_docs.py
"""

import ast
import importlib.util
import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import lossledger
from lossledger.cli import COMMANDS, _parser
from lossledger.cli.configuration import _TYPES
from lossledger.conventions import CONVENTIONS
from lossledger.entry import COLUMNS
from lossledger.reconciliation.slugs import SLUGS
from lossledger.replay.description import FACTORS
from lossledger.run import runs_in
from lossledger.statement import EpochStatement
from lossledger.statistics import STATISTICS

ROOT = Path(__file__).parents[2]
SOURCE = Path(lossledger.__file__).parent
DOCS = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
PROGRAMS = ("README.md", "docs/guide.md", "docs/explain.md", "docs/compare.md")
"""Documents with code; what is to be run in them runs in this order."""
LINES = {"README.md": 119, "CONTRIBUTING.md": 59}

GENERATED = re.compile(r"(<!-- generated: ([\w ]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
BLOCK = re.compile(r"(<!-- run -->\n)?```python\n(.*?)```", re.DOTALL)


def table(header: str, rows: Iterator[tuple[str, ...]]) -> str:
    columns = header.split(" | ")
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def columns() -> str:
    rows = ((f"`{c.name}`", np.dtype(c.dtype).name, c.unit, c.meaning) for c in COLUMNS)
    return table("column | type | unit | meaning", rows)


def statistics() -> str:
    def parameters(statistic) -> str:
        found = (f"`{name}={p.default!r}`: {p.wanted}" for name, p in statistic.parameters.items())
        return "; ".join(found)

    rows = (
        (f"`{s.name}`", s.per, s.meaning, f"`{s.formula}`", parameters(s), s.source)
        for s in STATISTICS.values()
    )
    return table("name | per | meaning | formula | parameters | defined by", rows)


def conventions() -> str:
    def statistic(row) -> str:
        given = ", ".join(f"{name}={value!r}" for name, value in row.parameters.items())
        return f"`{row.statistic}`" + (f" ({given})" if given else "")

    rows = (
        (r.tool, _range(r), r.place, statistic(r), r.weight_kind, r.note, r.source)
        for r in CONVENTIONS
    )
    return table("tool | versions | place | statistic | weight | note | source", rows)


def factors() -> str:
    def default(values) -> str:
        told = [f"`{value!r}`" if value is not None else "as compiled" for value in values]
        return told[0] if len(told) == 1 else f"{told[0]}; `train_on_batch`: {told[1]}"

    rows = ((f"`{f.name}`", f.meaning, f.kind, f.cause, default(f.default)) for f in FACTORS)
    return table("key | what it says | kind | cause | if not said", rows)


def causes() -> str:
    rows = ((f"[`{s.name}`](#{s.name})", s.kind, s.meaning) for s in SLUGS.values())
    return table("cause | kind | what it is", rows)


def _range(row) -> str:
    return f"{row.since} up to {row.until}" if row.until else f"from {row.since}"


def help_of(command: str) -> str:
    """As on a line of 80 characters."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "80"
    try:
        parser, _ = _parser()
        action = next(action for action in parser._actions if action.dest == "command")
        return f"```text\n{action.choices[command].format_help().strip()}\n```"
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before


WRITERS: dict[str, Callable[[], str]] = {
    "columns": columns,
    "statistics": statistics,
    "conventions": conventions,
    "factors": factors,
    "causes": causes,
    **{f"help {command.name}": lambda name=command.name: help_of(name) for command in COMMANDS},
}


def generated() -> list[tuple[str, str]]:
    found = [match for path in DOCS for match in GENERATED.finditer(path.read_text())]
    return [(match[2], match[3].strip()) for match in found]


def words(text: str) -> str:
    """Without what differs between versions of argparse: line breaks, `-o DIR, --output DIR`."""
    return " ".join(re.sub(r"(-\w) [A-Z]+, (--[\w-]+)", r"\1, \2", text).split())


def test_generated_parts_are_current() -> None:
    assert sorted(name for name, _ in generated()) == sorted(WRITERS)
    for name, text in generated():
        wanted = WRITERS[name]()
        same = words(text) == words(wanted) if name.startswith("help") else text == wanted
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
    """The table of levels has each file once, where the test of the levels has it."""
    place = Path(__file__).with_name("test_architecture.py")
    spec = importlib.util.spec_from_file_location("architecture", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = (ROOT / "docs/architecture.md").read_text()
    rows = re.findall(r"^\| (\d) \|.*\| (.+) \|$", text, re.MULTILINE)
    named = [(file, int(level)) for level, files in rows for file in re.findall(r"`(.+?)`", files)]
    paths = {str(p.relative_to(SOURCE)): name for name, p in module.MODULES.items()}
    assert sorted(file for file, _ in named) == sorted(paths)
    wrong = [file for file, level in named if module.level_of(paths[file]) != level]
    assert not wrong


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
    text = (ROOT / "docs/guide.md").read_text().partition("## Settings")[2].partition("\n## ")[0]
    assert {f"`{key} =" in text for key in _TYPES} == {True}


# Programs


def blocks() -> list[tuple[str, str, bool]]:
    """Document, code, and whether it is to be run."""
    return [
        (path.name, match[2], bool(match[1]))
        for path in map(ROOT.joinpath, PROGRAMS)
        for match in BLOCK.finditer(path.read_text())
    ]


def test_the_code_compiles() -> None:
    assert {name for name, _, _ in blocks()} == {Path(name).name for name in PROGRAMS}
    for name, code, _ in blocks():
        compile(code, name, "exec")


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs the programs of the documents one after another, in one process and folder."""
    folder = tmp_path_factory.mktemp("docs")
    programs = [(name, code) for name, code, run in blocks() if run]
    (folder / "programs.py").write_text("\n".join(code for _, code in programs))
    variables = {k: v for k, v in os.environ.items() if not k.startswith("LOSSLEDGER")}
    variables.setdefault("KERAS_BACKEND", "jax")
    command = [sys.executable, "programs.py"]
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


def test_the_programs_run(ran: Path) -> None:
    runs = [lossledger.open(info.path) for info in runs_in(ran / "runs")]
    names = ["programs", "baseline", "one-fit", "batches", "loop", "two"]
    assert sorted(run.name for run in runs) == sorted(names)
    assert all(run.complete and not run.info["warnings"] for run in runs)
    by_name = {run.name: run for run in runs}
    assert by_name["batches"].calls[0].epochs_from == "said"
    np.testing.assert_array_equal(by_name["loop"].losses(), [0.5, 0.25] * 2)


def test_the_picture_is_what_show_prints(ran: Path) -> None:
    """Up to the numbers, which depend on the machine."""
    picture = (ROOT / "README.md").read_text().partition("```text\n")[2].partition("```")[0]
    assert max(map(len, picture.splitlines())) <= 80
    command = [sys.executable, "-m", "lossledger", "show", "programs"]
    variables = {**os.environ, "COLUMNS": "80", "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        command, cwd=ran, env=variables, capture_output=True, text=True, check=True
    )
    for start in ("call 0:", "arguments", "epoch  steps", "more "):
        lines = [[x for x in t.splitlines() if x.startswith(start)] for t in (picture, done.stdout)]
        assert lines[0] == lines[1] != []
    for text in (picture, done.stdout):
        assert re.search(r"loss in History is epoch_mean = sum\(w l\) / sum\(w\)", text)
        assert len(re.findall(r"^ +\d+ +32 ", text, re.MULTILINE)) == 3


def test_every_key_of_the_run_folder_is_described(ran: Path) -> None:
    of_run = named_in("docs/format.md", "## `run.json`")
    of_call = named_in("docs/format.md", "## `calls.jsonl`")
    seen: set[str] = set()
    for info in runs_in(ran / "runs"):
        assert set(info.info) | {"resumed"} == of_run  # what a resume adds
        lines = (info.path / "calls.jsonl").read_text().splitlines()
        seen |= {key for line in lines for key in json.loads(line)}
    # Those of calls that fail, were told how long an epoch is, or go on after a resume. The
    # checksum is no key of a call.
    assert seen - {"crc"} | {"failed", "steps_per_epoch", "attempt"} == of_call


def main() -> None:
    """Write the generated parts anew."""
    for path in DOCS:
        text = path.read_text()
        new = GENERATED.sub(lambda m: f"{m[1]}{WRITERS[m[2]]()}\n{m[4]}", text)
        if new != text:
            path.write_text(new)
            print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
