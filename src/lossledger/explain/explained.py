"""What reading a file gives: its series, and which statistic each one is."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from lossledger.conventions import Convention
from lossledger.vectors import Floats, Integers


@dataclass(frozen=True, eq=False)
class Series:
    """One named series of numbers in a file.

    Args:
        name: As the file names it.
        per: Whether its numbers stand at steps or at epochs.
        steps: int64 (n,), the step or the epoch of each number, as the file counts.
        values: float64 (n,).
        conventions: The rows of `lossledger.conventions` that may hold, the oldest first; one where
            the version is known, none where it is no loss or the file doesn't tell.
        recoverable: What else follows from the numbers, and how exactly.
        not_recoverable: What doesn't.
    """

    name: str
    per: Literal["step", "epoch"]
    steps: Integers
    values: Floats
    conventions: tuple[Convention, ...] = ()
    recoverable: tuple[str, ...] = ()
    not_recoverable: tuple[str, ...] = ()

    @property
    def statistic(self) -> str | None:
        """The statistic in the newest version that it may come from; `None` where unknown."""
        return self.conventions[-1].statistic if self.conventions else None

    @property
    def settled(self) -> bool:
        """Whether every version that it may come from says the same of it."""
        return len({(row.statistic, row.weight_kind) for row in self.conventions}) == 1

    @property
    def nonfinite(self) -> int:
        """How many of the numbers are NaN or infinite."""
        return int((~np.isfinite(self.values)).sum())

    def saying(self, recoverable: Sequence[str], not_recoverable: Sequence[str]) -> "Series":
        """The same with more that follows from it, and more that doesn't."""
        return replace(
            self,
            recoverable=(*self.recoverable, *recoverable),
            not_recoverable=(*self.not_recoverable, *not_recoverable),
        )


@dataclass(frozen=True, eq=False)
class Explained:
    """A file that was read.

    Args:
        path: The file.
        kind: What it is: `keras-csvlogger`, `keras-history`, `tensorboard`, `trainer-state` or
            `lightning-csv`.
        tool: Who writes such numbers, as in `lossledger.conventions.TOOLS`; `None` where the file
            doesn't tell.
        series: Its series: losses first, each group in the file's order.
        notes: What else to know of the file.
    """

    path: Path
    kind: str
    tool: str | None
    series: tuple[Series, ...]
    notes: tuple[str, ...] = ()

    @property
    def losses(self) -> tuple[Series, ...]:
        """The series whose statistic is known."""
        return tuple(each for each in self.series if each.conventions)


def holds(row: Convention) -> str:
    """In words, under which versions a row holds and what it says."""
    until = f" up to, not including, {row.until}" if row.until else " and newer"
    weight = "every batch weighs the same" if row.weight_kind == "one" else f"by {row.weight_kind}"
    given = ", ".join(f"{name}={value}" for name, value in row.parameters.items())
    statistic = f"{row.statistic} ({given})" if given else row.statistic
    note = "" if row.weight_kind == "one" and row.note.startswith(weight) else f"; {row.note}"
    return f"{row.tool} {row.since}{until}: {statistic}, {weight}{note} [{row.source}]"
