"""The entries of a replay, and the number that a description reads off them."""

from dataclasses import dataclass

from lossledger.replay.description import Reading
from lossledger.statistics import STATISTICS
from lossledger.vectors import Floats, Integers


@dataclass(frozen=True, eq=False)
class Entries:
    """What one training left, a number a step.

    Args:
        loss: float64 (steps,).
        weight: float64 (steps,).
        rows: int64 (steps,).
        epoch: int64 (steps,), from 0.
    """

    loss: Floats
    weight: Floats
    rows: Integers
    epoch: Integers


def read(entries: Entries, how: Reading, batch_size: int) -> float:
    """The number that a reading gives of a training.

    Args:
        entries: The training's.
        how: The reading.
        batch_size: Rows of a whole batch.
    """
    kept = entries.epoch < how.epochs
    loss, weight, rows, epoch = (
        column[kept] for column in (entries.loss, entries.weight, entries.rows, entries.epoch)
    )
    if not how.reset:
        loss = STATISTICS["cumulative_mean"](loss, weight, epoch)
    if not how.remainder:
        whole = rows == batch_size
        loss, weight, epoch = loss[whole], weight[whole], epoch[whole]
    values = how.statistic(loss, weight, epoch, **how.parameters)
    return float(values[-1]) if len(values) else float("nan")
