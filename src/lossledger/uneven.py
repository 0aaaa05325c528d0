"""Passes of unequal length in a series of batches: steps trained again, passes cut short.

Each rule gives the places where passes begin; two, how many steps each has from the last of them
on, too.
"""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from lossledger.passes import Sums, period_of
from lossledger.vectors import Ids, Integers

Found: TypeAlias = tuple[Integers, int]


def gone_back(ids: Ids, loss: NDArray[np.float32]) -> Found | None:
    """Passes of one length, but for steps that were trained again from restored weights.

    Weights were restored where a batch comes out of turn and its loss is what it was, to the last
    bit. Without the steps that were then trained again the passes are of one length. Those steps
    are of the pass in whose place they were trained, unless a later one has begun.
    """
    returns, to = _returns(ids, loss)
    if not len(returns):
        return None
    place = _places(len(ids), returns, to)
    length = int(place[-1]) + 1
    # Of all steps in one place the last was not trained again.
    filled, ahead = np.unique(place[::-1], return_index=True)
    kept = ids[::-1][ahead[filled < length]]
    period = period_of(kept, Sums.of(kept))
    if period is None:
        return None
    epoch = np.maximum.accumulate(place // period)
    missing = (int(epoch[-1]) + 1) * period - length
    begins = np.concatenate(([0], np.flatnonzero(np.diff(epoch)) + 1, [len(ids) + missing]))
    return begins[: int(np.searchsorted(begins, returns[-1], "right")) + 1], period


def _returns(ids: Ids, loss: NDArray[np.float32]) -> tuple[Integers, Integers]:
    """Steps at which weights had been restored, and the steps that had begun with them before."""
    bits = loss.view(np.uint32)
    order = np.lexsort((bits, ids))  # which keeps the order of equal ones
    same = (np.diff(ids[order]) == 0) & (np.diff(bits[order]) == 0)
    step, before = order[1:][same], order[:-1][same]
    in_turn = (before > 0) & (ids[before - 1] == ids[step - 1])
    found = np.argsort(step[~in_turn])
    returns, to = step[~in_turn][found], before[~in_turn][found]
    # Weights that stand still give nothing but losses that were there before.
    stood = len(returns) > 0 and bool(np.isin(np.arange(returns[-1], len(ids)), step).all())
    return (returns[:0], to[:0]) if stood else (returns, to)


def _places(count: int, returns: Integers, to: Integers) -> Integers:
    """Each step's place among those that were not trained again."""
    place = np.arange(count)
    ends = [*returns[1:].tolist(), count]
    for begin, at, end in zip(returns.tolist(), to.tolist(), ends, strict=True):
        place[begin:end] = np.arange(end - begin) + place[at]
    return place


def in_order(ids: Ids) -> Integers | None:
    """Passes in one order, each of which may end early or train some batches again.

    A pass begins with each return to the first batch. Batches come in the order of the first time
    of each; a step back is the exception: at most one a pass, on average.
    """
    _, first, which = np.unique(ids, return_index=True, return_inverse=True)
    place = np.argsort(np.argsort(first))[which.ravel()]
    ahead = np.diff(place)
    begins = np.flatnonzero((place[1:] == 0) & (place[:-1] > 0)) + 1
    back = (ahead < 1) & ~((place[1:] == 0) & (place[:-1] == len(first) - 1))
    if not len(begins) or (ahead > 1).any() or back.sum() > len(begins) + 1:
        return None
    return np.append(0, begins)


def cut_short(sums: Sums) -> Found | None:
    """Passes over the same rows, shuffled, of which some were cut short.

    As long as the first two, which have equal sums; between such passes, and after the last, are
    fewer steps than one has.
    """
    period, _ = sums.stretch()
    if not period:
        return None
    count = len(sums.lanes[0]) - 1
    starts = np.flatnonzero(sums.whole(period))
    begins: list[int] = []
    place = 0
    while place < count:
        begins.append(place)
        rest = starts[np.searchsorted(starts, place) :]
        step = int(rest[0]) if len(rest) else count
        if step - place >= period:
            return None
        place = step if step > place else place + period
    return np.array(begins), period
