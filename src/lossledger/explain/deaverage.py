"""What running means in float32 still say of the losses they are made of.

A running mean m_k is `total / count` in float32. From two of them comes the loss between them,

    l_k = k m_k - (k - 1) m_(k-1),

but only as exactly as the means are known: each is rounded by half a unit in its last place, which
k enlarges. Keras's own addition rounds the total by at most u = 2^-24 of it more, whatever the rows
that it counts by. So the error of l_k is at most

    k ulp(m_k) / 2 + (k - 1) ulp(m_(k-1)) / 2 + u k |m_k| + ulp(l_k) / 2,

about `1.5 k ulp(m)` to `2 k ulp(m)` (Higham 2002, "Accuracy and Stability of Numerical Algorithms",
2.2).
"""

import numpy as np

from lossledger.explain.explained import Series
from lossledger.vectors import Floats, Integers

_UNIT = 2.0**-24
"""What rounding to float32 changes of a number at most, relatively."""


def losses_of(means: Floats) -> tuple[Floats, Floats]:
    """The losses of one epoch from its running means, all steps weighing the same.

    Args:
        means: float64 (steps,), float32 numbers.

    Returns:
        The losses, and by how much each may be off: float64 (steps,) both.
    """
    k = np.arange(1, len(means) + 1)
    sums = k * means
    losses = np.diff(sums, prepend=0.0)
    with np.errstate(invalid="ignore", over="ignore"):
        # A total that overflows float32 has no last place: its spacing is NaN, and so the bound.
        parts = k * _half_ulp(means)
        before = np.concatenate(([0.0], parts[:-1]))
        added = np.maximum(_UNIT * np.abs(sums), _half_ulp(sums))  # the latter of tiny ones
        return losses, parts + before + added + _half_ulp(losses)


def _half_ulp(values: Floats) -> Floats:
    return np.spacing(np.abs(values).astype(np.float32)).astype(np.float64) / 2


def deaveraging(series: Series, ends: Integers) -> tuple[list[str], list[str]]:
    """In words, what of the steps' losses follows from running means, with this file's numbers.

    Args:
        series: Running means, a number a step.
        ends: int64 (epochs,), how many of its numbers stand before each epoch's end.

    Returns:
        What is recoverable, and what isn't.
    """
    statistics = {row.statistic for row in series.conventions}
    if "running_mean" not in statistics:
        return ["the loss of each of these steps, as it was computed"], []
    strides = np.unique(np.diff(series.steps))
    if len(series.steps) and (strides != 1).any():
        seen, spanned = len(series.steps), int(np.ptp(series.steps)) + 1
        return [], [
            f"the loss of any step: {max(spanned - seen, 0):,} of {spanned:,} steps are hidden "
            "(update_freq), and a running mean covers all of its epoch's",
        ]
    stops = np.unique(np.concatenate((ends, [len(series.values)])))
    starts = np.concatenate(([0], stops[:-1]))
    worst, best, at = 0.0, np.inf, 1
    for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
        means = series.values[start:stop]
        if len(means) < 2 or not np.isfinite(means).all():
            continue
        _, bounds = losses_of(means)
        if bounds.max() > worst:
            worst, at = float(bounds.max()), int(bounds.argmax()) + 1
        best = min(best, float(bounds[1]))
    exact = "the loss of any step exactly, or where NaN or infinity stand before it in its epoch"
    if not worst:
        return [], [exact]
    mean = float(series.values[0])
    ulp = float(np.spacing(np.float32(abs(mean))))
    return [
        "the loss of each step but an epoch's last, as l_k = k m_k - (k-1) m_(k-1), k counted in "
        f"its epoch, within 1.5 to 2 k ulp(m): {best:.1e} at k = 2, {worst:.1e} at k = {at:,} "
        f"(ulp is {ulp:.1e} at {mean:.6g})",
    ], [
        exact,
        "an epoch's last loss, unless its batch had as many rows as the others: the file has no "
        "rows",
    ]
