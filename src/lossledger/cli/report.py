"""`lossledger report`: one HTML page of one run or several."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from lossledger.cli.command import WHICH, Command, add_steps_per_epoch, opened, usage, whole_number
from lossledger.errors import LossLedgerError

if TYPE_CHECKING:
    from lossledger.run import Run


class ReportCommand(Command):
    """Writes a page, or serves one while its run grows."""

    name = "report"
    help = "write a page of a run, with every curve by its statistic's name"
    description = (
        "Write one HTML page that needs nothing else and asks the network for nothing: raw\n"
        "losses, running mean, epoch means, EMA, evaluate and validation on the same axes, each\n"
        "by its name; learning rate and step time; spikes with their batches; what was reported\n"
        "beside what the entries say. Of two runs, also why their losses differ. --live serves\n"
        "the page on this machine while the run grows."
    )
    examples = """\
examples:
  lossledger report                           the newest run, into RUN.html
  lossledger report baseline -o page.html
  lossledger report fit loop -o fit-loop.html   two runs, and what their gap is made of
  lossledger report --live                    the newest run, as it trains; Ctrl-C ends it
"""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declares the runs, the file, and how to serve it."""
        parser.add_argument("runs", nargs="*", metavar="RUN", help=WHICH)
        parser.add_argument(
            "-o", "--output", metavar="FILE", help="the page (default: the run's name, with .html)"
        )
        parser.add_argument("--force", action="store_true", help="overwrite the file if it exists")
        parser.add_argument(
            "--beta",
            type=_beta,
            default=0.98,
            metavar="B",
            help="of the exponential moving average, from 0 up to 1 (default: 0.98)",
        )
        parser.add_argument(
            "--live", action="store_true", help="serve the page on 127.0.0.1 while the run grows"
        )
        parser.add_argument(
            "--port",
            type=whole_number(0, 65535),
            metavar="P",
            help="with --live (default: any free one)",
        )
        add_steps_per_epoch(parser)

    def run(self, options: argparse.Namespace) -> int:
        """Writes the page, or serves it."""
        _check(options)
        found = [opened(name, options) for name in options.runs or ["latest"]]
        if not options.live:
            return _write(found, options)
        from lossledger.live.growing import Growing
        from lossledger.live.server import serve

        # `latest` may lead to another run by and by.
        paths = [run.path for run in found]
        growing = Growing(lambda: [opened(path, options) for path in paths], options.beta)
        serve(growing, options.port or 0, _say)
        return 0


def _check(options: argparse.Namespace) -> None:
    if options.live and (options.output or options.force):
        raise usage(
            "--live serves the page and writes no file. Received: --live with -o or --force. "
            "Leave them out, or leave out --live."
        )
    if options.output and Path(options.output).suffix.lower() not in ("", ".html", ".htm"):
        raise usage(
            f"A page is HTML. Received: -o {options.output}. Name a file that ends in .html; a "
            "browser prints it as PDF, and `lossledger export` writes tables."
        )
    if options.port is not None and not options.live:
        raise usage(
            "--port is the port of a page that is served. Received: --port without --live. "
            "Leave it out, or add --live."
        )


def _write(found: "list[Run]", options: argparse.Namespace) -> int:
    from lossledger.cli import output
    from lossledger.page.content import Content
    from lossledger.render.base import Options
    from lossledger.render.page import PageReport

    path = Path(options.output) if options.output else _default(found)
    _refuse(path, options.force)
    with output.working():
        page = PageReport(Options()).render(Content(found, options.beta))
    try:
        with path.open("w" if options.force else "x", encoding="utf-8", newline="\n") as file:
            file.write(page)
    except FileExistsError:
        _refuse(path, force=False)
    except OSError as error:
        raise LossLedgerError(
            f"The page can't be written. Received: {path}: {error.strerror}. "
            "Name a file in a folder that you may write to: -o FILE.",
            slug="page-not-written",
        ) from error
    size = len(page.encode()) / 1e6
    _say(f"lossledger: page of {_named(found)}, {size:.1f} MB -> {path}  next: {_next(path)}")
    return 0


def _refuse(path: Path, force: bool) -> None:
    if path.exists() and not (force and path.is_file()):
        raise LossLedgerError(
            f"There is a {'folder' if path.is_dir() else 'file'} of this name. Received: {path}. "
            "Name another with -o FILE, or overwrite a file with --force.",
            slug="file-exists",
        )


def _default(found: "list[Run]") -> Path:
    name = "-".join(dict.fromkeys(run.id for run in found[:2]))
    return Path(f"{name}.html")


def _named(found: "list[Run]") -> str:
    return found[0].id if len(found) == 1 else f"{len(found)} runs"


def _next(path: Path) -> str:
    import shlex

    opener = {"darwin": "open", "win32": "start"}.get(sys.platform, "xdg-open")
    return f"{opener} {shlex.quote(str(path))}"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _beta(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"not a number from 0 up to 1. Received: {text!r}")
    return value
