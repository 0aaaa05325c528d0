"""`lossledger list`: the runs of a folder."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lossledger.cli.command import Command, whole_number
from lossledger.cli.configuration import configuration, place_of
from lossledger.errors import LossLedgerError
from lossledger.objects import remote_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lossledger.catalog import RunInfo
    from lossledger.render.base import Listed

NEWEST = 30
READ = 8
"""Runs without a summary whose entries are read, the newest; a folder may have thousands."""


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
            "directory",
            nargs="?",
            metavar="DIR",
            help="the folder that holds runs, or its URI (default: runs)",
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

        given = options.directory
        directory = place_of(given) if given else configuration().directory
        with output.working():
            chosen, older = catalog.newest(directory, options.newest)
            listing = Listing(str(remote_of(directory) or directory), _listed(chosen), older)
        if options.json:
            from lossledger.render.listing import JsonList as List
        else:
            from lossledger.render.listing import TerminalList as List
        output.write(List(output.options()).render(listing))
        return 0


def _listed(infos: "Sequence[RunInfo]") -> "list[Listed]":
    """What a list says of runs: what `run.json` does, and of a few without a summary the entries.

    A run that still grows, or was cut short, has no summary.
    """
    without = [info.id for info in infos if not info.problem and "summary" not in info.info]
    read = set(without[-READ:])
    return [_one(info, info.id in read) for info in infos]


def _one(info: "RunInfo", read: bool) -> "Listed":
    import dataclasses

    from lossledger.copies import where
    from lossledger.render.base import Listed

    known = Listed(
        info.id, info.name, where(info.path), info.created, info.complete, problem=info.problem
    )
    if info.problem:
        return known
    try:
        summary = _read(info.path) if read else info.info.get("summary", {})
    except LossLedgerError as error:
        return dataclasses.replace(known, problem=str(error))
    mean = summary.get("epoch_mean")
    return dataclasses.replace(
        known,
        calls=summary.get("calls"),
        steps=summary.get("steps"),
        epoch_mean=None if mean is None else float(mean),
    )


def _read(path: Path) -> dict[str, Any]:
    from lossledger.copies import whole
    from lossledger.run import summary

    return summary(whole(path))
