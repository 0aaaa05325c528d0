"""What every subcommand is."""

import argparse
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from lossledger.cli.configuration import configuration

if TYPE_CHECKING:
    from lossledger.run import Run


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
    parser.add_argument(
        "run", nargs="?", default="latest", help="a folder, a name, latest or latest~1"
    )


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


def whole_number(least: int) -> Callable[[str], int]:
    """A type of argument: a whole number of at least `least`."""

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(
                f"not a whole number from {least} on. Received: {text!r}"
            )
        return int(text)

    return parse
