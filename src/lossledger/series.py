"""The folds behind the statistics: entries in, one number a step or an epoch out.

Each takes checked `Steps` and gives float64. `lossledger.statistics` names them, and says for
each what it means, its formula and its source.
"""

from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from numpy.typing import ArrayLike

from lossledger.errors import LossLedgerError
from lossledger.exact import running_mean as _mean_so_far
from lossledger.vectors import Floats, Integers


@dataclass(frozen=True, eq=False)
class Steps:
    """Checked entries, as the functions in `STATISTICS` take them.

    Args:
        loss: float64 (steps,).
        weight: float64 (steps,).
        first: int64 (steps,), index of the first step of each step's epoch.
        ends: int64 (epochs,), index of the last step of each epoch.
    """

    loss: Floats
    weight: Floats
    first: Integers
    ends: Integers

    @classmethod
    def of(cls, loss: ArrayLike, weight: ArrayLike, epoch: ArrayLike) -> "Steps":
        """Check the columns and find where epochs begin and end.

        Raises:
            LossLedgerError: Columns of unequal length, or epochs that go back.
        """
        losses, weights = columns(loss, weight)
        labels, _ = columns(epoch, weight)
        if (np.diff(labels) < 0).any():
            raise LossLedgerError(
                "Epochs must not go back within one series. "
                f"Received: epoch {labels[np.argmax(np.diff(labels) < 0)]:.0f} followed by a "
                "smaller one. Pass the calls of a run one by one, or number their epochs on.",
                slug="epochs-go-back",
            )
        begins, ends = bounds(labels)
        return cls(losses, weights, np.repeat(begins, ends - begins + 1), ends)


def bounds(labels: np.ndarray) -> tuple[Integers, Integers]:
    """First and last place of each stretch of equal labels."""
    changes = np.flatnonzero(np.diff(labels)) + 1
    begins = np.concatenate(([0], changes))[: len(labels)].astype(np.int64)
    return begins, np.append(begins[1:], len(labels)).astype(np.int64)[: len(begins)] - 1


def columns(loss: ArrayLike, weight: ArrayLike | None) -> tuple[Floats, Floats]:
    """Two columns as float64, 1 each where the second is `None`.

    Raises:
        LossLedgerError: They are not one-dimensional and equally long.
    """
    losses = np.asarray(loss, np.float64)
    weights = np.ones(len(losses)) if weight is None else np.asarray(weight, np.float64)
    if losses.ndim != 1 or losses.shape != weights.shape:
        raise LossLedgerError(
            "Columns of entries must be one-dimensional and equally long. "
            f"Received: shapes {losses.shape} and {weights.shape}. Pass one number a step.",
            slug="unequal-columns",
        )
    return losses, weights


def raw(steps: Steps) -> Floats:
    """l_k, as it is."""
    return steps.loss.copy()


def running_mean(steps: Steps) -> Floats:
    """Weighted mean of the epoch so far."""
    return _mean_so_far(steps.loss, steps.weight, steps.first)


def epoch_mean(steps: Steps) -> Floats:
    """The running mean at each epoch's last step."""
    return running_mean(steps)[steps.ends]


def batch_mean(steps: Steps) -> Floats:
    """Plain mean of each epoch's losses."""
    return _mean_so_far(steps.loss, np.ones(len(steps.loss)), steps.first)[steps.ends]


def cumulative_mean(steps: Steps) -> Floats:
    """Weighted mean since the first step."""
    return _mean_so_far(steps.loss, steps.weight, np.zeros_like(steps.first))


def progress_bar(steps: Steps, finalize: str, steps_per_execution: int) -> Floats:
    """The loss that `keras.utils.Progbar` shows when `fit` averages averages.

    `update(current, m)` adds `m * b` and `b` to the bar's sums, b = max(current - seen so far, 1),
    and shows their quotient; m is the epoch's running mean. After each execution of K steps Keras
    up to 3.10 passes current = (first step of the execution, from 0) + 1, hence b = 1, K, K, ...;
    from 3.11 on (last step) + 1, hence b = K always. At the epoch's end, `update(n, m_n,
    finalize=True)` counts m_n in once more with b = max(n - seen so far, 1) up to 3.10
    ("counted"), and shows m_n itself from 3.11 on ("replaced"). "none" is the bar of 3.10 before
    that update. Inside an execution the bar stands still; before the first it shows nothing, NaN.
    `fit(verbose=2)` prints m_n alone.
    """
    place = np.arange(len(steps.loss)) - steps.first + 1
    shown = place % steps_per_execution == 0
    shown[steps.ends] = True
    base = np.where(shown, float(steps_per_execution), 0.0)
    last = place[steps.ends]
    if finalize != "replaced":
        base[shown & (place <= steps_per_execution)] = 1.0
    if finalize == "counted":
        seen = (last - 1) // steps_per_execution * steps_per_execution + 1
        base[steps.ends] += np.maximum(last - seen, 1)
    means = running_mean(steps)
    bar = _mean_so_far(np.where(shown, means, 0.0), base, steps.first)
    if finalize == "replaced":
        bar[steps.ends] = means[steps.ends]
    bar[~shown & (place < steps_per_execution)] = np.nan
    return bar


def window_mean(steps: Steps, n: int) -> Floats:
    """A window is the end of one block of n and the beginning of the next (van Herk 1992).

    So there is no difference of long sums to lose digits in, and a NaN leaves with its step.
    """
    count = len(steps.loss)
    n = max(1, min(n, count))
    blocks = np.zeros(-(-count // n) * n)
    blocks[:count] = steps.loss
    blocks = blocks.reshape(-1, n)
    with np.errstate(all="ignore"):
        begun = np.cumsum(blocks, axis=1).ravel()[:count]
        left = np.cumsum(blocks[:, ::-1], axis=1)[:, ::-1].ravel()
        place = np.arange(count)
        total = begun.copy()
        across = place[(place >= n) & (place % n != n - 1)]
        total[across] += left[across - n + 1]
        return total / np.minimum(place + 1, n)


def ema(steps: Steps, beta: float, debias: bool, reset: bool) -> Floats:
    """v_k = beta v_(k-1) + (1 - beta) l_k.

    Debiased: from v_0 = 0, and v_k / (1 - beta^k). Else from v_1 = l_1.
    """
    averages = np.empty(len(steps.loss))
    ends = (steps.ends if reset else steps.ends[-1:]) + 1
    begin = 0
    for end in ends.tolist():
        losses = steps.loss[begin:end].tolist()
        values = accumulate(
            losses,
            lambda value, loss: beta * value + (1 - beta) * loss,
            initial=0.0 if debias else losses[0],
        )
        averages[begin:end] = list(values)[1:]
        if debias:
            averages[begin:end] /= 1 - beta ** np.arange(1, end - begin + 1)
        begin = end
    return averages


def last(steps: Steps) -> Floats:
    """Each epoch's last loss."""
    return steps.loss[steps.ends]
