"""Steps that a reader wants to look at: losses that are not finite, and spikes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lossledger.statement import Block
from lossledger.vectors import Floats, Integers

HIGH = 4.0
"""Standard deviations of its epoch by which a spike lies above the average before it."""
SETTLED = 20
"""Finite losses before the average counts as settled."""
SPIKES = 20
NONFINITE = 20


@dataclass(frozen=True)
class NotableStep:
    """One step, and which data it saw.

    Args:
        step: Of the run.
        call: Its call.
        epoch: Its epoch.
        batch: Its place in the epoch, from 0.
        loss: Its raw loss.
        before: The average before it (`ema`).
        score: `(loss - before) / std`, std that of the epoch's raw losses; NaN if not finite.
        batch_id: The fingerprint of its batch; 0 where it has none.
        rows: First row of its batch and the row after its last, counted through the epoch.
    """

    step: int
    call: int
    epoch: int
    batch: int
    loss: float
    before: float
    score: float
    batch_id: int
    rows: tuple[int, int]


class Notable:
    """Looks for such steps, block by block.

    Args:
        statistic: The average's name with its parameters, for readers.
    """

    def __init__(self, statistic: str) -> None:
        self.statistic = statistic
        self.nonfinite = 0
        self.bad: list[NotableStep] = []
        self.spikes: list[NotableStep] = []
        self._before = np.nan
        self._seen = 0

    def feed(self, call: int, block: Block, ema: Floats, facts: "Places") -> None:
        """Takes a block of one call's entries.

        Args:
            call: The call's number.
            block: `step`, `epoch`, `loss` in float64, `rows`, `batch_id`.
            ema: (n,) the average after each step, NaN where the loss is not finite.
            facts: Of each entry, its place in its epoch.
        """
        loss = block["loss"]
        known = np.flatnonzero(~np.isnan(ema))
        # Of each step, the last average that there is before it.
        latest = np.searchsorted(known, np.arange(len(loss)))
        before = np.concatenate(([self._before], ema[known]))[latest]
        settled = self._seen + latest >= SETTLED
        with np.errstate(all="ignore"):
            score = np.where(settled, (loss - before) / facts.std, np.nan)
        high = np.flatnonzero(np.isfinite(score) & (score > HIGH))
        wanted = high[np.argsort(-score[high], kind="stable")][:SPIKES]
        bad = np.flatnonzero(~np.isfinite(loss))
        self.nonfinite += len(bad)
        parts = (call, block, before, score, facts)
        self.bad += _steps(bad[: max(NONFINITE - len(self.bad), 0)], *parts)
        self.spikes += _steps(wanted, *parts)
        self.spikes = sorted(self.spikes, key=lambda each: -each.score)[:SPIKES]
        if len(known):
            self._before = float(ema[known[-1]])
        self._seen += len(known)


@dataclass(frozen=True)
class Places:
    """Of each entry of a block: its place in its epoch, the rows before it, the epoch's std."""

    batch: Integers
    row: Floats
    std: Floats


def _steps(
    places: Integers, call: int, block: Block, before: Floats, score: Floats, facts: Places
) -> Sequence[NotableStep]:
    def step(i: int) -> NotableStep:
        row = int(facts.row[i])
        return NotableStep(
            step=int(block["step"][i]),
            call=call,
            epoch=int(block["epoch"][i]),
            batch=int(facts.batch[i]),
            loss=float(block["loss"][i]),
            before=float(before[i]),
            score=float(score[i]),
            batch_id=int(block["batch_id"][i]),
            rows=(row, row + int(block["rows"][i])),
        )

    return [step(i) for i in places.tolist()]
