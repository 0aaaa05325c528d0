"""`lossledger list`: the runs of a folder."""

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from lossledger.cli.command import Command, whole_number
from lossledger.cli.configuration import configuration
from lossledger.errors import LossLedgerError

if TYPE_CHECKING:
    from lossledger.catalog import RunInfo
    from lossledger.render.base import Listed

NEWEST = 30


class ListCommand(Command):
    """Prints the runs of a folder."""

    name = "list"
    help = "list the recorded runs"
    description = "List the runs of a folder, the newest last."
    examples = """\
examples:
  lossledger list                     the newest runs in the folder in force
  lossledger list /data/runs -n 0     all of another folder
  lossledger list --json | jq -r '.runs[].path'
"""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declares the folder, how many runs, and the form."""
        parser.add_argument(
            "directory", nargs="?", metavar="DIR", help="the folder that holds runs (default: runs)"
        )
        parser.add_argument(
            "-n",
            type=whole_number(0),
            default=NEWEST,
            dest="newest",
            metavar="N",
            help=f"how many of the newest to list, 0 for all (default: {NEWEST})",
        )
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def run(self, options: argparse.Namespace) -> int:
        """Prints the list to standard output."""
        from lossledger import catalog
        from lossledger.cli import output
        from lossledger.render.base import Listing

        directory = Path(options.directory or configuration().directory)
        every = catalog.runs_in(directory)
        chosen = every[-options.newest :] if options.newest > 0 else every
        listing = Listing(directory, [_listed(info) for info in chosen], len(every) - len(chosen))
        if options.json:
            from lossledger.render.json import JsonList as List
        else:
            from lossledger.render.listing import TerminalList as List
        output.write(List(output.options()).render(listing))
        return 0


def _listed(info: "RunInfo") -> "Listed":
    """Reads what a list says of a run; one that can't be read is listed with its problem."""
    from lossledger import run as runs
    from lossledger.render.base import Listed

    known = Listed(info.id, info.name, info.path, info.created, info.complete, problem=info.problem)
    if info.problem:
        return known
    try:
        run = runs.open(info.path)
        last = next((call for call in reversed(run.calls) if call.steps), None)
        epoch_mean = None if last is None else run.epochs(last)[-1].epoch_mean
    except LossLedgerError as error:
        return dataclasses.replace(known, problem=str(error))
    return dataclasses.replace(
        known,
        calls=len(run.calls),
        steps=sum(call.steps for call in run.calls),
        epoch_mean=epoch_mean,
    )
