"""By which weights a step of the user's own adds its named losses, as its entries show."""

from collections.abc import Sequence

import numpy as np

from lossledger.reconciliation.fold import Ledger
from lossledger.reconciliation.moves import alike

_DIGITS = range(1, 7)


def weights_in(ledger: Ledger, names: Sequence[str]) -> dict[str, float]:
    """The w_i of `l = sum(w_i l_i)`, one each for all steps; nothing where there are none.

    As in a variational autoencoder that adds a reconstruction's loss and a weighted divergence.
    They are taken for rounded numbers where these give all losses, too.

    Args:
        ledger: Entries, of which there have to be more than names.
        names: The named losses.
    """
    if len(names) < 2 or not set(names) <= set(ledger.columns):
        return {}
    terms = np.stack([ledger.columns[name] for name in names], axis=1)
    losses = ledger.columns["loss"]
    if len(losses) <= len(names) or not np.isfinite(terms).all() or not np.isfinite(losses).all():
        return {}
    size = np.abs(terms).max(0)
    if not size.all():
        return {}
    solved, _, rank, _ = np.linalg.lstsq(terms / size, losses, rcond=1e-6)
    if rank < len(names):
        return {}
    tried = [*(np.array([_rounded(w, d) for w in solved / size]) for d in _DIGITS), solved / size]
    for weights in tried:
        if alike(terms @ weights, losses).all():
            return dict(zip(names, weights.tolist(), strict=True))
    return {}


def _rounded(value: float, digits: int) -> float:
    return float(f"{value:.{digits}g}")
