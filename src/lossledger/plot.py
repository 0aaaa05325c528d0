"""A picture of a run: its losses as curves, each named by its statistic."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lossledger.call import Call, entries_of
from lossledger.errors import LossLedgerError
from lossledger.statement import RunningMeans

if TYPE_CHECKING:
    from lossledger.run import Run

POINTS = 10_000
"""Steps that are drawn one by one, at most; more are drawn as an envelope."""
BUCKETS = 2_000
"""Places of an envelope."""


def plot(run: "Run", calls: Sequence[Call], ax: Any) -> Any:
    """See `Run.plot`; reads the entries block by block."""
    axes = _axes() if ax is None else ax
    steps = sum(call.steps for call in calls)
    curves = _Curves(steps)
    for call, block in entries_of(run.path, calls, ["epoch", "loss", "weight"]):
        curves.add(call, block)
    curves.draw(axes)
    means = [mean for each in run.statements(calls).values() for mean in each]
    if means:
        ends = np.cumsum([mean.steps for mean in means]) - 1
        values = [mean.epoch_mean for mean in means]
        style = "o" if len(means) <= 100 else ""
        axes.plot(ends, values, f"{style}-", color="C3", markersize=4, label="epoch_mean")
        bad = sum(mean.nonfinite for mean in means)
        if bad:
            axes.plot([], [], " ", label=f"{bad:,} of {steps:,} steps are not finite")
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.set_title(run.name.replace("$", r"\$"))
    if means:
        axes.legend()
    return axes.figure


def _axes() -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise LossLedgerError(
            f"matplotlib is needed to plot, and can't be imported. Received: {error}. "
            'Install it: pip install "lossledger[plot]".',
            slug="not-installed",
        ) from error

    # Without pyplot, which would choose a window system and keep the figure; a notebook shows it.
    class Picture(Figure):
        def _repr_png_(self) -> bytes:
            data = io.BytesIO()
            self.savefig(data, format="png")
            return data.getvalue()

    return Picture(figsize=(9, 5), layout="constrained").add_subplot()


class _Curves:
    """Raw losses and running means: as they are where few, else by buckets of steps.

    Args:
        steps: How many steps there will be.
    """

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._whole = steps <= POINTS
        size = steps if self._whole else BUCKETS
        self._low = np.full(size, np.inf)
        self._high = np.full(size, -np.inf)
        self._mean = np.full(size, np.nan)
        self._count = 0
        self._open: dict[int, RunningMeans] = {}

    def add(self, call: Call, block: Any) -> None:
        """Takes the next entries of a call; they stand side by side in the order given."""
        loss, weight = block["loss"].astype(np.float64), block["weight"].astype(np.float64)
        running = self._open.setdefault(call.number, RunningMeans())
        means = running.feed(loss, weight, block["epoch"])
        place = np.arange(self._count, self._count + len(loss))
        self._count += len(loss)
        if not self._whole:
            place = place * BUCKETS // self._steps
        finite = np.isfinite(loss)
        np.minimum.at(self._low, place[finite], loss[finite])
        np.maximum.at(self._high, place[finite], loss[finite])
        self._mean[place] = means  # of a bucket, its last

    def draw(self, axes: Any) -> None:
        """Draws them."""
        if not self._steps:
            return
        known = self._low <= self._high
        low, high = np.where(known, self._low, np.nan), np.where(known, self._high, np.nan)
        if self._whole:
            x = np.arange(self._steps)
            axes.plot(x, low, ".", color="C0", markersize=3, alpha=0.35, label="raw")
        else:
            x = np.arange(BUCKETS) * (self._steps / BUCKETS)
            label = f"raw: smallest to largest of {self._steps / BUCKETS:,.0f} steps a place"
            axes.fill_between(x, low, high, color="C0", alpha=0.35, linewidth=0, label=label)
        axes.plot(x, self._mean, color="C1", linewidth=1.2, label="running_mean")
