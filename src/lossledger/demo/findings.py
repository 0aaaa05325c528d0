"""What the recorded programs show, in numbers; all of them folds over the runs' entries."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lossledger import catalog
from lossledger import run as runs
from lossledger.demo.programs import DROPPED, EPOCHS, FIT, RAW, UNSHUFFLED, Recorded
from lossledger.run import EpochStatement, Run
from lossledger.statistics import STATISTICS
from lossledger.vectors import Floats

TOLERANCE = 1e-6
"""How far a printed loss may be from a statistic: it has six decimals, summed up in float32."""


@dataclass(frozen=True)
class Statement:
    """A run's last epoch, beside what its program printed.

    Args:
        name: What the run is called.
        program: The program's file.
        option: Its option, or "".
        path: The run's folder.
        shown: What to call the run on a command line: the folder, or a shorter name.
        printed: Every training loss that it printed.
        statistics: Names of the statistics that `printed` is, number by number.
        epochs: How many epochs the run has.
        last: The statement of the last one.
    """

    name: str
    program: str
    option: str
    path: str
    shown: str
    printed: Sequence[float]
    statistics: Sequence[str]
    epochs: int
    last: EpochStatement


@dataclass(frozen=True)
class Gap:
    """Why `train_on_batch_epochs` printed another number than `fit_average`; both causes add up.

    Args:
        total: Last `batch_mean` of the one less the last `epoch_mean` of the other.
        weighting: Of `train_on_batch_epochs`: `batch_mean - epoch_mean`.
        order: The `epoch_mean` of the one less that of the other: they shuffle differently.
    """

    total: float
    weighting: float
    order: float


@dataclass(frozen=True)
class Calm:
    """Raw losses against their running mean, in `train_on_batch_raw`; and in `fit`'s epochs.

    Args:
        low: Smallest raw loss.
        high: Largest raw loss.
        std: Standard deviation of the raw losses.
        running_std: That of their running mean.
        ratio: `std / running_std`.
        fit_ratio: The same of root mean squares over the epochs of `fit_average`.
    """

    low: float
    high: float
    std: float
    running_std: float
    ratio: float
    fit_ratio: float


@dataclass(frozen=True)
class Remainder:
    """What the small last batch weighs in the last epoch of `fit_average`.

    Args:
        epoch_mean: Mean weighted by rows.
        batch_mean: Plain mean of the batches.
        gap: `batch_mean - epoch_mean`.
        batches: How many batches there are.
        rows: Rows of the last batch.
        loss: Loss of the last batch.
        plain_share: Its share of the plain mean.
        rows_share: Its share of the mean weighted by rows.
    """

    epoch_mean: float
    batch_mean: float
    gap: float
    batches: int
    rows: int
    loss: float
    plain_share: float
    rows_share: float


@dataclass(frozen=True)
class Dropped:
    """What dropping the remainder changed in the last epoch, in plain means of batches.

    Args:
        rows: Rows of an epoch that are dropped.
        whole: `train_on_batch_epochs`: all its batches.
        without_last: The same losses without the last batch's.
        trained_without: `--drop-remainder`: all its batches.
        in_mean: `without_last - whole`: the same training, another mean.
        in_training: `trained_without - without_last`: the same mean, another training.
        equal_steps: With how many equal losses, bit by bit, the two runs begin.
    """

    rows: int
    whole: float
    without_last: float
    trained_without: float
    in_mean: float
    in_training: float
    equal_steps: int


@dataclass(frozen=True)
class Pair:
    """Two losses, and how far the second is from the first.

    Args:
        a: The first.
        b: The second.
        gap: `b - a`.
    """

    a: float
    b: float
    gap: float


@dataclass(frozen=True)
class Findings:
    """All that the demonstration says.

    Args:
        backend: What Keras ran on.
        keras: Keras's version.
        directory: The folder of runs.
        programs: The folder of the programs.
        trainings: A statement a training, by name.
        progress: How far `fit`'s average moved from one epoch to the next, in the mean.
        gap: Why two averages of one training differ.
        calm: How much calmer an average looks.
        remainder: The weight of the last batch.
        dropped: The cost of dropping the remainder.
        order: Last `epoch_mean` of `train_on_batch_epochs`, shuffled (a) and not (b).
        final: `fit`'s last average (a), and the loss of the final weights as measured (b).
    """

    backend: str
    keras: str
    directory: str
    programs: str
    trainings: Mapping[str, Statement]
    progress: float
    gap: Gap
    calm: Calm
    remainder: Remainder
    dropped: Dropped
    order: Pair
    final: Pair

    def plain(self) -> dict[str, Any]:
        """The same in dictionaries, lists, numbers and texts."""
        return dataclasses.asdict(self)


def find(recorded: Sequence[Recorded], *, backend: str, directory: str, programs: str) -> Findings:
    """Reads the runs of the demonstration.

    Args:
        recorded: One of each training.
        backend: What Keras ran on.
        directory: The folder of runs.
        programs: The folder of the programs.
    """
    opened = {each.training.name: runs.open(each.path) for each in recorded}
    statements = {each.training.name: _state(each, opened[each.training.name]) for each in recorded}
    fit, epochs = opened[FIT.name], opened[EPOCHS.name]
    means = fit.statistic("epoch_mean")
    order = (run.statistic("epoch_mean")[-1] for run in (epochs, opened[UNSHUFFLED.name]))
    return Findings(
        backend=backend,
        keras=str(fit.info.get("versions", {}).get("keras", "")),
        directory=directory,
        programs=programs,
        trainings=statements,
        progress=float(means[-1] - means[0]) / (len(means) - 1),
        gap=_gap(epochs, fit),
        calm=_calm(opened[RAW.name], fit),
        remainder=_remainder(fit),
        dropped=_dropped(epochs, opened[DROPPED.name]),
        order=_pair(*order),
        final=_pair(means[-1], fit.statistic("evaluate")[-1]),
    )


def _state(recorded: Recorded, run: Run) -> Statement:
    training = recorded.training
    # What `fit_average` says of its final weights is no loss of a training step.
    printed = [value for what, value in recorded.printed if not what.startswith("final")]
    epochs = run.epochs()
    return Statement(
        name=training.name,
        program=f"{training.program}.py",
        option=training.option,
        path=str(recorded.path),
        shown=_shown(recorded),
        printed=printed,
        statistics=_printed_as(printed, run, len(epochs)),
        epochs=len(epochs),
        last=epochs[-1],
    )


def _shown(recorded: Recorded) -> str:
    """The run's own name does where it means this one."""
    name = recorded.path.parent / recorded.training.name
    return str(name if catalog.find(name) == recorded.path else recorded.path)


def _printed_as(printed: Sequence[float], run: Run, epochs: int) -> list[str]:
    """The statistics that some printed losses are: of each step, of each epoch or of the last."""
    per = "step" if len(printed) > epochs else "epoch"
    found: list[str] = []
    for name in [name for name, statistic in STATISTICS.items() if statistic.per == per]:
        values = run.statistic(name)[-len(printed) :]
        if len(values) == len(printed) and _equal(values, printed):
            found.append(name)
    return found


def _equal(values: Floats, printed: Sequence[float]) -> bool:
    return bool((np.abs(values - np.array(printed)) <= TOLERANCE).all())


def _gap(epochs: Run, fit: Run) -> Gap:
    one, other = epochs.epochs()[-1], fit.epochs()[-1]
    return Gap(
        total=one.batch_mean - other.epoch_mean,
        weighting=one.batch_mean - one.epoch_mean,
        order=one.epoch_mean - other.epoch_mean,
    )


def _calm(raw: Run, fit: Run) -> Calm:
    one, epochs = raw.epochs()[-1], fit.epochs()
    squares = [np.mean([e.std**2 for e in epochs]), np.mean([e.running_std**2 for e in epochs])]
    return Calm(
        low=one.min,
        high=one.max,
        std=one.std,
        running_std=one.running_std,
        ratio=one.std / one.running_std,
        fit_ratio=float(np.sqrt(squares[0] / squares[1])),
    )


def _remainder(fit: Run) -> Remainder:
    last = fit.epochs()[-1]
    rows = int(fit.entries(["rows"], epoch=-1)["rows"][-1].as_py())
    return Remainder(
        epoch_mean=last.epoch_mean,
        batch_mean=last.batch_mean,
        gap=last.batch_mean - last.epoch_mean,
        batches=last.steps,
        rows=rows,
        loss=last.last,
        plain_share=1 / last.steps,
        rows_share=rows / last.rows,
    )


def _dropped(whole: Run, dropped: Run) -> Dropped:
    losses, without = whole.losses(epoch=-1), dropped.losses(epoch=-1)
    means = [float(np.mean(each)) for each in (losses, losses[: len(without)], without)]
    every, others = whole.losses(), dropped.losses()
    shorter = min(len(every), len(others))
    differs = np.flatnonzero(every[:shorter] != others[:shorter])
    return Dropped(
        rows=whole.epochs()[-1].rows - dropped.epochs()[-1].rows,
        whole=means[0],
        without_last=means[1],
        trained_without=means[2],
        in_mean=means[1] - means[0],
        in_training=means[2] - means[1],
        equal_steps=int(differs[0]) if len(differs) else shorter,
    )


def _pair(a: float, b: float) -> Pair:
    return Pair(float(a), float(b), float(b - a))
