"""How a loop of the user's makes one loss of a batch, where nothing on record says."""

from itertools import product

import numpy as np

from lossledger.reconciliation.align import match
from lossledger.reconciliation.compiled import reduction_of
from lossledger.reconciliation.fold import Fold
from lossledger.reconciliation.moves import near
from lossledger.reconciliation.pair import Pair
from lossledger.reconciliation.reading import Reading
from lossledger.statistics import Mean


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
