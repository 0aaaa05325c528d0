"""What a series of `train_on_batch` returned, beside what its entries say; and rounding's share."""

import math
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lossledger.floats import equal
from lossledger.statement import Block
from lossledger.statistics import Mean
from lossledger.vectors import Floats

_HALF_ULP = 2.0**-24


def roundings(steps: ArrayLike, size: Floats, whole: bool) -> Floats:
    """How far float32 rounding can take Keras's `total / count` from the exact mean, at most.

    Each product, each addition to `total` and the division round by half a unit in the last
    place, of the sum of `abs(loss * weight)` at most (Higham 2002, "Accuracy and Stability of
    Numerical Algorithms", 4.2). Weights that are whole add without rounding, others as losses do.

    Args:
        steps: (n,) how many entries each mean is over.
        size: (n,) means of `abs(loss)` over the same.
        whole: Whether all weights are; see `are_whole`.
    """
    added = np.asarray(steps, np.float64)
    return ((added if whole else 2 * added) + 2) * _HALF_ULP * np.abs(size)


def are_whole(weight: np.ndarray) -> bool:
    """Whether all weights are integers, as rows and elements are."""
    return bool((weight == np.rint(weight)).all())


class ReturnedFold:
    """Folds the values that a series returned: how many, and the one that differs most.

    Args:
        cumulative: Whether each is a mean that nothing in the series resets; else the step's loss.
    """

    def __init__(self, cumulative: bool) -> None:
        self._cumulative = cumulative
        self._mean = Mean.empty()
        self._size = Mean.empty()
        self._sums = np.zeros((2, 1), np.float32)
        self._whole = True
        self.count = self._rounded = self._repeated = self._within = 0
        self.worst = (False, -1.0, math.nan, math.nan)
        """Whether it differs by more than rounding, its distance, the value, and the stated one."""

    def feed(self, block: Block) -> None:
        """Takes the next entries: `loss`, `weight` and `reported`, which is NaN where null."""
        value = block["reported"]
        stated, float32, bound = self._stated(block["loss"].astype(np.float64), block["weight"])
        shown = ~np.isnan(value) | np.isnan(stated)
        if not shown.any():
            return
        value, stated, float32, bound = value[shown], stated[shown], float32[shown], bound[shown]
        with np.errstate(invalid="ignore", over="ignore"):
            exact = equal(value.astype("f4"), stated.astype("f4"))
            again = ~exact & equal(value.astype("f4"), float32)
            distance = np.where(equal(value, stated), 0.0, np.abs(value - stated))
        within = ~exact & ~again & (distance <= bound)
        distance = np.where(np.isnan(distance), np.inf, distance)
        self.count += len(value)
        self._rounded += int(exact.sum())
        self._repeated += int(again.sum())
        self._within += int(within.sum())
        differs = ~(exact | again | within)
        at = int(np.lexsort((distance, differs))[-1])
        found = (bool(differs[at]), float(distance[at]), float(value[at]), float(stated[at]))
        self.worst = max(self.worst, found, key=lambda one: one[:2])

    def _stated(self, loss: Floats, weight: Floats) -> tuple[Floats, NDArray[np.float32], Floats]:
        """What each value should be, the same by Keras's float32 sums, and rounding's bound."""
        self._whole &= are_whole(weight)
        with np.errstate(all="ignore"):
            light = weight.astype(np.float32)
            products = loss.astype(np.float32) * light
            if not self._cumulative:
                float32 = np.where(light == 0, np.float32(0), products / light)
                return loss, float32, roundings(np.ones(len(loss)), loss, self._whole)
            sums = np.hstack((self._sums, np.stack((products, light))))
            sums = np.add.accumulate(sums, axis=1, dtype=np.float32)[:, 1:]
            float32 = np.where(sums[1] == 0, np.float32(0), sums[0] / sums[1])
        self._sums = sums[:, -1:]
        steps = np.arange(self._mean.count, self._mean.count + len(loss)) + 1
        self._mean, stated = self._mean.then(loss, weight)
        self._size, size = self._size.then(np.abs(loss), np.abs(weight))
        return stated, float32, roundings(steps, size, self._whole)

    @property
    def _left(self) -> int:
        return self.count - self._rounded - self._repeated - self._within

    @property
    def agreement(self) -> Literal["equal", "rounding", "differs"]:
        """How the one that agrees least does; see `lossledger.reported.Reported`."""
        if self._left:
            return "differs"
        return "equal" if self._rounded == self.count else "rounding"

    def why(self, note: str) -> str:
        """In a sentence, what makes the differences.

        Args:
            note: What to look at where rounding can't explain them.
        """
        if self.agreement == "equal":
            return f"All {self.count:,} returned values equal the stated ones, rounded to float32."
        if self.agreement == "differs":
            return f"{self._left:,} of {self.count:,} returned values differ; look at: {note}."
        found = (
            (self._rounded, "equal the stated ones"),
            (self._repeated, "are what Keras's float32 `total / count` gives when repeated"),
            (self._within, "lie as near as float32 sums in another order can"),
        )
        *said, last = [f"{number:,} {what}" for number, what in found if number]
        joined = " and ".join([*([", ".join(said)] if said else []), last])
        return f"Float32 rounding: of {self.count:,} returned values, {joined}."
