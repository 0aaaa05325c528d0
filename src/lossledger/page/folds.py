"""Statistics of a step, block by block: those of `lossledger.statistics`, carried on.

What a statistic has seen goes in front of the next block as one entry that stands for all of it
(as in `lossledger.statement`), so that memory is bounded and the statistics stay defined once.
"""

import numpy as np

from lossledger.statement import bounds
from lossledger.statistics import STATISTICS
from lossledger.vectors import Floats, Integers


class RunningMean:
    """The statistic `running_mean` over blocks that are fed in order."""

    def __init__(self) -> None:
        self._label: int | None = None
        self._mean = 0.0
        self._weight = 0.0

    def feed(self, loss: Floats, weight: Floats, epoch: Integers) -> Floats:
        """The running mean at each step.

        Args:
            loss: (n,), n > 0.
            weight: (n,).
            epoch: (n,) labels that differ between neighbouring epochs, and never go back.
        """
        before = int(epoch[0] == self._label)
        if before:
            loss = np.concatenate(([self._mean], loss))
            weight = np.concatenate(([self._weight], weight))
            epoch = np.concatenate((epoch[:1], epoch))
        means = STATISTICS["running_mean"](loss, weight, epoch)
        begin = int(bounds(epoch)[0][-1])
        self._label, self._mean = int(epoch[-1]), float(means[-1])
        self._weight = float(weight[begin:].sum())
        return means[before:]


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
