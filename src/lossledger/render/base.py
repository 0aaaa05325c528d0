"""What every output is made from, and with which choices; needs no numpy."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from lossledger.request import Request

Content = TypeVar("Content")


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
        path: Its folder, or its URI.
        created: When it began, ISO 8601, or "".
        complete: Whether the recorder closed it.
        calls: How many calls it has; None where that was not looked at.
        steps: How many steps; None likewise.
        epoch_mean: Mean of the last epoch of the last call; None where there is none.
        problem: Why it can't be read, or None.
    """

    id: str
    name: str
    path: str
    created: str
    complete: bool
    calls: int | None = None
    steps: int | None = None
    epoch_mean: float | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Listing:
    """The runs of a folder.

    Args:
        directory: The folder, or its URI.
        runs: The newest of them, oldest first.
        older: How many older ones are left out.
    """

    directory: str
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
