"""Every block of code in the documents is run, and prints what the documents show.

Run as a program, this file writes what the blocks print into the pages anew:

    python tests/docs/test_pages.py [PAGE ...]
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import pytest
from pages import ROOT, Block, blocks, commands, pages, same, sessions

import lossledger
from lossledger.run import runs_in

LANGUAGES = {"python", "console", "text", "bash", "toml", "json"}
NOT_RUN = {
    "CONTRIBUTING.md": ["make", "tests run tests", "writes into the documents"],
    "README.md": ["needs a package index"],
    "docs/index.md": ["needs a package index"],
    "docs/distributed.md": ["these wait for each other"],
    "docs/objects.md": ["RUN stands for a run's name"],
    "docs/read.md": ["needs duckdb and polars"],
    "docs/report.md": ["serves until Ctrl-C"],
}
"""Blocks that can't run here, and why."""

PAGES = pages()
BLOCKS = {path: blocks(path) for path in PAGES}


def played(paths: list[Path], folder: Path) -> dict[str, dict]:
    """Runs pages in one process, each in a folder of its own; results by where the block stands."""
    return {found["where"]: found for found in _printed(_begun("play.py", folder, paths))}


def _begun(program: str, folder: Path, paths: list[Path]) -> subprocess.Popen[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("LOSSLEDGER")}
    kept |= {"KERAS_BACKEND": "jax", "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONUTF8": "1"}
    command = [sys.executable, Path(__file__).with_name(program), folder, *paths]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=kept, stdout=pipe, stderr=pipe, text=True)


def _printed(process: subprocess.Popen[str]) -> list[dict]:
    printed, errors = process.communicate()
    assert process.returncode == 0, errors[-2000:]
    return json.loads(printed)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pages")


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    paths = [path for path in PAGES if any(block.is_shell for block in BLOCKS[path])]
    return _printed(_begun("shell.py", tmp_path_factory.mktemp("shell"), paths))


@pytest.fixture(scope="module")
def results(folder: Path) -> dict[str, dict]:
    return played([path for path in PAGES if any(block.runs for block in BLOCKS[path])], folder)


@pytest.fixture(scope="module")
def runs(folder: Path, results: dict[str, dict]) -> list[lossledger.Run]:
    """The runs that the pages recorded."""
    folders = [path for path in folder.glob("*/runs") if path.is_dir()]
    return [lossledger.open(info.path) for path in folders for info in runs_in(path)]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_blocks_of_a_page(path: Path, results: dict[str, dict]) -> None:
    before = ""
    for block in BLOCKS[path]:
        assert block.language in LANGUAGES, block.where
        if block.runs and "output" not in block.notes:
            found = results[block.where]
            assert not found["error"], f"{block.where}\n{found['error']}"
            before = found["got"]
        if block.language == "console" and block.runs:
            for (command, shown), got in zip(sessions(block.code), before, strict=True):
                assert same(shown, got, block.tolerance), f"{block.where} {command}\n{got}"
        elif "output" in block.notes:
            assert same(block.code, before, block.tolerance), f"{block.where}\n{before}"
        elif not block.runs and block.said("not run") is None:
            is_sound(block)


def is_sound(block: Block) -> None:
    """Checks what is shown and not run."""
    if block.language == "toml":
        tomllib.loads(block.code)
    elif block.language == "json":
        json.loads(block.code)
    elif not block.is_shell:
        assert not block.code.startswith("$ "), f"{block.where}: a console block is run"


def test_the_commands_of_the_pages(shell: list[dict]) -> None:
    for ran in shell:
        assert ran["status"] == 0, f"{ran['where']} {ran['command']}\n{ran['got']}"
    shown = [block for found in BLOCKS.values() for block in found if block.is_shell]
    lines = {" ".join(command) for block in shown for command in commands(block.code)}
    printed = {ran["command"]: ran["got"] for ran in shell}
    assert set(printed) == lines
    assert len(lines) > 25
    convnet = printed["lossledger run --name convnet examples/convnet.py"]
    assert "evaluate on the training data" in convnet


def test_only_these_blocks_are_not_run() -> None:
    reasons = {
        str(path.relative_to(ROOT)): [why for block in found if (why := block.said("not run"))]
        for path, found in BLOCKS.items()
    }
    assert {name: found for name, found in reasons.items() if found} == NOT_RUN


def test_what_the_pages_record_is_whole(runs: list[lossledger.Run]) -> None:
    assert len(runs) > 30
    assert all(run.complete and not run.info["warnings"] for run in runs)


def test_the_picture_is_what_show_prints(folder: Path, results: dict[str, dict]) -> None:
    """Up to the numbers, which depend on the machine."""
    picture = (ROOT / "README.md").read_text().partition("```text\n")[2].partition("```")[0]
    assert max(map(len, picture.splitlines())) <= 80
    command = [sys.executable, "-m", "lossledger", "show"]
    variables = {**os.environ, "COLUMNS": "80", "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        command, cwd=folder / "README", env=variables, capture_output=True, text=True, check=True
    )
    for start in ("call 0:", "command", "arguments", "epoch  steps", "more "):
        lines = [[x for x in t.splitlines() if x.startswith(start)] for t in (picture, done.stdout)]
        assert lines[0] == lines[1] != []
    for text in (picture, done.stdout):
        assert re.search(r"loss in History is epoch_mean = sum\(w l\) / sum\(w\)", text)
        assert len(re.findall(r"^ +\d+ +32 ", text, re.MULTILINE)) == 3


def test_every_key_of_the_run_folder_is_described(runs: list[lossledger.Run]) -> None:
    text = (ROOT / "docs/format.md").read_text()

    def named(begin: str) -> set[str]:
        cells = re.findall(r"^\| (`.*?) \|", text.partition(begin)[2].partition("\n#")[0], re.M)
        return {name for cell in cells for name in re.findall(r"`([\w.]+)`", cell)}

    resumed = {"resumed"}  # what a resume adds
    assert all(set(run.info) | resumed == named("## `run.json`") for run in runs)
    lines = [line for run in runs for line in (run.path / "calls.jsonl").read_text().splitlines()]
    seen = {key for line in lines for key in json.loads(line)}
    # No page shows a call that fails, goes on after a resume, is given arrays to validate on, or
    # whose program saves or sets weights within it; `crc` is the line's own.
    others = {"failed", "steps_per_epoch", "attempt", "validation", "loads", "saved"}
    assert seen - {"crc"} | others == named("## `calls.jsonl`")


@pytest.mark.parametrize(
    ("shown", "got", "tolerance", "wanted"),
    [
        ("a 1.5\n", "a 1.5\n", 0.0, True),
        ("a 1.5\n", "a 1.6\n", 0.0, False),
        ("a  1.50\n", "a 1.51\n", 0.01, True),
        ("a 1.5\n", "a 1.6\n", 0.01, False),
        ("a 1.5 ▁█\n", "a 7 ▅\n", None, True),
        ("a 1.5\n", "b 1.5\n", None, False),
        ("a\n...\nd\n", "a\nb\nc\nd\n", 0.0, True),
        ("a\n...\n", "b\n", 0.0, False),
        ("a\n", "a\nb\n", 0.0, False),
        ("1 step nan\n", "1 step inf\n", 0.01, False),
    ],
)
def test_what_counts_as_the_same(
    shown: str, got: str, tolerance: float | None, wanted: bool
) -> None:
    assert same(shown, got, tolerance) is wanted


def main() -> None:
    """Write what the blocks print into the pages; numbers that may differ stay if they are near."""
    chosen = [ROOT / name for name in sys.argv[1:]] or PAGES
    with tempfile.TemporaryDirectory() as folder:
        results = played(chosen, Path(folder))
    for path in chosen:
        lines, before = path.read_text().splitlines(keepends=True), ""
        for block in reversed(rewritten(blocks(path), results)):
            before, at = block.code, block.line - 1
            end = next(k for k in range(at, len(lines)) if lines[k].startswith("```"))
            lines[at:end] = [before]
        if "".join(lines) != path.read_text():
            path.write_text("".join(lines))
            print(path.relative_to(ROOT))


def rewritten(found: list[Block], results: dict[str, dict]) -> list[Block]:
    """The blocks that show an output, with the output that they have; `...` is kept."""
    new, before = [], ""
    for block in found:
        result = results.get(block.where)
        if result is not None:
            if result["error"]:
                print(block.where, result["error"], file=sys.stderr)
            before = result["got"]
        if block.language == "console" and result is not None:
            parts = [
                f"$ {command}\n{shown if same(shown, got, block.tolerance) else got}"
                for (command, shown), got in zip(sessions(block.code), before, strict=True)
            ]
            new.append(Block(block.page, block.line, "", "".join(parts), ()))
        elif "output" in block.notes and not same(block.code, before, block.tolerance):
            new.append(Block(block.page, block.line, "", before, ()))
    return new


if __name__ == "__main__":
    main()
