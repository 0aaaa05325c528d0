"""The command line: one class a subcommand; `main` alone prints errors and picks exit codes."""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from lossledger import __version__
from lossledger.cli.command import Command
from lossledger.cli.demo import DemoCommand
from lossledger.cli.explain import ExplainCommand
from lossledger.cli.export import ExportCommand
from lossledger.cli.list import ListCommand
from lossledger.cli.push import PushCommand
from lossledger.cli.reconcile import ReconcileCommand
from lossledger.cli.report import ReportCommand
from lossledger.cli.run import RunCommand
from lossledger.cli.show import ShowCommand
from lossledger.errors import LossLedgerError, printable

COMMANDS: tuple[type[Command], ...] = (
    RunCommand,
    ListCommand,
    ShowCommand,
    ExplainCommand,
    ReconcileCommand,
    ReportCommand,
    ExportCommand,
    PushCommand,
    DemoCommand,
)
"""The subcommands, in the order of the help text."""

_DESCRIPTION = "Record every training step's raw loss, and state every number that is reported."
_EPILOG = """\
examples:
  lossledger run train.py --lr 0.1      train as `python train.py --lr 0.1` does, and record it
  lossledger list                       the recorded runs
  lossledger show                       the newest run, epoch by epoch
  lossledger explain log.csv            which statistic another tool's numbers are
  lossledger reconcile fit loop         why the losses of two runs differ
  lossledger report                     a page of the newest run
  lossledger export --to tensorboard    the newest run in another tracker
  lossledger push latest s3://b/runs    the newest run on an object store
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        arguments: What follows the program's name; `sys.argv[1:]` by default.

    Returns:
        The exit status: 0 done, 1 could not be done, 2 usage, 3 a gate failed; for `run`, the
        script's.
    """
    try:
        status = _dispatch(sys.argv[1:] if arguments is None else arguments)
    except LossLedgerError as error:
        print(f"lossledger: error [{error.slug}]: {printable(str(error))}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        # The reader (`| head`) has seen enough: end as a program that SIGPIPE ends does.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        # The interpreter ends by the signal when it gets this (130 to a shell); quietly.
        sys.excepthook = _say_nothing
        raise
    return status


def _dispatch(arguments: Sequence[str]) -> int:
    parser, commands = _parser()
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        options.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if options.command is None:
        parser.print_help(sys.stderr)
        return 2
    return commands[options.command].run(options)


def _parser() -> tuple[argparse.ArgumentParser, dict[str, Command]]:
    parser = _Parser(
        prog="lossledger",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("-V", "--version", action="version", version=f"lossledger {__version__}")
    parser.set_defaults(parser=parser)
    subparsers = parser.add_subparsers(dest="command", metavar="command")
    commands = {command.name: command() for command in COMMANDS}
    for command in commands.values():
        subparser = subparsers.add_parser(
            command.name,
            usage=command.usage,
            help=command.help,
            description=command.description,
            epilog=command.examples,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        command.add_arguments(subparser)
        # argparse alone would answer an unknown option with the usage of the whole program.
        subparser.set_defaults(parser=subparser)
    return parser, commands


class _Parser(argparse.ArgumentParser):
    """Leaves the printing of usage errors to `main`."""

    def error(self, message: str) -> NoReturn:
        raise LossLedgerError(
            f"{message}\n{self.format_usage().strip()}\n{self.prog} --help says more.",
            slug="usage",
            exit_code=2,
        )


def _say_nothing(*_: object) -> None:
    """Stands in for `sys.excepthook` where all has been said."""
