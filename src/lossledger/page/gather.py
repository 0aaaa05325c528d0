"""What a page carries of a curve: every entry, or an envelope of equal buckets."""

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from lossledger.page.pack import Packed, pack
from lossledger.vectors import Floats

ENTRIES = 1 << 20
"""Entries up to which a page carries all of them."""
BUCKETS = 1 << 16
"""Buckets of a page that carries envelopes, at most; a curve has at least `LEAST`."""
LEAST = 64
GLANCE = 1 << 16
"""Entries of a page above which it is painted before they are read, from `GLANCES` buckets."""
GLANCES = 1 << 12


def bucket_of(entries: int, total: int, tracks: int) -> int:
    """How many entries a bucket holds: a power of two, 1 where the page carries all entries.

    Args:
        entries: Of the track.
        total: Of all tracks of the page.
        tracks: How many there are.
    """
    return 1 if total <= ENTRIES else bucket_for(entries, BUCKETS, tracks)


def bucket_for(entries: int, buckets: int, tracks: int) -> int:
    """The power of two that makes of a track its share of so many buckets, at most."""
    share = max(buckets // max(tracks, 1), LEAST)
    size = 1
    while -(-entries // size) > share:
        size *= 2
    return size


class Gathered(ABC):
    """A curve that grows block by block."""

    @abstractmethod
    def feed(self, start: int, values: Floats) -> None:
        """Takes values from the track's entry `start` on, in order."""

    @abstractmethod
    def packed(self, begin: int) -> dict[str, Packed]:
        """The arrays from bucket `begin` on."""

    def glance(self, bucket: int) -> dict[str, Packed]:
        """The same at a glance, in larger buckets; what there is where it has buckets already."""
        return self.packed(0)


class Whole(Gathered):
    """Every value, in float32."""

    def __init__(self) -> None:
        self._parts: list[NDArray[np.float32]] = []

    def feed(self, start: int, values: Floats) -> None:
        """Takes the next values."""
        with np.errstate(over="ignore"):
            self._parts.append(values.astype(np.float32))

    def _values(self) -> NDArray[np.float32]:
        self._parts = [np.concatenate(self._parts)] if self._parts else []
        return self._parts[0] if self._parts else np.empty(0, np.float32)

    def packed(self, begin: int) -> dict[str, Packed]:
        """The values from entry `begin` on, as `value`."""
        return {"value": pack(self._values()[begin:])}

    def glance(self, bucket: int) -> dict[str, Packed]:
        """An envelope of the values."""
        envelope = Envelope(bucket)
        envelope.feed(0, self._values().astype(np.float64))
        return envelope.packed(0)


class Envelope(Gathered):
    """Smallest, largest and mean of the finite values of each bucket, and how many are not finite.

    Args:
        bucket: Entries in a bucket.
    """

    def __init__(self, bucket: int) -> None:
        self._bucket = bucket
        self._columns = np.empty((5, 0))

    def feed(self, start: int, values: Floats) -> None:
        """Takes the next values."""
        if not len(values):
            return
        end = start + len(values)
        first, last = start // self._bucket, (end - 1) // self._bucket
        self._reserve(last + 1)
        begins = np.maximum(np.arange(first, last + 1) * self._bucket - start, 0)
        finite = np.isfinite(values)
        low, high, total, known, unknown = self._columns[:, first : last + 1]
        low[:] = np.minimum(low, np.minimum.reduceat(np.where(finite, values, np.inf), begins))
        high[:] = np.maximum(high, np.maximum.reduceat(np.where(finite, values, -np.inf), begins))
        total += np.add.reduceat(np.where(finite, values, 0.0), begins)
        known += np.add.reduceat(finite, begins, dtype=np.float64)
        unknown += np.add.reduceat(~finite, begins, dtype=np.float64)

    def _reserve(self, buckets: int) -> None:
        missing = buckets - self._columns.shape[1]
        if missing > 0:
            new = np.zeros((5, missing))
            new[0], new[1] = np.inf, -np.inf
            self._columns = np.concatenate((self._columns, new), axis=1)

    def packed(self, begin: int) -> dict[str, Packed]:
        """`min`, `max`, `mean` (NaN where nothing is finite) and `nonfinite` from a bucket on."""
        low, high, total, known, unknown = self._columns[:, begin:]
        with np.errstate(all="ignore"):
            empty = known == 0
            return {
                "min": pack(np.where(empty, np.nan, low)),
                "max": pack(np.where(empty, np.nan, high)),
                "mean": pack(total / known),
                "nonfinite": pack(unknown),
            }


class Axis:
    """Where each bucket stands on an axis that only grows: at its middle entry.

    Args:
        bucket: Entries in a bucket.
    """

    def __init__(self, bucket: int) -> None:
        self._bucket = bucket
        self._values: list[Floats] = []
        self._last: tuple[int, float] | None = None

    def feed(self, start: int, values: Floats) -> None:
        """Takes the positions of the track's entries from `start` on, whole numbers."""
        if len(values):
            middle = (self._bucket // 2 - start) % self._bucket
            self._values.append(values[middle :: self._bucket].astype(np.float64))
            self._last = (start + len(values) - 1, float(values[-1]))

    def _known(self) -> Floats:
        self._values = [np.concatenate(self._values)] if self._values else []
        known = self._values[0] if self._values else np.empty(0)
        if self._last is not None and self._last[0] // self._bucket >= len(known):
            known = np.append(known, self._last[1])
        return known

    def packed(self, begin: int) -> Packed:
        """The positions from bucket `begin` on; of an unfinished one its last entry's."""
        return pack(self._known()[begin:], "f8", delta=True)

    def glance(self, bucket: int) -> Packed:
        """The positions of larger buckets, where a bucket is one entry."""
        axis = Axis(bucket)
        axis.feed(0, self._known())
        return axis.packed(0)
