"""What every subcommand is."""

import argparse
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from lossledger.cli.configuration import configuration
from lossledger.errors import LossLedgerError

if TYPE_CHECKING:
    from lossledger.run import Run


WHICH = "a folder, a name (its newest run) or latest; name~1, latest~1: the one before"
"""What a run is named by; in help texts."""


class Command(ABC):
    """One subcommand. To add one, write a class and put it into `lossledger.cli.COMMANDS`.

    Modules of commands import what is heavy inside `run`: all of them are imported whenever the
    program starts, and `lossledger run` must hand a script a nearly untouched interpreter.
    """

    name: ClassVar[str]
    help: ClassVar[str]
    description: ClassVar[str]
    usage: ClassVar[str | None] = None
    examples: ClassVar[str] = ""

    @abstractmethod
    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declares the subcommand's arguments."""

    @abstractmethod
    def run(self, options: argparse.Namespace) -> int:
        """Does the work.

        Args:
            options: The parsed arguments.

        Returns:
            The exit status.

        Raises:
            LossLedgerError: It can't be done; `main` prints the message.
        """


def add_run(parser: argparse.ArgumentParser) -> None:
    """Declares which run; the newest where none is named."""
    parser.add_argument("run", nargs="?", default="latest", help=WHICH)


def opened(name: str | Path, options: argparse.Namespace) -> "Run":
    """The run of a name; what counts no epochs has those of `add_steps_per_epoch`."""
    from lossledger import run
    from lossledger.cli import output

    folder = configuration().directory
    with output.working():
        return run.open(name, directory=folder, steps_per_epoch=options.steps_per_epoch)


def add_steps_per_epoch(parser: argparse.ArgumentParser) -> None:
    """Declares how long an epoch of a run is that counts none."""
    parser.add_argument(
        "--steps-per-epoch",
        type=whole_number(1),
        metavar="N",
        help="how long an epoch of train_on_batch is (default: found from the batches)",
    )


def add_follow(parser: argparse.ArgumentParser) -> None:
    """Declares that a command goes on with a run that grows."""
    parser.add_argument(
        "--follow", action="store_true", help="go on while the run grows, until it is over"
    )


def usage(message: str) -> LossLedgerError:
    """The error of a command line that argparse has taken, and that makes no sense."""
    return LossLedgerError(message, slug="usage", exit_code=2)


def whole_number(least: float = -math.inf, most: float = math.inf) -> Callable[[str], int]:
    """A type of argument: a whole number from `least` to `most`, both included."""
    span = f" from {least}" if least > -math.inf else ""
    span += f" to {most}" if most < math.inf else " on" if span else ""

    def parse(text: str) -> int:
        number = int(text) if text.removeprefix("-").isdecimal() else math.nan
        if not least <= number <= most:
            raise argparse.ArgumentTypeError(f"not a whole number{span}. Received: {text!r}")
        return int(number)

    return parse
