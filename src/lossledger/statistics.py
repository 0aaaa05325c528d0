"""Statistics: named folds over the entries of training steps.

`STATISTICS` names what tools report under "loss"; each is a function from a loss, a weight and
an epoch a step to a float64 series, one number a step or an epoch. `Mean` and `Summary` are the
values that merge over segments and workers. `keras_mean` repeats Keras's float32 accumulators.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lossledger import series
from lossledger.errors import LossLedgerError
from lossledger.series import Steps
from lossledger.totals import Mean, Summary
from lossledger.vectors import Floats

__all__ = ["STATISTICS", "Mean", "Parameter", "Statistic", "Summary", "keras_mean", "named"]


@dataclass(frozen=True)
class Parameter:
    """A parameter of a statistic: its default, and what it accepts."""

    default: Any
    accepts: Callable[[Any], bool]
    wanted: str


@dataclass(frozen=True)
class Statistic:
    """A named fold over entries.

    Args:
        name: As `run.statistic(name)` and `--statistic name` take it.
        per: Whether there is one number a step or an epoch.
        meaning: What it is, in one sentence.
        formula: For losses l, weights w, step k of the epoch (from 1), n its steps.
        source: Which public code defines it.
        fold: The function behind it.
        parameters: Its parameters by name.
    """

    name: str
    per: Literal["step", "epoch"]
    meaning: str
    formula: str
    source: str
    fold: Callable[..., Floats]
    parameters: Mapping[str, Parameter] = field(default_factory=dict[str, Parameter])

    def looks_back(self, parameters: Mapping[str, Any]) -> bool:
        """Whether it takes entries from before the epoch."""
        if self.name == "ema":
            return not parameters.get("reset", False)
        return self.name in ("cumulative_mean", "window_mean")

    def __call__(
        self, loss: ArrayLike, weight: ArrayLike, epoch: ArrayLike, **parameters: Any
    ) -> Floats:
        """Compute the statistic.

        Args:
            loss: (steps,), converted to float64.
            weight: (steps,), converted to float64.
            epoch: (steps,) integers that never go back; they need not start at 0.
            **parameters: Those that this statistic has.

        Returns:
            float64, (steps,) or (epochs,) after `per`.

        Raises:
            LossLedgerError: Unusable columns, or a parameter that this statistic doesn't take.
        """
        for name, value in parameters.items():
            parameter = self.parameters.get(name)
            if parameter is None or not parameter.accepts(value):
                wanted = parameter.wanted if parameter else f"one of {sorted(self.parameters)}"
                raise LossLedgerError(
                    f"Statistic {self.name!r} can't take this parameter. "
                    f"Received: {name}={value!r}. Pass {wanted}.",
                    slug="statistic-parameter",
                    exit_code=2,
                )
        defaults = {name: parameter.default for name, parameter in self.parameters.items()}
        return self.fold(Steps.of(loss, weight, epoch), **(defaults | parameters))


def _positive(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and int(value) > 0


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _is_beta(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1


_ALL = (
    Statistic(
        "raw",
        "step",
        "The loss that each step computed.",
        "l_k",
        "the entry itself; Keras from 3.15 returns it from train_on_batch",
        series.raw,
    ),
    Statistic(
        "running_mean",
        "step",
        "Weighted mean over the epoch so far: Keras's batch logs, and its bar from 3.15.",
        "sum(w_1 l_1 .. w_k l_k) / sum(w_1 .. w_k)",
        "keras/src/metrics/reduction_metrics.py (Mean), reset at each epoch by fit",
        series.running_mean,
    ),
    Statistic(
        "epoch_mean",
        "epoch",
        "Weighted mean over the epoch: the loss in Keras's History.",
        "sum(w l) / sum(w)",
        "keras/src/metrics/reduction_metrics.py (Mean), read at the epoch's end by fit",
        series.epoch_mean,
    ),
    Statistic(
        "batch_mean",
        "epoch",
        "Plain mean of the epoch's batch losses: a list and np.mean.",
        "sum(l) / n",
        "numpy.mean; keras/src/trainers/trainer.py before 3.2",
        series.batch_mean,
    ),
    Statistic(
        "cumulative_mean",
        "step",
        "Weighted mean over all steps so far, never reset.",
        "sum(w l) / sum(w) since the first step",
        "train_on_batch in Keras before 3.15 (keras-team/keras#22617)",
        series.cumulative_mean,
    ),
    Statistic(
        "progress_bar",
        "step",
        "Mean of running means: Keras's progress bar before 3.15, as it stands after each step.",
        "sum(b_1 m_1 .. b_k m_k) / sum(b_1 .. b_k), m the running means, b steps since the update "
        "before; at k = n: (m_1 + .. + m_n + m_n) / (n + 1) if counted, m_n if replaced",
        "keras/src/utils/progbar.py, keras/src/callbacks/progbar_logger.py",
        series.progress_bar,
        {
            "finalize": Parameter(
                "counted",
                lambda value: value in ("counted", "replaced", "none"),
                '"counted" (Keras to 3.10), "replaced" (3.11 to 3.14) or "none" (unfinished)',
            ),
            "steps_per_execution": Parameter(1, _positive, "a positive integer"),
        },
    ),
    Statistic(
        "window_mean",
        "step",
        "Plain mean of the last n batch losses, over epochs; of fewer at the start.",
        "sum(l_(k-n+1) .. l_k) / n",
        "Hugging Face Trainer (logging_steps), PyTorch Lightning before 2.0 (bar, n = 20)",
        series.window_mean,
        {"n": Parameter(100, _positive, "a positive integer")},
    ),
    Statistic(
        "ema",
        "step",
        "Exponential moving average of batch losses, over epochs unless reset.",
        "v_k = beta v_(k-1) + (1 - beta) l_k; debiased: v_0 = 0 and v_k / (1 - beta^k); "
        "else v_1 = l_1",
        "fastai/learner.py (AvgSmoothLoss); ignite/metrics/running_average.py (not debiased)",
        series.ema,
        {
            "beta": Parameter(0.98, _is_beta, "a number from 0 up to, but not, 1"),
            "debias": Parameter(True, _is_bool, "True or False"),
            "reset": Parameter(False, _is_bool, "True or False"),
        },
    ),
    Statistic(
        "last",
        "epoch",
        "The last step's loss of each epoch.",
        "l_n",
        "keras/src/trainers/trainer.py (_get_metrics_result_or_logs) for a custom train_step",
        series.last,
    ),
)

STATISTICS: Mapping[str, Statistic] = {statistic.name: statistic for statistic in _ALL}
"""The statistics by name. `evaluate` is measured, not folded, and so is none of them."""


def named(name: str, also: Iterable[str] = ("evaluate",)) -> Statistic:
    """The statistic of that name.

    Args:
        name: The name.
        also: What may be asked for in its place, and is none.

    Raises:
        LossLedgerError: There is none.
    """
    if name not in STATISTICS:
        choices = ", ".join([*STATISTICS, *also])
        raise LossLedgerError(
            f"No such statistic. Received: {name!r}. Choose one of {choices}.",
            slug="unknown-statistic",
            exit_code=2,
        )
    return STATISTICS[name]


def keras_mean(loss: ArrayLike, weight: ArrayLike, epoch: ArrayLike) -> NDArray[np.float32]:
    """The epoch means that Keras's float32 accumulators give, step by step, rounding included.

    As in `keras.metrics.Mean` (`keras/src/metrics/reduction_metrics.py`), all in float32:
    `total += loss * weight; count += weight; divide_no_nan(total, count)`, reset each epoch.
    What a compiler may do (a fused multiply-add, a shared accumulator of replicas) is not
    repeated.

    Args:
        loss: (steps,), rounded to float32.
        weight: (steps,), rounded to float32.
        epoch: (steps,) integers that never go back.

    Returns:
        float32 (epochs,).
    """
    steps = Steps.of(loss, weight, epoch)
    with np.errstate(all="ignore"):
        weights = steps.weight.astype(np.float32)
        products = steps.loss.astype(np.float32) * weights
        begins = steps.first[steps.ends]
        sums = np.empty((2, len(begins)), np.float32)
        for index, (begin, end) in enumerate(zip(begins, steps.ends + 1, strict=True)):
            for row, addends in enumerate((products, weights)):
                # Sequential: reduce would sum pairwise and round otherwise.
                sums[row, index] = np.add.accumulate(addends[begin:end], dtype=np.float32)[-1]
        return np.where(sums[1] == 0, np.float32(0), sums[0] / sums[1])
