"""Find the epochs of a series of `train_on_batch` from the fingerprints of its batches."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lossledger.passes import LANE, Sums, lanes_of, period_of, repeats
from lossledger.uneven import cut_short, gone_back, in_order
from lossledger.vectors import Ids, Integers

_WARM_UP = 8
_RESTARTS = 8


@dataclass(frozen=True, eq=False)
class Epochs:
    """The epoch of each step, and how it is known.

    Args:
        count: Steps looked at.
        source: `"batch_id"` where the fingerprints tell, `"said"` where the user does, `"none"`
            where neither does: then all steps are epoch 0.
        steps_per_epoch: Steps of each epoch from the last of `begins` on; `None` where it goes on
            for ever.
        begins: int64, places where epochs begin, ascending, the first of them 0.
    """

    count: int
    source: Literal["batch_id", "said", "none"]
    steps_per_epoch: int | None = None
    begins: Integers = field(default_factory=lambda: np.zeros(1, np.int64))

    @property
    def epoch(self) -> NDArray[np.int32]:
        """int32 (steps,), from 0, non-decreasing."""
        return self.at(0, self.count)

    def at(self, start: int, count: int) -> NDArray[np.int32]:
        """The epochs of `count` steps from `start` on; they go on behind those looked at."""
        place = np.arange(start, start + count)
        epoch = np.searchsorted(self.begins, place, "right") - 1
        if self.steps_per_epoch:
            epoch += np.maximum(place - self.begins[-1], 0) // self.steps_per_epoch
        return epoch.astype(np.int32)


class GoesOn:
    """Whether a long series goes on in the epochs that its beginning shows, block by block.

    Args:
        found: What `find_epochs` made of the beginning.
        batch_id: That beginning, uint64.
    """

    def __init__(self, found: Epochs, batch_id: Ids) -> None:
        self._period = found.steps_per_epoch or 0
        self._skip = int(found.begins[-1])
        first = batch_id[self._skip : self._skip + self._period]
        self._sum = [int(lane.sum(dtype=np.uint64)) & int(LANE) for lane in lanes_of(first)]
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
        for which, lane in enumerate(lanes_of(ids)):
            sums = np.concatenate(([self._sums[which]], lane)).cumsum(dtype=np.uint64)
            agree = sums[ends] & LANE == times * np.uint64(self._sum[which]) & LANE
            self.holds &= bool(agree.all())
            self._sums[which] = int(sums[-1]) & int(LANE)
        self._done += len(ids)


def find_epochs(batch_id: ArrayLike, loss: ArrayLike | None = None) -> Epochs:
    """Find the epochs of a series of batches.

    The first of these rules that holds decides:

    1. *Steps trained again.* By rule 3 or 4, but for steps that were trained again: a batch out of
       turn, with the loss, to the last bit, that it had before, shows that weights were restored.
       All steps are of the epoch in which they were. Rules 3 and 4 go before where they find
       epochs that are not longer.
    2. *One order.* Epochs of unequal length, not shuffled: each begins with a return to the first
       batch. Rules 3 and 4 go before, unless an epoch of theirs has a batch twice and they don't
       repeat step by step: then sums are equal by chance of place.
    3. *Equal sums.* P steps are an epoch if there are two whole stretches of P steps or more,
       and all of them have the same sum in both lanes: S(jP) = j S(P). The smallest such P, or
       the first of the smallest that repeats step by step (batches trained several times in a
       row can have equal sums by chance of place). Rows may move between batches from one epoch
       to the next. A trailing part of an epoch is an epoch begun. One batch repeated is P = 1:
       every step is an epoch.
    4. *Return.* Fewer than two whole epochs, not shuffled: P different batches, then the same
       from the first on, step by step, to the end.
    5. *Cut short.* Epochs of equal sums as in rule 3, two of them at the beginning, with fewer
       steps than one has between others.
    6. *Equal sums after other data.* As in rule 3 from a later step on, if three whole epochs
       agree to the end and last longer than what comes before. Starts tried: the first 8 steps;
       the end of a stretch of equal sums from the start; the first 8 places where the distance to
       a batch's next occurrence changes. What comes before is read by rules 3 and 4.

    Else there are none, which is the answer, too, where a step has no fingerprint (`batch_id`
    0), or where every epoch drops other rows (shuffled, without the remainder).

    Unrelated ids meet rule 3 with probability 2^-64 for each P that has two whole stretches:
    2^-45 for a series of 10^6 steps. Cost: O(n log n).

    Args:
        batch_id: uint64 (steps,).
        loss: float32 (steps,), for rule 1.

    Returns:
        `Epochs`.

    Example:

    ```python
    find_epochs([7, 8, 9, 7, 8, 9, 7]).epoch  # [0, 0, 0, 1, 1, 1, 2]
    ```
    """
    ids = np.asarray(batch_id, np.uint64)
    if not len(ids) or not ids.all():
        return Epochs(len(ids), "none")
    sums = Sums.of(ids)
    period = period_of(ids, sums)
    again = None if loss is None else gone_back(ids, np.asarray(loss, np.float32))
    if again is not None and (period is None or again[1] < period):
        return Epochs(len(ids), "batch_id", again[1], again[0])
    begins = in_order(ids) if period is None or _by_chance(ids, period) else None
    if begins is not None:
        return Epochs(len(ids), "batch_id", None, begins)
    if period is not None:
        return Epochs(len(ids), "batch_id", period)
    return _cut_short(ids, sums) or _after_other_data(ids, sums) or Epochs(len(ids), "none")


def _cut_short(ids: Ids, sums: Sums) -> Epochs | None:
    found = cut_short(sums)
    return None if found is None else Epochs(len(ids), "batch_id", found[1], found[0])


def _by_chance(ids: Ids, period: int) -> bool:
    """Whether sums may be equal by chance of place: of a pass with a batch twice, in no one order.

    Such as `abcde abc|de abc abc`, three passes of which the second was begun again.
    """
    return len(np.unique(ids[:period])) < period and not repeats(ids, period)


def _after_other_data(ids: Ids, sums: Sums) -> Epochs | None:
    for start in _starts(ids, sums):
        period = period_of(ids[start:], sums.after(start), least=3)
        if period and len(ids) - start > start:
            head = period_of(ids[:start], Sums.of(ids[:start])) or start
            begins = np.append(np.arange(0, start, head), start)
            return Epochs(len(ids), "batch_id", period, begins)
    return None


def _starts(ids: Ids, sums: Sums) -> list[int]:
    """Where the passes may begin: the likely places, in ascending order after 0."""
    later = {*range(1, _WARM_UP + 1), sums.stretch()[1], *_restarts(ids)}
    return sorted(start for start in later if 0 < start < len(ids))


def _restarts(ids: Ids) -> list[int]:
    """The first places where the distance to the same batch's next occurrence changes."""
    order = np.argsort(ids, kind="stable")
    same = ids[order[1:]] == ids[order[:-1]]
    distance = np.zeros(len(ids), np.int64)
    distance[order[:-1][same]] = (order[1:] - order[:-1])[same]
    changes = np.flatnonzero(distance[1:] != distance[:-1]) + 1
    return changes[distance[changes] > 0][:_RESTARTS].tolist()
