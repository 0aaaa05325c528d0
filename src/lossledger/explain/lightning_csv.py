"""PyTorch Lightning's `metrics.csv`: a row a logging, most of its cells blank."""

from collections.abc import Sequence

import numpy as np

from lossledger.conventions import Convention
from lossledger.explain.explained import Explained, Series
from lossledger.explain.kind import (
    Kind,
    Versions,
    epoch_series,
    is_loss,
    losses_first,
    precision,
    rows,
)
from lossledger.explain.source import Source
from lossledger.explain.table import header_of, numbers, read_table, whole_numbers

_HELD_OUT = ("val", "valid", "validation", "test", "eval")


class LightningCsv(Kind):
    """`lightning.pytorch.loggers.CSVLogger`."""

    name = "lightning-csv"

    def recognises(self, source: Source) -> bool:
        """Columns `epoch` and `step`, and another."""
        header = header_of(source.opening)
        return {"epoch", "step"} < set(header)

    def read(self, source: Source, versions: Versions) -> Explained:
        """Reads it."""
        table = read_table(source)
        steps = whole_numbers(source, "step", table.column("step"))
        # Blank where a row was logged by the program itself, with a step of its own.
        told = numbers(table.column("epoch"))
        epochs = whole_numbers(source, "epoch", [str(v) for v in told[1]]) if told else []
        epoch_at = dict(zip(told[0] if told else [], epochs, strict=True))
        found: list[Series] = []
        notes = list(table.notes)
        for name in table.header:
            if name in ("epoch", "step"):
                continue
            read = numbers(table.column(name))
            if read is None:
                notes.append(f"{name} is left out: not all of it is numbers")
                continue
            places, values = read
            at = [steps[place] for place in places]
            labels = [epoch_at.get(place, -1) for place in places]
            found.append(lightning_series(name, at, labels, values, versions))
        return Explained(source.path, self.name, "lightning", losses_first(found), tuple(notes))


def lightning_series(
    name: str,
    steps: Sequence[int],
    epochs: Sequence[int],
    values: Sequence[float],
    versions: Versions,
) -> Series:
    """What a logged name is: by its ending, or by how often it was logged.

    Args:
        name: As `self.log` was given it, with Lightning's ending.
        steps: The step of each number, from 0.
        epochs: The epoch of each number; -1 where it is not known.
        values: The numbers.
        versions: Versions that are known.
    """
    base = name.removesuffix("_step").removesuffix("_epoch")
    if not is_loss(base):
        return epoch_series(name, steps, values, (), "step")
    if any(part in _HELD_OUT for part in base.lower().replace("/", "_").split("_")):
        return epoch_series(name, steps, values, rows(versions, "evaluate", "lightning"), "step")
    once = len(set(epochs)) == len(epochs)
    if name.endswith("_epoch"):
        said = rows(versions, "history", "lightning")
        if once:
            return epoch_series(name, epochs, values, said)
        return epoch_series(name, steps, values, said, "step")
    if name.endswith("_step") or not once:
        return step_series(name, steps, values, rows(versions, "batch_logs", "lightning"))
    series = epoch_series(name, steps, values, (), "step")
    return series.saying(
        [],
        [
            "whether it is the loss of one step or the epoch's mean: it was logged once an epoch, "
            "which on_step with few steps and on_epoch both do"
        ],
    )


def step_series(
    name: str, steps: Sequence[int], values: Sequence[float], said: tuple[Convention, ...]
) -> Series:
    """Raw losses of some steps: what the steps between them hide."""
    series = epoch_series(name, steps, values, said, "step")
    finite = series.values[np.isfinite(series.values)]
    known = [precision(series.values)] if len(finite) else []
    strides = np.diff(series.steps)
    stride = int(np.median(strides)) if len(strides) else 1
    lost = ["epoch_mean and batch_mean, unless every step is there: each takes all of them"]
    if stride > 1:
        seen, spanned = len(series.steps), int(series.steps[-1]) + 1
        lost.insert(
            0,
            f"{spanned - seen:,} of the {spanned:,} steps up to the last one here: one in "
            f"{stride:,} was logged (log_every_n_steps)",
        )
    else:
        known.append(f"the loss of each of these {len(finite):,} steps, as it was computed")
    return series.saying(known, lost)
