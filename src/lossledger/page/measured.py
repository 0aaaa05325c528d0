"""Losses of weights held fixed, with the place in the training where they were measured."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lossledger.call import Call
from lossledger.entry import OF_EPOCHS
from lossledger.page.track import Stated


@dataclass(frozen=True)
class Measured:
    """One such loss.

    Args:
        name: `evaluate`, or a validation loss by its name.
        at: Entries of the track before it.
        value: The loss.
    """

    name: str
    at: int
    value: float


def measured(calls: list[Call], stated: Stated) -> tuple[list[Measured], int]:
    """The losses that `evaluate` and the validation of `fit` gave for one model.

    Returns:
        Those whose place is known, and how many others there are: in a series of `train_on_batch`
        nothing says after which step an `evaluate` came.
    """
    found: list[Measured] = []
    lost = 0
    ends = {
        (call.number, each.epoch): (int(stated.begins[place]), int(stated.begins[place + 1]))
        for place, (call, each) in enumerate(stated.epochs)
    }
    end = 0
    for call in calls:
        end += call.steps
        items = [(item, _place(item, call, ends)) for item in _losses(call)]
        unplaced = sum(at is None for _, at in items)
        # After a fit comes after its end; of a series, the last one alone is known to.
        known = call.driver in OF_EPOCHS or unplaced == 1
        lost += 0 if known else unplaced
        for item, at in items:
            if at is not None or known:
                name = "evaluate" if item["place"] == "evaluate" else str(item["name"])
                found.append(Measured(name, end if at is None else at, float(item["value"])))
    return found, lost


def _losses(call: Call) -> Iterator[Mapping[str, Any]]:
    wanted = {"evaluate": ("loss", call.loss_name), "validation": (f"val_{call.loss_name}",)}
    for item in call.reported:
        if item.get("name") in wanted.get(str(item.get("place")), ()):
            yield item


def _place(
    item: Mapping[str, Any], call: Call, ends: Mapping[tuple[int, int], tuple[int, int]]
) -> int | None:
    """Entries before the item; `None` where only the order of calls tells."""
    span = ends.get((call.number, -1 if item.get("epoch") is None else int(item["epoch"])))
    if span is None:
        return None
    return min(span[0] + int(item["batch"]), span[1]) if item.get("batch") is not None else span[1]
