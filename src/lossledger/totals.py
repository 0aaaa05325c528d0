"""Totals: what a stretch of entries adds up to, as values that merge exactly.

Fold each segment or worker by itself, merge in any grouping, and get the same bits as from one
fold over everything.
"""

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike

from lossledger.exact import exact_sum, running_mean, to_float
from lossledger.series import columns
from lossledger.vectors import Floats

_ZERO = Fraction(0)


@dataclass(frozen=True)
class Mean:
    """A weighted mean that merges exactly.

    Sums are rational numbers (see `lossledger.exact`), so `merge` is associative and commutative
    and `Mean.empty()` its identity, all to the last bit; a float64 is rounded once, in `result`.

    Non-finite entries never enter the sums; they are counted by what they do to an accumulator
    that adds `loss * weight`. So `result` is what such an accumulator reports: one NaN makes it
    NaN.

    Args:
        total: Sum of `loss * weight` over the finite entries, exact.
        weight: Sum of weights over the finite entries, exact.
        count: All entries.
        nan: Entries whose `loss * weight` is NaN.
        up: Entries whose `loss * weight` is infinity.
        down: Entries whose `loss * weight` is minus infinity.
        lost_weight: Sum of the finite weights of non-finite losses, exact.
        bad_weights: Entries whose weight is itself not finite.
    """

    total: Fraction = _ZERO
    weight: Fraction = _ZERO
    count: int = 0
    nan: int = 0
    up: int = 0
    down: int = 0
    lost_weight: Fraction = _ZERO
    bad_weights: int = 0

    @classmethod
    def empty(cls) -> "Mean":
        """The mean of nothing, the identity of `merge`."""
        return cls()

    @classmethod
    def of(cls, loss: ArrayLike, weight: ArrayLike | None = None) -> "Mean":
        """Fold entries.

        Args:
            loss: (steps,), converted to float64.
            weight: (steps,), converted to float64; 1 each if `None`.
        """
        losses, weights = columns(loss, weight)
        heard = np.isfinite(weights)
        finite = np.isfinite(losses) & heard
        with np.errstate(all="ignore"):
            products = np.where(heard, losses * weights, np.nan)[~finite]
        return cls(
            total=exact_sum(losses[finite], None if weight is None else weights[finite]),
            weight=exact_sum(weights[finite]),
            count=len(losses),
            nan=int(np.isnan(products).sum()),
            up=int((products == np.inf).sum()),
            down=int((products == -np.inf).sum()),
            lost_weight=exact_sum(weights[heard & ~finite]),
            bad_weights=int((~heard).sum()),
        )

    def merge(self, other: "Mean") -> "Mean":
        """The mean over the entries of both."""
        return Mean(*(getattr(self, name) + getattr(other, name) for name in _MEAN_FIELDS))

    def then(self, loss: Floats, weight: Floats) -> tuple["Mean", Floats]:
        """The mean over these entries and others that follow, and the mean at each of those.

        Args:
            loss: float64 (steps,).
            weight: float64 (steps,).
        """
        # The mean so far, as one entry of all the weight so far, goes before the others.
        losses = np.append(self.result if self.count else 0.0, loss)
        weights = np.append(float(self.weight + self.lost_weight), weight)
        so_far = running_mean(losses, weights, np.zeros(len(losses), np.int64))[1:]
        return self.merge(Mean.of(loss, weight)), so_far

    @property
    def nonfinite(self) -> int:
        """Entries with a loss or a weight that is not finite."""
        return self.nan + self.up + self.down

    @property
    def result(self) -> float:
        """The mean as `keras.metrics.Mean` defines it, in exact arithmetic; NaN if empty.

        0.0 where the weights add to zero: Keras divides with `divide_no_nan`.
        """
        if not self.count or self.bad_weights:
            return math.nan
        weight = self.weight + self.lost_weight
        if not weight:
            return 0.0
        if self.nan or (self.up and self.down):
            return math.nan
        if self.nonfinite:
            return math.inf if bool(self.up) == (weight > 0) else -math.inf
        return to_float(self.total / weight)


_MEAN_FIELDS = tuple(Mean.__dataclass_fields__)


@dataclass(frozen=True)
class Summary:
    """What a series of losses looks like: a value that merges, in order, exactly.

    `merge` is associative with `Summary.empty()` as identity, and not commutative, because of
    `first` and `last`. The deviation comes from exact sums of losses and of their squares, so it
    has neither the cancellation of the textbook formula nor the dependence on grouping of Chan,
    Golub and LeVeque's (1979) merge.

    Args:
        steps: All entries.
        rows: Sum of their rows.
        first: First finite loss; NaN where there is none, as in `last`, `min` and `max`.
        last: Last finite loss.
        min: Smallest finite loss.
        max: Largest finite loss.
        nonfinite: Entries whose loss is NaN or infinite.
        total: Sum of the finite losses, exact.
        squares: Sum of their squares, exact.
    """

    steps: int = 0
    rows: int = 0
    first: float = math.nan
    last: float = math.nan
    min: float = math.nan
    max: float = math.nan
    nonfinite: int = 0
    total: Fraction = _ZERO
    squares: Fraction = _ZERO

    @classmethod
    def empty(cls) -> "Summary":
        """The summary of nothing, the identity of `merge`."""
        return cls()

    @classmethod
    def of(cls, loss: ArrayLike, rows: ArrayLike | None = None) -> "Summary":
        """Fold entries.

        Args:
            loss: (steps,), converted to float64.
            rows: (steps,) integers; 0 each if `None`.
        """
        losses, _ = columns(loss, rows)
        finite = losses[np.isfinite(losses)]
        steps = len(losses)
        counted = 0 if rows is None else int(np.asarray(rows, np.int64).sum())
        if not len(finite):
            return cls(steps=steps, rows=counted, nonfinite=steps)
        return cls(
            steps=steps,
            rows=counted,
            first=float(finite[0]),
            last=float(finite[-1]),
            min=float(finite.min()),
            max=float(finite.max()),
            nonfinite=steps - len(finite),
            total=exact_sum(finite),
            squares=exact_sum(finite, finite),
        )

    def merge(self, other: "Summary") -> "Summary":
        """The summary of these entries followed by the other's."""
        counts = {name: getattr(self, name) + getattr(other, name) for name in _SUMMARY_COUNTS}
        if not other.finite or not self.finite:
            known = self if self.finite else other
            return Summary(
                first=known.first, last=known.last, min=known.min, max=known.max, **counts
            )
        return Summary(
            first=self.first,
            last=other.last,
            min=min(self.min, other.min),
            max=max(self.max, other.max),
            **counts,
        )

    @property
    def finite(self) -> int:
        """Entries that `first`, `last`, `min`, `max` and `std` are over, of `steps`."""
        return self.steps - self.nonfinite

    @property
    def std(self) -> float:
        """Population standard deviation of the finite losses; NaN where there are none."""
        if not self.finite:
            return math.nan
        mean = self.total / self.finite
        return math.sqrt(to_float(self.squares / self.finite - mean * mean))


_SUMMARY_COUNTS = ("steps", "rows", "nonfinite", "total", "squares")
