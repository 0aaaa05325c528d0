"""Passes over one dataset, all of one length, in a series of batches' fingerprints.

A `batch_id` is two 32-bit lanes; each is a sum over the batch's rows, modulo 2^32. So lanes
add: the rows of one pass over a dataset always have the same sum, whatever the batches that
they were shuffled into.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from lossledger.vectors import Ids, Mask

LANE = np.uint64(2**32 - 1)
_TRIED = 16


def lanes_of(ids: Ids) -> tuple[Ids, Ids]:
    """Both lanes of fingerprints."""
    return ids >> np.uint64(32), ids & LANE


@dataclass(frozen=True, eq=False)
class Sums:
    """Partial sums of both lanes, (n + 1,): `lanes[k]` is the sum of the first k batches."""

    lanes: tuple[Ids, Ids]

    @classmethod
    def of(cls, ids: Ids) -> "Sums":
        """Those of a series."""
        zero = np.zeros(1, np.uint64)
        high, low = (
            np.concatenate((zero, np.cumsum(lane, dtype=np.uint64))) for lane in lanes_of(ids)
        )
        return cls((high, low))

    def after(self, start: int) -> "Sums":
        """Those of the series from a step on."""
        high, low = (lane[start:] - lane[start] for lane in self.lanes)
        return Sums((high, low))

    def whole(self, period: int) -> Mask:
        """Whether the `period` batches from each place on have the sum of the first `period`."""
        high, low = (
            (lane[period:] - lane[: len(lane) - period] - lane[period]) & LANE == 0
            for lane in self.lanes
        )
        return high & low

    def agree(self, at: Any, period: Any, times: Any) -> Any:
        """Whether the first `at` batches add to `times` the sum of the first `period`."""
        factor = np.asarray(times, np.uint64)
        high, low = ((factor * lane[period] - lane[at]) & LANE == 0 for lane in self.lanes)
        return high & low

    def periods(self, least: int) -> Iterator[int]:
        """Periods with `least` whole stretches or more, all of which agree; the smallest first."""
        count = len(self.lanes[0]) - 1
        periods = np.arange(1, count // least + 1)
        wholes = count // periods
        likely = self.agree(2 * periods, periods, 2) & self.agree(wholes * periods, periods, wholes)
        for period in periods[likely].tolist():
            times = np.arange(1, count // period + 1)
            if self.agree(times * period, period, times).all():
                yield period

    def stretch(self) -> tuple[int, int]:
        """The first stretch of equal sums from the start: its period and end; 0, 0 without one."""
        count = len(self.lanes[0]) - 1
        periods = np.arange(1, count // 2 + 1)
        likely = np.flatnonzero(self.agree(2 * periods, periods, 2))
        if not len(likely):
            return 0, 0
        period = int(periods[likely[0]])
        times = np.arange(1, count // period + 1)
        agree = self.agree(times * period, period, times)
        return period, period * (len(times) if agree.all() else int(np.argmin(agree)))


def period_of(ids: Ids, sums: Sums, least: int = 2) -> int | None:
    """Steps of a pass: equal sums in `least` whole passes or more, or else a return.

    Of periods of equal sums the smallest, but one that repeats step by step before one of equal
    sums only. A return: different batches, then the same from the first on, to the end.
    """
    smallest = None
    for period in islice(sums.periods(least), _TRIED):
        smallest = smallest or period
        # Twice an epoch in two alternating orders is no epoch.
        if (period == smallest or period % smallest) and repeats(ids, period):
            return period
    return smallest if smallest or least > 2 else _return(ids)


def repeats(ids: Ids, period: int) -> bool:
    """Whether a series repeats itself step by step."""
    return np.array_equal(ids[period:], ids[:-period])


def _return(ids: Ids) -> int | None:
    """Where the series returns to its first batch, if it then repeats itself to the end."""
    order = np.argsort(ids, kind="stable")
    repeated = order[1:][ids[order[1:]] == ids[order[:-1]]]
    if not len(repeated):
        return None
    period = int(repeated.min())
    return period if repeats(ids, period) else None
