"""A kind of file: how it is recognised by what is in it, and how it is read."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar, Literal

import numpy as np

from lossledger import conventions
from lossledger.conventions import Convention, Place
from lossledger.explain.explained import Explained, Series
from lossledger.explain.source import Source
from lossledger.vectors import Floats

Versions = Mapping[str, str]
"""Versions that the reader knows, by tool."""
_NO_LOSS = "which statistic it is: a metric or a setting, no loss"


class Kind(ABC):
    """One kind of file. To add one, write a class and put it into `lossledger.explain.reader`."""

    name: ClassVar[str]

    @abstractmethod
    def recognises(self, source: Source) -> bool:
        """Whether the file's beginning is that of such a file."""

    @abstractmethod
    def read(self, source: Source, versions: Versions) -> Explained:
        """Reads the file.

        Raises:
            LossLedgerError: It is damaged, too large, or none of this kind after all.
        """


def rows(versions: Versions, place: Place, *tools: str) -> tuple[Convention, ...]:
    """The rows that may hold of a place: one where a tool's version is known, else all.

    `keras` older than 3 is `tf.keras`: that is how its users call it.
    """
    known = {
        "tf.keras" if tool == "keras" and conventions.parse_version(version) < (3,) else tool: (
            version
        )
        for tool, version in versions.items()
    }
    for tool in tools:
        if tool in known:
            return (conventions.of(tool, known[tool], place),)
    every = conventions.CONVENTIONS
    return tuple(r for tool in tools for r in every if (r.tool, r.place) == (tool, place))


def is_loss(name: str) -> bool:
    """Whether a name is one under which tools report a loss."""
    return name == "loss" or name.endswith(("_loss", "/loss"))


def promises_loss(name: str) -> bool:
    """Whether a name promises a loss, be it one under which tools report it or not."""
    return "loss" in name.lower()


def epoch_series(
    name: str,
    epochs: Sequence[int],
    values: Sequence[float],
    rows: tuple[Convention, ...],
    per: Literal["epoch", "step"] = "epoch",
) -> Series:
    """A series of numbers, with what any mean over an epoch keeps and loses."""
    series = Series(name, per, np.array(epochs, np.int64), np.array(values, np.float64), rows)
    if not rows:
        return series if promises_loss(name) else series.saying([], [_NO_LOSS])
    statistic = series.statistic
    if statistic == "evaluate":
        return series.saying(
            [], ["anything of the training: it is the loss of fixed weights, in inference mode"]
        )
    if statistic != "epoch_mean":
        return series
    finite = series.values[np.isfinite(series.values)]
    recoverable = [precision(series.values)] if len(finite) else []
    if len(finite) > 1:
        mean = float(finite.mean())
        recoverable.append(f"the mean over these epochs, {mean:.7g}, if each trained the same rows")
    return series.saying(
        recoverable,
        [
            "the loss of any step: an epoch's mean is one number for all of its steps",
            "batch_mean (what a list and np.mean give): it takes each batch's loss and rows",
            "how many steps or rows an epoch had, and whether a remainder was dropped",
        ],
    )


def precision(values: Floats) -> str:
    """How exactly the numbers are known, from their digits alone."""
    finite = values[np.isfinite(values)]
    decimals = rounded(finite)
    if decimals is not None:
        return (
            f"each number to {0.5 * 10.0**-decimals:.0e}: they are rounded to {decimals} decimals"
        )
    largest = float(np.abs(finite).max())
    if np.array_equal(finite, finite.astype(np.float32).astype(np.float64)):
        half = float(np.spacing(np.float32(largest))) / 2
        return f"each number to half a float32 unit in the last place: {half:.1e} at {largest:.6g}"
    return f"each number to the digits in the file: no float32 at {largest:.6g}"


def rounded(values: Floats) -> int | None:
    """To how many decimals all numbers are rounded; `None` where that is not to be seen."""
    if len(values) < 3:
        return None
    for decimals in range(7):
        if np.array_equal(np.round(values, decimals), values):
            return decimals
    return None


def losses_first(series: Iterable[Series]) -> tuple[Series, ...]:
    """In the order that `Explained` has."""
    return tuple(sorted(series, key=lambda each: not each.conventions))
