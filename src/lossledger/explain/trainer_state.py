"""Hugging Face's `trainer_state.json`, or its `log_history` alone."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeGuard, cast

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
from lossledger.explain.source import NUMBERS, SERIES, Source
from lossledger.explain.train_loss import Windows

_ABOUT = ("step", "epoch")


class TrainerState(Kind):
    """The log history of a `transformers.Trainer`."""

    name = "trainer-state"

    def recognises(self, source: Source) -> bool:
        """An object with `log_history`, or a list of objects with steps."""
        opening = source.opening.lstrip()
        if opening.startswith("["):
            return opening[1:].lstrip().startswith("{") and _says(source, opening, '"step"')
        return opening.startswith("{") and _says(source, opening, '"log_history"')

    def read(self, source: Source, versions: Versions) -> Explained:
        """Reads it."""
        content = source.json()
        state: dict[str, Any] = content if isinstance(content, dict) else {}
        history: Any = state.get("log_history") if state else content
        if not isinstance(history, list):
            raise source.damaged("log_history is no list")
        logged = _logged(source, cast("list[Any]", history))
        if not any(is_loss(name) or name == "train_loss" for name in logged):
            raise source.unknown("a log history without a loss")
        series = [_series(name, of, versions) for name, of in logged.items()]
        notes = [*_windows(logged, state), *_total(logged)]
        return Explained(source.path, self.name, "transformers", losses_first(series), tuple(notes))


def _says(source: Source, opening: str, key: str) -> bool:
    """A key may stand behind a long `best_model_checkpoint`: newer files sort their keys."""
    return key in opening or key in source.text()


@dataclass
class _Logged:
    """The numbers logged under one name."""

    steps: list[int] = field(default_factory=list[int])
    values: list[float] = field(default_factory=list[float])


def _logged(source: Source, history: Sequence[Any]) -> dict[str, _Logged]:
    found: dict[str, _Logged] = {}
    count = 0
    for place, entry in enumerate(history):
        if not isinstance(entry, dict):
            raise source.damaged(f"entry {place:,} of the log history is no object")
        entry = cast("dict[str, Any]", entry)
        step = entry.get("step")
        if not isinstance(step, int) or not 0 <= step < 2**62:
            raise source.damaged(f"entry {place:,} of the log history has no step")
        for name, value in entry.items():
            if name in _ABOUT or not _is_number(value):
                continue
            of = found.setdefault(name, _Logged())
            of.steps.append(step)
            of.values.append(float(value))
            count += 1
        if count > NUMBERS or len(found) > SERIES:
            raise source.too_large(f"at most {NUMBERS:,} numbers under {SERIES:,} names are read")
    return found


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, float) or (isinstance(value, int) and abs(value) < 2**62)


def _series(name: str, logged: _Logged, versions: Versions) -> Series:
    steps, values = logged.steps, logged.values
    if name == "loss":
        return window_series(name, steps, values, rows(versions, "history", "transformers"))
    if name == "train_loss":
        said = rows(versions, "training", "transformers")
        return epoch_series(name, steps, values, said, "step").saying(
            [], ["the loss of any step, or of any stretch of them: it is one mean over all"]
        )
    if name.startswith("eval_") and is_loss(name):
        return epoch_series(name, steps, values, rows(versions, "evaluate", "transformers"), "step")
    return epoch_series(name, steps, values, (), "step")


def window_series(
    name: str, steps: Sequence[int], values: Sequence[float], said: tuple[Convention, ...]
) -> Series:
    """A series of means over the steps since the last one, as `Trainer` logs them."""
    windows = _sizes(steps)
    usual = int(np.median(windows)) if windows else 0
    said = tuple(replace(row, parameters={"n": usual}) for row in said)
    series = epoch_series(name, steps, values, said, "step")
    finite = np.array([v for v in values if math.isfinite(v)])
    if not len(finite):
        return series
    hidden = sum(size - 1 for size in windows)
    recoverable = [precision(finite)]
    if len(finite) == len(windows) > 1:
        mean = float(np.average(values, weights=windows))
        recoverable.append(
            f"the mean over all {sum(windows):,} steps, {mean:.7g}, windows weighted by their steps"
        )
    lost = ["how a window's micro-batches were weighted (by tokens, or each the same)"]
    if hidden:
        lost.insert(
            0,
            f"the loss of each of {sum(windows):,} steps: logging_steps hides them in windows of "
            f"{usual:,}; logging_steps=1 would keep them",
        )
    return series.saying(recoverable, lost)


def _sizes(steps: Sequence[int]) -> list[int]:
    """Steps that each logged mean is over."""
    return [after - before for before, after in zip([0, *steps], steps, strict=False)]


def _windows(logged: dict[str, _Logged], state: dict[str, Any]) -> Iterator[str]:
    steps = logged["loss"].steps if "loss" in logged else []
    sizes = _sizes(steps)
    if any(size <= 0 for size in sizes):
        yield "steps go back or repeat: the history holds several trainings, or a resumed one"
        return
    if sizes:
        usual = int(np.median(sizes))
        odd = [f"{at:,} ({size:,})" for at, size in zip(steps, sizes, strict=True) if size != usual]
        if odd:
            yield (
                f"not all windows are of {usual:,} steps: those that end at step "
                f"{', '.join(odd[:6])}{' ...' if len(odd) > 6 else ''} are shorter or longer"
            )
    total = state.get("global_step")
    if isinstance(total, int) and steps and total > steps[-1]:
        yield f"steps {steps[-1] + 1:,} to {total:,} are in no logged mean"


def _total(logged: dict[str, _Logged]) -> Iterator[str]:
    loss, total = logged.get("loss"), logged.get("train_loss")
    if loss is None or total is None or len(total.values) != 1:
        return
    sizes = _sizes(loss.steps)
    if sizes and min(sizes) > 0 and all(map(math.isfinite, (*total.values, *loss.values))):
        yield from Windows(loss.steps, sizes, loss.values).told(total.steps[0], total.values[0])
