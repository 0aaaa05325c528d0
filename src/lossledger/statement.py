"""What a run's entries say of each epoch: one statement an epoch, folded window by window.

A window holds whole epochs, so that one vectorised pass states many of them. An epoch longer than
a window is folded piece by piece into values that merge (`lossledger.statistics`), so memory
stays bounded however long a run is.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from lossledger.exact import running_mean
from lossledger.series import bounds
from lossledger.statistics import Mean, Summary
from lossledger.vectors import Floats, Integers, joined

Block: TypeAlias = Mapping[str, np.ndarray]

WINDOW = 262_144
"""Steps folded at once, about."""


@dataclass(frozen=True)
class EpochStatement:
    """One epoch of one call.

    Args:
        epoch: As the driver counts, from 0.
        steps: Entries.
        rows: Sum of their rows.
        epoch_mean: Weighted mean of the losses; non-finite where one of them is.
        batch_mean: Plain mean of the losses; non-finite where one of them is.
        first: First finite loss; NaN without one, as are `last`, `min`, `max` and both deviations.
        last: Last finite loss.
        min: Smallest finite loss.
        max: Largest finite loss.
        std: Population standard deviation of the finite losses.
        running_std: The same of the running mean, step by step: how much calmer it looks.
        nonfinite: Entries whose loss is NaN or infinite.
        reported: The loss that the driver reported for the epoch; `None` where it reported none.
        missing: Steps that lack the rows of a worker, in a run that several recorded.
    """

    epoch: int
    steps: int
    rows: int
    epoch_mean: float
    batch_mean: float
    first: float
    last: float
    min: float
    max: float
    std: float
    running_std: float
    nonfinite: int
    reported: float | None = None
    missing: int = 0


class Windows:
    """Regroups the blocks of one call, fed in order, into windows of whole epochs.

    Args:
        limit: Steps from which a window closes; `None` never cuts an epoch.
    """

    def __init__(self, limit: int | None = WINDOW) -> None:
        self._limit = limit
        self._held: list[Block] = []
        self._rows = 0

    def feed(self, block: Block) -> Iterator[tuple[Block, bool]]:
        """Takes a block with the column `epoch` and any others.

        Yields:
            A window, and whether it ends an epoch; one that doesn't is a part of one epoch.
        """
        self._held.append(block)
        self._rows += len(block["epoch"])
        if self._rows < (self._limit or WINDOW):
            return
        if self._held[0]["epoch"][0] != block["epoch"][-1]:
            held = self._joined()
            cut = int(np.flatnonzero(np.diff(held["epoch"]))[-1]) + 1
            self._held = [{name: values[cut:] for name, values in held.items()}]
            self._rows = len(held["epoch"]) - cut
            yield {name: values[:cut] for name, values in held.items()}, True
        elif self._limit is not None:
            yield self._joined(), False

    def rest(self) -> Iterator[tuple[Block, bool]]:
        """The last window, when all blocks were fed."""
        if self._held:
            yield self._joined(), True

    def _joined(self) -> Block:
        held, self._held, self._rows = self._held, [], 0
        return joined(held)


class RunningMeans:
    """The running mean of one call, reset each epoch, as its entries come piece by piece."""

    def __init__(self) -> None:
        self._last: tuple[int, float, float] | None = None

    def feed(self, loss: Floats, weight: Floats, epoch: np.ndarray) -> Floats:
        """The running mean at each of the next entries, one at least."""
        begins, ends = bounds(epoch)
        first = np.repeat(begins, ends - begins + 1)
        goes_on = self._last is not None and self._last[0] == int(epoch[0])
        if goes_on and self._last is not None:
            # The mean so far, as one entry of all the weight so far, goes before the others.
            _, mean, before = self._last
            loss, weight = np.append(mean, loss), np.append(before, weight)
            first = np.append(0, np.where(first == 0, 0, first + 1))
        means = running_mean(loss, weight, first)
        last = weight[first == first[-1]]
        self._last = int(epoch[-1]), float(means[-1]), float(last[np.isfinite(last)].sum())
        return means[int(goes_on) :]


class Statements:
    """States the epochs of one call, without what was reported, as its blocks are fed in order."""

    def __init__(self) -> None:
        self._windows = Windows()
        self._part: _Part | None = None

    def feed(self, block: Block) -> list[EpochStatement]:
        """Takes the next `epoch`, `loss`, `weight` and `rows`; the epochs that are known to end."""
        return self._stated(self._windows.feed(block))

    def rest(self) -> list[EpochStatement]:
        """The epochs that are left when all blocks were fed."""
        stated = self._stated(self._windows.rest())
        part, self._part = self._part, None
        return [*stated, part.statement()] if part else stated

    def _stated(self, windows: Iterator[tuple[Block, bool]]) -> list[EpochStatement]:
        stated: list[EpochStatement] = []
        for window, whole in windows:
            part = self._part
            if part is not None and part.epoch != int(window["epoch"][0]):
                stated.append(part.statement())
                part = None
            if not whole:
                self._part = (part or _Part.empty(window)).then(window)
                continue
            if part is not None:
                cut = int(bounds(window["epoch"])[1][0]) + 1
                first = {name: values[:cut] for name, values in window.items()}
                stated.append(part.then(first).statement())
                window = {name: values[cut:] for name, values in window.items()}
            self._part = None
            stated += states(window)
        return stated


@dataclass(frozen=True)
class _Part:
    """An epoch of which more follows."""

    epoch: int
    mean: Mean
    plain: Mean
    raw: Summary
    running: Summary

    @classmethod
    def empty(cls, window: Block) -> "_Part":
        epoch = int(window["epoch"][0])
        return cls(epoch, Mean.empty(), Mean.empty(), Summary.empty(), Summary.empty())

    def then(self, window: Block) -> "_Part":
        loss = window["loss"].astype(np.float64)
        weight = window["weight"].astype(np.float64)
        mean, running = self.mean.then(loss, weight)
        return _Part(
            self.epoch,
            mean,
            self.plain.merge(Mean.of(loss)),
            self.raw.merge(Summary.of(loss, window["rows"])),
            self.running.merge(Summary.of(running)),
        )

    def statement(self) -> EpochStatement:
        return EpochStatement(
            epoch=self.epoch,
            steps=self.raw.steps,
            rows=self.raw.rows,
            epoch_mean=self.mean.result,
            batch_mean=self.plain.result,
            first=self.raw.first,
            last=self.raw.last,
            min=self.raw.min,
            max=self.raw.max,
            std=self.raw.std,
            running_std=self.running.std,
            nonfinite=self.raw.nonfinite,
        )


def states(window: Block) -> Iterator[EpochStatement]:
    """States epochs that lie in the window from end to end."""
    if not len(window["epoch"]):
        return
    begins, ends = bounds(window["epoch"])
    loss = window["loss"].astype(np.float64)
    weight = window["weight"].astype(np.float64)
    steps = ends - begins + 1
    first = np.repeat(begins, steps)
    running = running_mean(loss, weight, first)
    finite = np.isfinite(loss)
    place = np.arange(len(loss))
    known = np.add.reduceat(finite, begins, dtype=np.int64)
    has = known > 0
    heads = np.minimum.reduceat(np.where(finite, place, len(loss) - 1), begins)
    tails = np.maximum.reduceat(np.where(finite, place, 0), begins)
    columns = (
        window["epoch"][begins],
        steps,
        np.add.reduceat(window["rows"], begins, dtype=np.int64),
        running[ends],
        running_mean(loss, np.ones(len(loss)), first)[ends],
        np.where(has, loss[heads], np.nan),
        np.where(has, loss[tails], np.nan),
        np.where(has, np.minimum.reduceat(np.where(finite, loss, np.inf), begins), np.nan),
        np.where(has, np.maximum.reduceat(np.where(finite, loss, -np.inf), begins), np.nan),
        _deviations(loss, begins, steps),
        _deviations(running, begins, steps),
        steps - known,
    )
    for values in zip(*(column.tolist() for column in columns), strict=True):
        yield EpochStatement(*values)


def _deviations(values: Floats, begins: Integers, steps: Integers) -> Floats:
    """Population standard deviation of the finite values from each place on, in two passes."""
    finite = np.isfinite(values)
    known = np.add.reduceat(finite, begins, dtype=np.int64)
    with np.errstate(all="ignore"):
        means = np.add.reduceat(np.where(finite, values, 0.0), begins) / known
        distances = np.where(finite, values - np.repeat(means, steps), 0.0)
        return np.sqrt(np.add.reduceat(distances * distances, begins) / known)
