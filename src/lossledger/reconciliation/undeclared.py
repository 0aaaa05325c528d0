"""What a loop of the user's leaves unsaid: the rows of its steps, how it makes a batch's loss."""

from dataclasses import replace
from itertools import product

import numpy as np

from lossledger.reconciliation.align import drops_remainder, match
from lossledger.reconciliation.compiled import reduction_of
from lossledger.reconciliation.fold import Fold
from lossledger.reconciliation.moves import alike, near
from lossledger.reconciliation.pair import Pair
from lossledger.reconciliation.parting import first_step
from lossledger.reconciliation.reading import Reading
from lossledger.statistics import Mean


def with_rows(a: Reading, b: Reading) -> tuple[Reading, Reading]:
    """Both numbers; steps that say no rows, and are the other's first ones, with the rows of these.

    So what a loop leaves out is rows, and is not taken for another weight of each step.
    """
    return _said_by(a, b), _said_by(b, a)


def _said_by(reading: Reading, other: Reading) -> Reading:
    if reading.fold is None or other.fold is None or reading.fold.weighs_by != "one":
        return reading
    mine, theirs = reading.fold.ledger, other.fold.ledger
    count, rows = len(mine), theirs["rows"]
    unsaid = not mine["rows"].any() and not mine["batch_id"].any()
    if not unsaid or not theirs.has("rows") or not 0 < count < len(theirs):
        return reading
    agree = any(alike(mine["loss"], each[:count]).all() for each in (theirs["loss"], theirs.data))
    if not agree and not (drops_remainder(rows, rows[:count]) and _begin_alike(reading, other)):
        return reading
    before, rest = divmod(mine.start, count)
    epochs = np.unique(mine.columns["epoch"], return_counts=True)[1]
    if rest or (epochs != count).any():
        return reading  # of epochs of other lengths before, nothing tells
    said = np.tile(rows[:count], before + 1)
    ledger = replace(mine, columns={**mine.columns, "rows": said})
    return replace(reading, fold=reading.fold.over(ledger))


def _begin_alike(reading: Reading, other: Reading) -> bool:
    """Whether the first step's loss is the other training's, or its data term."""
    mine, theirs = (first_step(*each.training) for each in (reading, other))
    if mine is None or theirs is None:
        return False
    return near(mine["loss"], theirs["loss"]) or near(
        mine["loss"], theirs["loss"] - theirs["penalty"]
    )


def undeclared(a: Fold, b: Fold, pair: Pair) -> tuple[str, str] | None:
    """The reductions under which two folds, cut into other batches, are of one mean over rows.

    `sum(n l) / sum(n)` of a batch's mean l over n rows, `sum(l) / sum(n)` of its sum. A recorded
    reduction is what it is; where none is, `mean` is tried before `sum`.

    Returns:
        The reductions; `None` where fingerprints tell the batches, or the means agree (to 3e-6)
        under none.
    """
    rows = [fold.ledger["rows"] for fold in (a, b)]
    if pair.same_entries or np.array_equal(rows[0], rows[1]) or rows[0].sum() != rows[1].sum():
        return None
    if match(a.ledger["batch_id"], b.ledger["batch_id"]).known:
        return None
    for one, other in product(*map(_may_be, (pair.a, pair.b))):
        if near(_mean(a, one), _mean(b, other)):
            return one, other
    return None


def _may_be(reading: Reading) -> tuple[str, ...]:
    if reading.call.configuration.get("loss") is None:
        return "mean", "sum"
    return ("sum" if reduction_of(reading.call) == "sum" else "mean",)


def _mean(fold: Fold, kind: str) -> float:
    loss, rows = fold.losses[fold.ledger.start :], fold.ledger["rows"]
    return Mean.of(loss / rows if kind == "sum" else loss, rows).result
