"""Lays two series of steps side by side: which steps trained on the same batch, in which order.

A `batch_id` is two 32-bit lanes, each a sum over the batch's rows modulo 2^32 (see
`lossledger.passes`). So lanes add: two epochs with equal sums hold the same rows, whatever the
order, and whatever the batches.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from lossledger.passes import LANE, Sums
from lossledger.vectors import Floats, Ids, Integers, Mask

Order: TypeAlias = Literal[
    "same", "shifted", "permuted", "truncated", "repeated", "rebatched", "other", "unknown"
]


@dataclass(frozen=True, eq=False)
class Match:
    """Which steps of two epochs trained on the same batch.

    Args:
        a: int64 (pairs,), places in the first epoch, ascending.
        b: int64 (pairs,), places of the same batches in the second.
        only_a: bool (steps,), which steps of the first have no counterpart.
        only_b: The same of the second.
        again_a: Which of `only_a` train on a batch that has a counterpart already.
        again_b: The same of the second.
        known: Whether batches have fingerprints; else places were paired, one by one.
    """

    a: Integers
    b: Integers
    only_a: Mask
    only_b: Mask
    again_a: Mask
    again_b: Mask
    known: bool = True

    @property
    def all_of_a(self) -> bool:
        """Whether each step of the first has a counterpart."""
        return not self.only_a.any()

    @property
    def all_of_b(self) -> bool:
        """Whether each step of the second has a counterpart."""
        return not self.only_b.any()


def match(a: Ids, b: Ids) -> Match:
    """Pairs the steps of two epochs: the n-th time of a batch with its n-th time in the other.

    Args:
        a: uint64 (steps,), the batches' fingerprints; 0 where there is none.
        b: The same of the other epoch.
    """
    same = np.array_equal(a, b)
    if same or not len(a) or not len(b) or not a.all() or not b.all():
        pairs = np.arange(min(len(a), len(b)))
        rest = [np.arange(len(ids)) >= len(pairs) for ids in (a, b)]
        none = [np.zeros(len(ids), bool) for ids in (a, b)]
        known = same and bool(a.all())
        return Match(pairs, pairs, rest[0], rest[1], none[0], none[1], known)
    _, labels = np.unique(np.concatenate((a, b)), return_inverse=True)
    labels = labels.ravel()
    ours, theirs = labels[: len(a)], labels[len(a) :]
    times = [_times(ours), _times(theirs)]
    size = 1 + max(int(each.max()) for each in times)
    keys = (ours * size + times[0], theirs * size + times[1])
    _, left, right = np.intersect1d(*keys, assume_unique=True, return_indices=True)
    order = np.argsort(left)
    left, right = left[order], right[order]
    only = [_without(left, len(a)), _without(right, len(b))]
    again = [only[0] & np.isin(ours, theirs), only[1] & np.isin(theirs, ours)]
    return Match(left, right, only[0], only[1], again[0], again[1])


def _times(labels: Integers) -> Integers:
    """How often each label has come before."""
    order = np.argsort(labels, kind="stable")
    ordered = labels[order]
    begins = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    lengths = np.diff(np.append(begins, len(labels)))
    times = np.empty(len(labels), np.int64)
    times[order] = np.arange(len(labels)) - np.repeat(begins, lengths)
    return times


def _without(places: Integers, count: int) -> Mask:
    mask = np.ones(count, bool)
    mask[places] = False
    return mask


def same_rows(a: Ids, b: Ids) -> bool:
    """Whether two epochs hold the same rows: equal sums in both lanes, modulo 2^32."""
    return bool(a.all() and b.all()) and _sums(a) == _sums(b)


def pieces(a: Ids, a_rows: Floats, b: Ids, b_rows: Floats) -> tuple[Integers, Integers] | None:
    """Where two epochs' pieces begin that end a batch on both sides, the smallest such.

    Args:
        a: uint64 (steps,), fingerprints of the one's batches; 0 where there is none.
        a_rows: (steps,) their rows.
        b: The same of the other.
        b_rows: Their rows.

    Returns:
        Places in both; `None` where they have no, or other numbers of, rows, or where fingerprints
        say that a piece holds other rows than the other side's.
    """
    ends = [np.cumsum(rows) for rows in (a_rows, b_rows)]
    if not all(len(rows) and (rows > 0).all() for rows in (a_rows, b_rows)):
        return None
    if ends[0][-1] != ends[1][-1]:
        return None
    common = np.intersect1d(ends[0], ends[1])
    begins = [np.append(0, np.searchsorted(each, common)[:-1] + 1) for each in ends]
    if a.all() and b.all():
        parts = [np.split(ids, at[1:]) for ids, at in zip((a, b), begins, strict=True)]
        if not all(same_rows(*each) for each in zip(*parts, strict=True)):
            return None
    return begins[0], begins[1]


def _sums(ids: Ids) -> tuple[int, int]:
    high = int((ids >> np.uint64(32)).sum(dtype=np.uint64)) % 2**32
    low = int((ids & LANE).sum(dtype=np.uint64)) % 2**32
    return high, low


def begins_anew(more: Ids, more_rows: Floats, less: Ids, less_rows: Floats) -> bool:
    """Whether an epoch goes on past the end of its data, and begins anew in them.

    After `q` passes and `r` rows more, its sum is `q` times that of the data and that of their
    first `r` rows, wherever these end a batch of either.

    Args:
        more: uint64 (steps,), fingerprints of its batches.
        more_rows: (steps,) their rows.
        less: The same of an epoch that holds all of the data, in the same order of rows.
        less_rows: (steps,) its rows.
    """
    if not len(less) or not more.all() or not less.all() or not (less_rows > 0).all():
        return False
    ends = [np.append(0, np.cumsum(rows)) for rows in (less_rows, more_rows)]
    size = ends[0][-1]
    first = ends[1] < size
    firsts, places = np.unique(np.append(ends[0], ends[1][first]), return_index=True)
    passes, rest = np.divmod(ends[1], size)
    seen = (ends[1] >= size) & np.isin(rest, firsts)
    at, times = np.searchsorted(firsts, rest[seen]), passes[seen].astype(np.uint64)
    agree = [
        (times * whole[-1] + np.append(whole, own[first])[places][at] - own[seen]) & LANE == 0
        for whole, own in zip(Sums.of(less).lanes, Sums.of(more).lanes, strict=True)
    ]
    return bool((ends[1][seen] > size).any() and np.all(agree))


def drops_remainder(more: Floats, less: Floats) -> bool:
    """Whether the one has the same full batches, and a short last one besides.

    Args:
        more: (steps,), rows of its batches.
        less: The same of the other.
    """
    return (
        len(more) == len(less) + 1
        and bool((less == less[0]).all())
        and bool((more[:-1] == less[0]).all())
        and bool(more[-1] < less[0])
    )


def order(a: Ids, b: Ids) -> Order:
    """How the batches of one epoch lie in another.

    Returns:
        `same`; `shifted`, by a rotation; `permuted`; `truncated`, one is the other's beginning;
        `repeated`, one trains on batches of the other more often; `rebatched`, the same rows in
        other batches; `other` rows; `unknown` without fingerprints.
    """
    if not a.all() or not b.all() or not len(a) or not len(b):
        return "unknown"
    if np.array_equal(a, b):
        return "same"
    short = min(len(a), len(b))
    if np.array_equal(a[:short], b[:short]):
        again = set(np.concatenate((a[short:], b[short:])).tolist()) <= set(a[:short].tolist())
        return "repeated" if again else "truncated"
    found = match(a, b)
    if found.all_of_a and found.all_of_b:
        start = int(found.b[0])
        return "shifted" if np.array_equal(a, np.roll(b, -start)) else "permuted"
    if (found.only_a == found.again_a).all() and (found.only_b == found.again_b).all():
        return "repeated"
    if found.all_of_a or found.all_of_b:
        return "truncated"
    return "rebatched" if same_rows(a, b) else "other"
