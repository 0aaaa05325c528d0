"""Run the blocks of pages, all in this process, so that a backend is imported once.

    python play.py FOLDER PAGE ... > results.json

Each page has a folder in FOLDER, and a namespace of its own. Prints a list of objects: `where`,
`got` (what the block printed; of a console block, a list with an item a command), and `error`.
"""

import contextlib
import io
import itertools
import json
import os
import re
import shlex
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

from pages import Block, blocks, sessions

_VARIABLE = re.compile(r"[A-Z_]+=")


def play(block: Block, names: dict) -> str | list[str]:
    """Runs a block; returns what it printed."""
    if block.language == "console":
        lines = [shlex.split(command, comments=True) for command, _ in sessions(block.code)]
        return [execute(line)[1] for line in lines]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        # Blank lines in front, so that a traceback names the line of the page.
        exec(compile("\n" * (block.line - 1) + block.code, block.page, "exec"), names)
    return printed.getvalue()


def execute(command: list[str]) -> tuple[int, str]:
    """The status of a command, and what it prints on both streams, 80 characters wide."""
    variables = dict(each.split("=", 1) for each in itertools.takewhile(_VARIABLE.match, command))
    program, *arguments = command[len(variables) :]
    if program == "lossledger" and variables.items() <= os.environ.items():
        from lossledger.cli import main

        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed), as_it_was():
            try:
                status = main(arguments)
            except SystemExit as end:  # argparse's, after --help
                status = end.code
        return status, printed.getvalue()
    start = {"lossledger": [sys.executable, "-m", "lossledger"], "python": [sys.executable]}
    done = subprocess.run(
        [*start[program], *arguments],
        env=os.environ | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        check=False,
    )
    return done.returncode, done.stdout


@contextlib.contextmanager
def as_it_was() -> Iterator[None]:
    """Takes back what `lossledger run` makes of a process for its script, which it ends with."""
    from lossledger import runner

    kept = {name: getattr(sys, name) for name in ("argv", "orig_argv", "__stderr__")}
    path, main = sys.path[0], sys.modules["__main__"]
    sys.__stderr__ = sys.stderr
    runner._wait_for_threads = lambda: None  # for good: the next program would have no threads
    try:
        yield
    finally:
        for name, value in kept.items():
            setattr(sys, name, value)
        sys.path[0], sys.modules["__main__"] = path, main


def page(path: Path) -> list[dict]:
    """Runs the blocks of a page, up to the first that fails."""
    if "keras" in sys.modules:
        sys.modules["keras"].utils.clear_session(
            free_memory=False
        )  # names of models are counted anew
    found: list[dict] = []
    names: dict = {"__name__": "__main__"}
    for block in blocks(path):
        if name := block.said("file"):
            Path(name).write_text(block.code)
        elif block.runs and "output" not in block.notes:
            try:
                found.append({"where": block.where, "got": play(block, names), "error": ""})
            except Exception:
                found.append({"where": block.where, "got": "", "error": traceback.format_exc()})
                break
    return found


def main() -> None:
    """Runs the pages named."""
    top, *paths = map(Path, sys.argv[1:])
    sys.argv = ["train.py"]  # what a recording is called
    results = []
    for path in paths:
        folder = top / path.stem
        folder.mkdir()
        with contextlib.chdir(folder):
            results += page(path)
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    # What the blocks print on standard output is caught; what they warn of is seen.
    os.environ["COLUMNS"] = "80"
    main()
