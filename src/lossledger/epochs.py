"""Find the epochs of a series of `train_on_batch` from the fingerprints of its batches.

A `batch_id` is two 32-bit lanes; each is a sum over the batch's rows, modulo 2^32. So lanes
add: the rows of one pass over a dataset always have the same sum, whatever the batches that
they were shuffled into.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Ids: TypeAlias = NDArray[np.uint64]

_LANE = np.uint64(2**32 - 1)
_WARM_UP = 8
_RESTARTS = 8
_TRIED = 16


@dataclass(frozen=True, eq=False)
class Epochs:
    """The epoch of each step, and how it is known.

    Args:
        count: Steps looked at.
        source: `"batch_id"` where the fingerprints tell, `"said"` where the user does, `"none"`
            where neither does: then all steps are epoch 0.
        steps_per_epoch: Steps of one pass; `None` where nothing was found.
        prefix: Steps before the first of those passes: other data, such as a warm-up.
        head: Steps of an epoch among these.
    """

    count: int
    source: Literal["batch_id", "said", "none"]
    steps_per_epoch: int | None = None
    prefix: int = 0
    head: int = 1

    @property
    def epoch(self) -> NDArray[np.int32]:
        """int32 (steps,), from 0, non-decreasing."""
        return self.at(0, self.count)

    def at(self, start: int, count: int) -> NDArray[np.int32]:
        """The epochs of `count` steps from `start` on; they go on behind those looked at."""
        if self.steps_per_epoch is None:
            return np.zeros(count, np.int32)
        place = np.arange(start, start + count)
        before = -(-self.prefix // self.head)
        passes = (place - self.prefix) // self.steps_per_epoch + before
        return np.where(place < self.prefix, place // self.head, passes).astype(np.int32)


class GoesOn:
    """Whether a long series goes on in the epochs that its beginning shows, block by block.

    Args:
        found: What `find_epochs` made of the beginning.
        batch_id: That beginning, uint64.
    """

    def __init__(self, found: Epochs, batch_id: Ids) -> None:
        self._period = found.steps_per_epoch or 0
        first = batch_id[found.prefix : found.prefix + self._period]
        self._sum = [int(lane.sum(dtype=np.uint64)) & int(_LANE) for lane in _lanes(first)]
        self._skip = found.prefix
        self._done = 0
        self._sums = [0, 0]
        self.holds = found.steps_per_epoch is not None

    def feed(self, batch_id: Ids) -> None:
        """Takes the next fingerprints, from the series' first on."""
        ids, self._skip = batch_id[self._skip :], max(0, self._skip - len(batch_id))
        if not self.holds or not len(ids):
            return
        ends = np.arange(-self._done % self._period, len(ids), self._period)
        times = (np.uint64(self._done) + ends.astype(np.uint64)) // np.uint64(self._period)
        self.holds = bool(ids.all())
        for which, lane in enumerate(_lanes(ids)):
            sums = np.concatenate(([self._sums[which]], lane)).cumsum(dtype=np.uint64)
            agree = sums[ends] & _LANE == times * np.uint64(self._sum[which]) & _LANE
            self.holds &= bool(agree.all())
            self._sums[which] = int(sums[-1]) & int(_LANE)
        self._done += len(ids)


def _lanes(ids: Ids) -> tuple[Ids, Ids]:
    return ids >> np.uint64(32), ids & _LANE


def find_epochs(batch_id: ArrayLike) -> Epochs:
    """Find the epochs of a series of batches.

    The first of these rules that holds decides:

    1. *Equal sums.* P steps are an epoch if there are two whole stretches of P steps or more,
       and all of them have the same sum in both lanes: S(jP) = j S(P). The smallest such P, or
       the first of the smallest that repeats step by step (batches trained several times in a
       row can have equal sums by chance of place). Rows may move between batches from one epoch
       to the next. A trailing part of an epoch is an epoch begun. One batch repeated is P = 1:
       every step is an epoch.
    2. *Equal sums after other data.* The same from a later step on, if three whole epochs agree
       to the end and last longer than what comes before. Starts tried: the first 8 steps; the
       end of a stretch of equal sums from the start; the first 8 places where the distance to a
       batch's next occurrence changes. What comes before is read by rules 1 and 3.
    3. *Return.* Fewer than two whole epochs, not shuffled: P different batches, then the same
       from the first on, step by step, to the end.

    Else there are none, which is the answer, too, where a step has no fingerprint (`batch_id`
    0), or where every epoch drops other rows (shuffled, without the remainder).

    Unrelated ids meet rule 1 with probability 2^-64 for each P that has two whole stretches:
    2^-45 for a series of 10^6 steps. Cost: O(n log n).

    Args:
        batch_id: uint64 (steps,).

    Returns:
        `Epochs`.

    Example:

    ```python
    find_epochs([7, 8, 9, 7, 8, 9, 7]).epoch  # [0, 0, 0, 1, 1, 1, 2]
    ```
    """
    ids = np.asarray(batch_id, np.uint64)
    if not ids.all():
        return Epochs(len(ids), "none")
    sums = _Sums.of(ids)
    for start in _starts(ids, sums):
        least = 3 if start else 2
        period = _period(ids[start:], sums.after(start), least)
        if period and len(ids) - start > start:
            return _stitch(ids, start, period)
    period = _return(ids)
    if period:
        return _stitch(ids, 0, period)
    return Epochs(len(ids), "none")


def _stitch(ids: Ids, start: int, period: int) -> Epochs:
    head = ids[:start]
    own = (_period(head, _Sums.of(head), 2) or _return(head) or start) if start else 1
    return Epochs(len(ids), "batch_id", period, start, own)


@dataclass(frozen=True, eq=False)
class _Sums:
    """Partial sums of both lanes, (n + 1,): `lanes[k]` is the sum of the first k batches."""

    lanes: tuple[Ids, Ids]

    @classmethod
    def of(cls, ids: Ids) -> "_Sums":
        zero = np.zeros(1, np.uint64)
        high, low = (
            np.concatenate((zero, np.cumsum(lane, dtype=np.uint64))) for lane in _lanes(ids)
        )
        return cls((high, low))

    def after(self, start: int) -> "_Sums":
        high, low = (lane[start:] - lane[start] for lane in self.lanes)
        return _Sums((high, low))

    def agree(self, at: Any, period: Any, times: Any) -> Any:
        """Whether the first `at` batches add to `times` the sum of the first `period`."""
        factor = np.asarray(times, np.uint64)
        high, low = ((factor * lane[period] - lane[at]) & _LANE == 0 for lane in self.lanes)
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

    def stretch(self) -> int:
        """Where the first stretch of equal sums, from the start, ends; 0 without one."""
        count = len(self.lanes[0]) - 1
        periods = np.arange(1, count // 2 + 1)
        likely = np.flatnonzero(self.agree(2 * periods, periods, 2))
        if not len(likely):
            return 0
        period = int(periods[likely[0]])
        times = np.arange(1, count // period + 1)
        agree = self.agree(times * period, period, times)
        return period * (len(times) if agree.all() else int(np.argmin(agree)))


def _period(ids: Ids, sums: _Sums, least: int) -> int | None:
    """The smallest period, but one that repeats step by step before one of equal sums only."""
    smallest = None
    for period in islice(sums.periods(least), _TRIED):
        smallest = smallest or period
        # Twice an epoch in two alternating orders is no epoch.
        if (period == smallest or period % smallest) and _repeats(ids, period):
            return period
    return smallest


def _repeats(ids: Ids, period: int) -> bool:
    return np.array_equal(ids[period:], ids[:-period])


def _starts(ids: Ids, sums: _Sums) -> Iterator[int]:
    """Where the passes may begin: the likely places, in ascending order after 0."""
    yield 0
    later = {*range(1, _WARM_UP + 1), sums.stretch(), *_restarts(ids)}
    yield from sorted(start for start in later if 0 < start < len(ids))


def _restarts(ids: Ids) -> list[int]:
    """The first places where the distance to the same batch's next occurrence changes."""
    order = np.argsort(ids, kind="stable")
    same = ids[order[1:]] == ids[order[:-1]]
    distance = np.zeros(len(ids), np.int64)
    distance[order[:-1][same]] = (order[1:] - order[:-1])[same]
    changes = np.flatnonzero(distance[1:] != distance[:-1]) + 1
    return changes[distance[changes] > 0][:_RESTARTS].tolist()


def _return(ids: Ids) -> int | None:
    """Where the series returns to its first batch, if it then repeats itself to the end."""
    order = np.argsort(ids, kind="stable")
    repeated = order[1:][ids[order[1:]] == ids[order[:-1]]]
    if not len(repeated):
        return None
    period = int(repeated.min())
    return period if _repeats(ids, period) else None
