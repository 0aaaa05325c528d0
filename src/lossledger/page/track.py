"""A track: all that a page draws of one model in one run, gathered in one pass."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lossledger.call import Call, entries_of
from lossledger.page.ema import Ema
from lossledger.page.gather import Axis, Envelope, Gathered, Whole
from lossledger.page.notable import Notable, Places
from lossledger.page.pack import pack
from lossledger.statement import Block, EpochStatement, RunningMeans
from lossledger.vectors import Floats, Integers

EPOCHS = 4096
"""Epochs whose means a track carries; of more, every k-th."""

_COLUMNS = (
    *("step", "epoch", "loss", "weight", "rows", "penalty", "learning_rate", "time"),
    "batch_id",
)


@dataclass(frozen=True)
class Stated:
    """The epochs of one model's calls, one after another, and where each begins.

    Args:
        epochs: The call of each epoch, and its statement.
        begins: (epochs + 1,) entries of the track before each, and all of them.
        rows: (epochs + 1,) rows before each, and all of them.
        std: (epochs,) the standard deviation of its losses.
    """

    epochs: Sequence[tuple[Call, EpochStatement]]
    begins: Integers
    rows: Integers
    std: Floats

    @classmethod
    def of(
        cls, calls: Iterable[Call], statements: Mapping[int, Sequence[EpochStatement]]
    ) -> "Stated":
        """Puts the calls' epochs in a row."""
        epochs = [(call, each) for call in calls for each in statements[call.number]]
        steps = np.array([0, *(each.steps for _, each in epochs)], np.int64)
        rows = np.array([0, *(each.rows for _, each in epochs)], np.int64)
        std = np.array([each.std for _, each in epochs], np.float64)
        return cls(epochs, np.cumsum(steps), np.cumsum(rows), std)

    @property
    def entries(self) -> int:
        """Entries of all epochs."""
        return int(self.begins[-1])


class Track:
    """One model of one run; goes on where it stopped when the run has grown.

    Args:
        folder: The run's folder.
        model: The model's number.
        outputs: Named outputs whose losses the entries have.
        beta: Of the exponential moving average.
        bucket: Entries in a bucket; 1 carries all entries.
    """

    def __init__(
        self, folder: Path, model: int, outputs: Sequence[str], beta: float, bucket: int
    ) -> None:
        self.folder = folder
        self.model = model
        self.outputs = tuple(outputs)
        self.bucket = bucket
        self.beta = beta
        self.entries = 0
        self.notable = Notable(f"ema:beta={beta:g}")
        self.stated = Stated.of([], {})
        self._curves: dict[str, Gathered] = {}
        self._axes = {name: Axis(bucket) for name in ("step", "rows", "time")}
        self._running = RunningMeans()
        self._ema = Ema(beta)
        self._returned: tuple[int, float] | None = None  # the last entry's call and its time
        self._seen: set[str] = set()
        self._lengths: list[tuple[int, int]] = []  # the calls that were read, and their entries
        self._rows = (0, 0.0)  # entries read, and the rows of them

    def goes_on(
        self, calls: Sequence[Call], stated: Stated, bucket: int, outputs: Sequence[str]
    ) -> bool:
        """Whether what was read stands: epochs that are found in the data may come out otherwise.

        Args:
            calls: All calls of the model, in order; a resume may have cut one short.
            stated: The epochs as they are known by now.
            bucket: As the track should have it.
            outputs: Likewise.
        """
        before, now = (each.begins[each.begins < self.entries] for each in (self.stated, stated))
        lengths = {call.number: call.steps for call in calls}
        whole, last = self._lengths[:-1], self._lengths[-1:]
        return (
            all(lengths.get(number) == steps for number, steps in whole)
            and all(lengths.get(number, 0) >= steps for number, steps in last)
            and np.array_equal(before, now)
            and self.bucket == bucket
            and self.outputs == tuple(outputs)
            and stated.entries >= self.entries
        )

    def read(self, calls: Sequence[Call], stated: Stated) -> None:
        """Reads what of the calls' entries was not read yet.

        Args:
            calls: All calls of the model, in order.
            stated: Their epochs.
        """
        self.stated = stated
        firsts = np.cumsum([0, *(call.steps for call in calls)]).tolist()
        self._lengths = [(call.number, call.steps) for call in calls]
        begins = {call.number: first for call, first in zip(calls, firsts, strict=False)}
        done = dict.fromkeys(begins, 0)
        for call, block in entries_of(self.folder, calls, (*_COLUMNS, *self.outputs)):
            start = begins[call.number] + done[call.number]
            count = len(block["loss"])
            done[call.number] += count
            skip = min(max(self.entries - start, 0), count)
            if skip < count:
                self._feed(call, start + skip, {n: v[skip:] for n, v in block.items()})
                self.entries = start + count

    def _feed(self, call: Call, start: int, block: Block) -> None:
        places = np.arange(start, start + len(block["loss"]))
        epoch = np.searchsorted(self.stated.begins, places, side="right") - 1
        loss = block["loss"].astype(np.float64)
        ema = self._ema.feed(loss)
        rows = np.cumsum(block["rows"], dtype=np.float64)
        rows_before = self._rows_before(start, epoch[0]) + rows - block["rows"]
        times = np.rint(block["time"] / 1000)
        curves = {
            "raw": loss,
            "running_mean": self._running.feed(loss, block["weight"], epoch),
            "ema": ema,
            "penalty": block["penalty"].astype(np.float64),
            "learning_rate": block["learning_rate"].astype(np.float64),
            "step_time": self._step_times(call, times / 1e6),
            **{name: block[name].astype(np.float64) for name in self.outputs},
        }
        for name, values in curves.items():
            if name not in self._curves:
                self._curves[name] = Whole() if self.bucket == 1 else Envelope(self.bucket)
            if name not in self._seen and _tells(name, values):
                self._seen.add(name)
            self._curves[name].feed(start, values)
        for name, values in (
            ("step", block["step"]),
            ("rows", rows_before + block["rows"]),
            ("time", np.maximum.accumulate(times)),
        ):
            self._axes[name].feed(start, values)
        stated = self.stated
        facts = Places(
            places - stated.begins[epoch], rows_before - stated.rows[epoch], stated.std[epoch]
        )
        self.notable.feed(call.number, {**block, "loss": loss}, ema, facts)
        self._rows = (start + len(loss), float(rows_before[-1] + block["rows"][-1]))

    def _rows_before(self, start: int, epoch: int) -> float:
        """Rows of the track before its entry `start`."""
        entry, rows = self._rows
        return rows if entry == start else float(self.stated.rows[epoch])

    def _step_times(self, call: Call, times: Floats) -> Floats:
        """Seconds from the return of the step before; NaN at a call's first, which compiles."""
        same = self._returned is not None and self._returned[0] == call.number
        before = self._returned[1] if self._returned is not None and same else np.nan
        self._returned = (call.number, float(times[-1]))
        return np.diff(times, prepend=before)

    @property
    def length(self) -> int:
        """Buckets, or entries where a bucket is one."""
        return -(-self.entries // self.bucket)

    def curves(self) -> list[str]:
        """Names of the curves that tell something."""
        always = ("raw", "running_mean", "ema")
        return [name for name in self._curves if name in always or name in self._seen]

    def packed(self, begin: int = 0) -> dict[str, Any]:
        """The track's arrays from bucket `begin` on; step times of entries are those of `time`."""
        told = [name for name in self.curves() if name != "step_time" or self.bucket > 1]
        return {
            "axes": {name: axis.packed(begin) for name, axis in self._axes.items()},
            "curves": {name: self._curves[name].packed(begin) for name in told},
        }

    def glance(self, bucket: int) -> dict[str, Any]:
        """The same at a glance, in buckets of so many entries; where it carries all of them."""
        return {
            "axes": {name: axis.glance(bucket) for name, axis in self._axes.items()},
            "curves": {name: self._curves[name].glance(bucket) for name in self.curves()},
        }

    def epochs(self) -> dict[str, Any]:
        """Where epochs begin, of which call each is, and their means."""
        stride = -(-len(self.stated.epochs) // EPOCHS) or 1
        chosen = self.stated.epochs[::stride]
        return {
            "stride": stride,
            "count": len(self.stated.epochs),
            "begin": pack(self.stated.begins[:-1][::stride], "f8", delta=True),
            "end": pack(self.stated.begins[1:][::stride], "f8", delta=True),
            "call": pack([call.number for call, _ in chosen], "f8"),
            "epoch": pack([each.epoch for _, each in chosen], "f8"),
            "epoch_mean": pack([each.epoch_mean for _, each in chosen]),
            "batch_mean": pack([each.batch_mean for _, each in chosen]),
        }


def _tells(name: str, values: Floats) -> bool:
    """Whether a curve is worth drawing: most losses have no penalty, which is zero throughout."""
    known = values[~np.isnan(values)]
    return bool(known.any() if name == "penalty" else len(known))
