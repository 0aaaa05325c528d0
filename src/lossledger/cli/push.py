"""`lossledger push`: a run's folder, copied to an object store."""

import argparse
import json
import sys

from lossledger.cli.command import WHICH, Command, add_follow, usage
from lossledger.cli.configuration import configuration
from lossledger.words import command_line, counted


class PushCommand(Command):
    """Uploads one run."""

    name = "push"
    help = "upload a run to a folder of runs on an object store"
    description = (
        "Upload what an object store lacks of a run: s3://, gs://, abfs://, or any other URI that\n"
        "pyarrow takes. It is tried again while the store has trouble. `lossledger run -o URI`\n"
        "does the same beside a training; this is for afterwards, and for runs recorded here."
    )
    examples = """\
examples:
  lossledger push latest s3://bucket/runs
  lossledger push runs/2026-11-22_18-38-54-train s3://bucket/runs --delete
  lossledger push latest s3://bucket/runs --follow     while it trains
"""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declares the run, where to, and how."""
        parser.add_argument("run", metavar="RUN", help=WHICH)
        parser.add_argument(
            "to",
            metavar="URI",
            help="the folder of runs; - reads it from standard input, where it has a password",
        )
        add_follow(parser)
        parser.add_argument(
            "--delete",
            action="store_true",
            help="delete the run here, once it is complete and the store has all of it",
        )
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def run(self, options: argparse.Namespace) -> int:
        """Uploads, and says what and where on standard output."""
        from lossledger import catalog
        from lossledger.cli import output
        from lossledger.copies import of
        from lossledger.objects import Remote
        from lossledger.uploads import upload

        to = Remote(sys.stdin.readline().strip() if options.to == "-" else options.to)
        path = catalog.find(options.run, configuration().directory)
        if of(path) is not None:
            raise usage(
                f"A run is uploaded from this machine. Received: {options.run}, which is a URI. "
                "Name a run's folder on a disk."
            )
        done = upload(path, to, follow=options.follow, delete=options.delete)
        if options.json:
            said = {"to": str(done.to), "files": done.files, "bytes": done.bytes}
            output.write(json.dumps({**said, "deleted": done.deleted}))
            return 0
        size = f"{done.bytes / 1e6:.1f} MB" if done.bytes >= 1e6 else f"{done.bytes / 1e3:.1f} kB"
        what = f"{counted(done.files, 'file')}, {size}" if done.files else "nothing to upload"
        kept = "; deleted here" if done.deleted else ""
        output.write(f"{what} -> {done.to}{kept}  next: {command_line('show', done.to)}")
        return 0
