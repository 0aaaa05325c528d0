"""The moving average of a page, block by block: the statistic of `lossledger.statistics`.

What it has seen goes in front of the next block as one entry that stands for all of it (as in
`lossledger.statement`), so that memory is bounded and the statistic stays defined once.
"""

import numpy as np

from lossledger.statistics import STATISTICS
from lossledger.vectors import Floats


class Ema:
    """The statistic `ema`, debiased, of the finite losses of blocks that are fed in order.

    One loss that is not finite would end the curve for good; here it has no value, and the
    average goes on after it.

    Args:
        beta: The statistic's.
    """

    def __init__(self, beta: float) -> None:
        self.beta = beta
        self._value = 0.0
        self._seen = 0

    def feed(self, loss: Floats) -> Floats:
        """The average after each step, NaN at one that is not finite; loss is (n,)."""
        finite = np.isfinite(loss)
        losses = np.concatenate(([self._value], loss[finite]))
        one = np.ones(len(losses))
        values = STATISTICS["ema"](losses, one, 0 * one, beta=self.beta, debias=False)[1:]
        place = np.arange(self._seen + 1, self._seen + len(losses))
        result = np.full(len(loss), np.nan)
        result[finite] = values / (1 - self.beta**place)
        if len(values):
            self._value, self._seen = float(values[-1]), self._seen + len(values)
        return result
