"""In words: which statistic a reported number is, and how far it is from the entries."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from lossledger.render.figures import count, difference
from lossledger.run import Reported
from lossledger.statistics import STATISTICS

NOTES = 8
"""Notes of one kind, at most."""

_PLACES = {
    "history": "{name} in History",
    "returned": "{name} as train_on_batch returned it",
    "validation": "{name}",
    "evaluate": "{name} as evaluate returned it",
}


def notes(reported: Sequence[Reported], keras: Any) -> Iterator[str]:
    """What the numbers are that a call reported, a note for each name in each place.

    Args:
        reported: The numbers.
        keras: The version of the Keras that reported them, or None.
    """
    groups: dict[tuple[str, str], list[Reported]] = {}
    for item in reported:
        groups.setdefault((item.place, item.name), []).append(item)
    for place, (key, items) in enumerate(groups.items()):
        if place == NOTES:
            yield f"and {count(len(groups) - NOTES, 'name')} more: run.reported() has them all"
            return
        yield _note(*key, items, keras)


def _note(place: str, name: str, items: Sequence[Reported], keras: Any) -> str:
    numbers = count(sum(item.count for item in items), "number")
    where = _PLACES.get(place, "{name} in {place}").format(name=name, place=place)
    stated = [item for item in items if item.stated is not None and item.difference is not None]
    if not stated:
        return f"{where}: {numbers}. {items[-1].why}"
    kind = STATISTICS.get(items[0].statistic or "")
    under = f"Keras {keras}" if keras else "Keras"
    what = f"{where} is {items[0].statistic} under {under}"
    formula = f" ({kind.formula})" if kind else ""
    others = [item for item in stated if not _rounds(item)]
    if not others and len(items) > 1:
        return f"{what}{formula}: {numbers}, all equal to the entries' value rounded to float32."
    worst = max(others or stated, key=lambda item: _size(item.difference))
    if len(items) == 1:
        most = "at most " if worst.count > 1 else ""
        return f"{what}{formula}: {numbers}, {most}{_gap(worst)} from the entries. {worst.why}"
    equal = f"{len(stated) - len(others):,} equal to the entries' value rounded to float32"
    furthest = f"the furthest of the others is {_gap(worst)} from it, in epoch {worst.epoch}"
    return f"{what}{formula}: {numbers}, {equal}; {furthest}. {worst.why}"


def _gap(item: Reported) -> str:
    return difference(item.difference)


def _rounds(item: Reported) -> bool:
    """Whether the number is its statement, as float32 can say it."""
    with np.errstate(over="ignore"):
        return item.difference == 0 or np.float32(item.value) == np.float32(item.stated or 0.0)


def _size(value: float | None) -> float:
    return math.inf if value is None or math.isnan(value) else abs(value)
