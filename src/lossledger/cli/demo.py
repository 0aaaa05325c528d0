"""`lossledger demo`: record the example programs, and say what their losses are."""

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from lossledger.cli.command import Command, usage
from lossledger.objects import is_uri

if TYPE_CHECKING:
    from lossledger.demo.findings import Findings
    from lossledger.demo.programs import Training


class DemoCommand(Command):
    """Runs the demonstration."""

    name = "demo"
    help = "train a small model in several ways, and compare the losses"
    description = (
        "Run the example programs as `lossledger run` does, five trainings of one small model,\n"
        "and say which statistic each of them printed and what makes them differ.\n"
        "Trains on KERAS_BACKEND, or on the first installed of tensorflow, jax and torch."
    )
    examples = """\
examples:
  lossledger demo                            the runs go into a new temporary folder
  lossledger demo -o runs                    keep them
  KERAS_BACKEND=torch lossledger demo
  lossledger demo --json | jq .remainder
"""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declares the folder and the form."""
        parser.add_argument(
            "-o",
            "--output",
            metavar="DIR",
            help="the folder that holds runs (default: a new temporary folder)",
        )
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def run(self, options: argparse.Namespace) -> int:
        """Trains, and prints the comparison to standard output."""
        from lossledger.cli import output
        from lossledger.demo.output import JsonDemo, TerminalDemo

        findings = _found(options.output)
        if options.json:
            output.write(JsonDemo(output.options()).render(findings))
        else:
            output.write(TerminalDemo(output.options(), _program()).render(findings))
        return 0


def _found(directory: str | None) -> "Findings":
    # It brings `random`, of which a script under `lossledger run` may have its own.
    from tempfile import mkdtemp

    from lossledger.demo import findings, programs

    backend, folder = programs.backend(), programs.folder()
    if directory is not None and is_uri(directory):
        raise usage(
            f"The demonstration records into a folder of this machine. Received: {directory}. "
            "Name a folder, or leave -o out."
        )
    where = Path(directory) if directory else Path(mkdtemp(prefix="lossledger-"), "runs")
    programs.prepare(where)
    total = len(programs.TRAININGS)
    print(f"{total} short trainings on {backend}, recorded into {where}", file=sys.stderr)
    recorded = [
        programs.train(training, where, backend, _Life(place, total))
        for place, training in enumerate(programs.TRAININGS, start=1)
    ]
    return findings.find(recorded, backend=backend, directory=str(where), programs=_short(folder))


class _Life:
    """Says on standard error that a training is on; on a terminal second by second.

    Args:
        place: Which one it is, from 1.
        total: Of how many.
    """

    def __init__(self, place: int, total: int) -> None:
        self._place = place
        self._total = total

    def __call__(self, training: "Training", seconds: float, ended: bool) -> None:
        line = f"  {self._place}/{self._total}  {training.words:<42} {seconds:5.1f} s"
        if sys.stderr.isatty():
            print(f"\r{line}", end="\n" if ended else "", file=sys.stderr, flush=True)
        elif ended:
            print(line, file=sys.stderr, flush=True)


def _program() -> str:
    """How the reader can call this program again."""
    from shutil import which

    if which("lossledger"):
        return "lossledger"
    script = Path(sys.argv[0])
    if script.name == "__main__.py":
        return f"{_short(Path(sys.executable))} -m lossledger"
    return _short(script)


def _short(path: Path) -> str:
    """A path as seen from the working directory, where it lies below it."""
    path, here = Path(os.path.abspath(path)), Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
