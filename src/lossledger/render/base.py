"""What every output is made from, and with which choices."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from lossledger.errors import LossLedgerError
from lossledger.render.figures import count
from lossledger.run import Call, EpochStatement, Run

Content = TypeVar("Content")


@dataclass(frozen=True)
class Request:
    """A statistic to state, as `--statistic` takes it.

    Args:
        text: As it was asked for, `ema:beta=0.9`.
        name: The statistic's name.
        parameters: Its parameters.
    """

    text: str
    name: str
    parameters: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @classmethod
    def parse(cls, text: str) -> "Request":
        """Reads `name` or `name:parameter=value,parameter=value`.

        Raises:
            LossLedgerError: It is written otherwise (slug `statistic-parameter`).
        """
        name, _, rest = text.partition(":")
        parameters: dict[str, Any] = {}
        for part in rest.split(",") if rest else []:
            key, equals, value = part.partition("=")
            if not (key and equals and value):
                raise LossLedgerError(
                    f"A statistic's parameter is written name=value. Received: {text!r}. "
                    "Write it like ema:beta=0.9 or window_mean:n=10.",
                    slug="statistic-parameter",
                    exit_code=2,
                )
            parameters[key.strip()] = _value(value.strip())
        return cls(text, name, parameters)


def _value(text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


@dataclass(frozen=True)
class Options:
    """What of a run to show, and on what.

    Args:
        call: Only the call of this number.
        model: Only calls of this model.
        epoch: Only this epoch of each call; from the end where negative.
        statistics: Statistics to add.
        width: Characters in a line.
        color: Whether the output understands ANSI escapes.
        blocks: Whether it can show block characters (`▁▂▃`); plain ASCII otherwise.
    """

    call: int | None = None
    model: int | None = None
    epoch: int | None = None
    statistics: Sequence[Request] = ()
    width: int = 80
    color: bool = False
    blocks: bool = True

    @property
    def chosen(self) -> dict[str, int | None]:
        """The choice in the words of `Run`."""
        return {"call": self.call, "model": self.model}


@dataclass(frozen=True)
class Listed:
    """A run in a list.

    Args:
        id: The name of its folder.
        name: What the user calls it.
        path: Its folder.
        created: When it began, ISO 8601, or "".
        complete: Whether the recorder closed it.
        calls: How many calls it has.
        steps: How many steps.
        epoch_mean: Mean of the last epoch of the last call; None where there is none.
        problem: Why it can't be read, or None.
    """

    id: str
    name: str
    path: Path
    created: str
    complete: bool
    calls: int = 0
    steps: int = 0
    epoch_mean: float | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Listing:
    """The runs of a folder.

    Args:
        directory: The folder.
        runs: The newest of them, oldest first.
        older: How many older ones are left out.
    """

    directory: Path
    runs: Sequence[Listed]
    older: int = 0


class Renderer(ABC, Generic[Content]):
    """An output: a class a form (a terminal, JSON, a page), from its content to text.

    Args:
        options: What to show, and on what.
    """

    def __init__(self, options: Options) -> None:
        self.options = options

    @abstractmethod
    def render(self, content: Content) -> str:
        """Gives the output's text, without a newline at its end."""


def chosen_calls(run: Run, options: Options) -> list[Call]:
    """The calls that the options choose, of all models where they choose none."""
    if options.call is None and options.model is None:
        return run.calls
    return run.select(**options.chosen)


def chosen_epochs(
    run: Run, calls: Sequence[Call], options: Options
) -> list[tuple[Call, list[EpochStatement]]]:
    """The calls, each with the statements of its chosen epochs.

    Raises:
        LossLedgerError: No call has the epoch (slug `no-epoch`).
    """
    every = [(call, run.epochs(call)) for call in calls]
    epoch = options.epoch
    if epoch is None:
        return every
    found = [(call, _meant(statements, epoch)) for call, statements in every]
    if not any(statements for _, statements in found):
        has = [
            f"{count(len(statements), 'epoch')} in call {call.number}" for call, statements in every
        ]
        raise LossLedgerError(
            f"There is no such epoch. Received: --epoch {epoch}. The run has "
            f"{', '.join(has[:10]) or 'no epochs'}; they count from 0, and back from -1.",
            slug="no-epoch",
        )
    return found


def _meant(statements: Sequence[EpochStatement], epoch: int) -> list[EpochStatement]:
    if epoch >= 0:
        return [statement for statement in statements if statement.epoch == epoch]
    return [statements[epoch]] if -epoch <= len(statements) else []


def statistic(run: Run, request: Request, options: Options) -> NDArray[np.float64]:
    """A statistic of the chosen calls and epoch: float64, (steps,) or (epochs,)."""
    return run.statistic(request.name, epoch=options.epoch, **options.chosen, **request.parameters)
