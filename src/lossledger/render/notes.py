"""In words: which statistic a reported number is, and how far it is from the entries."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from lossledger.render.figures import difference
from lossledger.run import Reported
from lossledger.statistics import STATISTICS
from lossledger.words import counted

NOTES = 8
"""Notes of one kind, at most."""

EPOCHS_FROM = {
    "said": "as said by the script or by --steps-per-epoch",
    "batch_id": "found in the data: each begins where the same rows begin again",
    "none": "not known: the data show no second pass over the same rows, so all steps stand as "
    "epoch 0; --steps-per-epoch N says how long one is",
}
"""How the epochs of a call are known, where its driver has not counted them."""

_AGREEMENTS = {
    "differs": ("is off by", "are off by"),
    "rounding": ("is off by rounding,", "are off by rounding,"),
    "equal": ("equals", "equal"),
}
_PLACES = {
    "history": "{name} in History",
    "returned": "{name} as train_on_batch returned it",
    "validation": "{name}",
    "evaluate": "{name} as evaluate returned it",
    "tested": "{name} as test_on_batch returned it",
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
            yield f"and {counted(len(groups) - NOTES, 'name')} more: run.reported() has them all"
            return
        yield _note(*key, items, keras)


def _note(place: str, name: str, items: Sequence[Reported], keras: Any) -> str:
    numbers = sum(item.count for item in items)
    where = _PLACES.get(place, "{name} in {place}").format(name=name, place=place)
    stated = [item for item in items if item.agreement is not None]
    if not stated:
        return f"{where}: {counted(numbers, 'number')}. {items[-1].why}"
    kind = STATISTICS.get(items[0].statistic or "")
    under = f"Keras {keras}" if keras else "Keras"
    formula = f" = {kind.formula}" if kind else ""
    what = f"{where} is {items[0].statistic}{formula} under {under}"
    if len(items) == 1 and numbers > 1:  # folded already
        return f"{what}. {_alone(items[0])}"
    if len(items) == 1:
        return f"{what}: {difference(items[0].difference)} from the entries. {items[0].why}"
    return f"{what}: {counted(numbers, 'number')}. {_together(stated)}"


def _alone(item: Reported) -> str:
    """A series of returned values, of which the worst is known."""
    if item.difference == 0:
        return item.why
    return f"{item.why} The furthest is {difference(item.difference)} from its entry."


def _together(stated: Sequence[Reported]) -> str:
    """A sentence for each way in which numbers agree or don't, with the furthest of each."""
    parts: list[str] = []
    for agreement, words in _AGREEMENTS.items():
        items = [each for each in stated if each.agreement == agreement]
        if not items:
            continue
        several = len(items) > 1
        every = several and len(items) == len(stated)
        number = f"{'All' if every else f'{len(items):,}'} {words[several]}"
        if agreement == "equal":
            parts.append(f"{number} the entries' value, rounded to float32.")
        else:
            worst = max(items, key=lambda item: _size(item.difference))
            most = "at most " if several else ""
            gap = f"{most}{difference(worst.difference)}, in epoch {worst.epoch}"
            parts.append(f"{number} {gap}. {worst.why}")
    return " ".join(parts)


def _size(value: float | None) -> float:
    return math.inf if value is None or math.isnan(value) else abs(value)
