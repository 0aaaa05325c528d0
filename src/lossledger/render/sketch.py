"""Losses as a line of small bars."""

import math

import numpy as np

BLOCKS = "▁▂▃▄▅▆▇█"
ASCII = "_.-=+*#@"
NONFINITE = "!"


class Sketch:
    """A line of small bars: the losses of one epoch, added piece by piece in order.

    Each bar is the mean of an equal share of the steps; bars span smallest to largest. A share
    with a non-finite loss shows as `!`.

    Args:
        steps: Losses of the epoch.
        width: Bars, at most.
    """

    def __init__(self, steps: int, width: int) -> None:
        self._steps = steps
        self._bars = max(1, min(steps, width))
        self._sums = np.zeros(self._bars)
        self._counts = np.zeros(self._bars)
        self._added = 0

    def add(self, losses: np.ndarray) -> None:
        """Adds the next losses."""
        place = np.arange(self._added, self._added + len(losses))
        bar = np.minimum(place * self._bars // max(self._steps, 1), self._bars - 1)
        self._added += len(losses)
        np.add.at(self._sums, bar, losses.astype(np.float64))
        np.add.at(self._counts, bar, 1)

    def text(self, blocks: bool = True) -> str:
        """Draws the line, in block characters or in ASCII."""
        means = self._sums[self._counts > 0] / self._counts[self._counts > 0]
        finite = means[np.isfinite(means)]
        levels = BLOCKS if blocks else ASCII
        if not len(finite):
            return NONFINITE * len(means)
        low, span = float(finite.min()), float(finite.max() - finite.min())
        top = len(levels) - 1
        return "".join(
            NONFINITE
            if not math.isfinite(mean)
            else levels[round((mean - low) / span * top) if span > 0 else top // 2]
            for mean in means.tolist()
        )
