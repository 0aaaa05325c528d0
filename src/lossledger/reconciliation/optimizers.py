"""Optimizers' state: whether two trainings went on from the same moments, counts and averages."""

import math
from collections.abc import Mapping
from typing import Any, TypeAlias

from lossledger.call import Call
from lossledger.reconciliation.pair import Pair
from lossledger.reconciliation.reading import Reading
from lossledger.words import counted

States: TypeAlias = Mapping[str, Mapping[str, Any]]
"""What optimizers have come to, by name: `iterations`, and `variables`, a fingerprint."""


def other_state(pair: Pair, before: float = math.inf) -> str:
    """Where the optimizers of two trainings were not in the same state, as one sentence.

    At the start of what both train, or at a call that went on with an optimizer made anew, as
    `compile` makes it, or read from a file, where the other's training went on with its own.

    Args:
        pair: The two.
        before: Only states that steps before this one of the training started from.

    Returns:
        The last such place; "" where none is on record, as in runs that keep no such states.
    """
    ahead = pair.begins or (0, 0)
    start = max(ahead)
    sides = [("a", pair.a, ahead[0]), ("b", pair.b, ahead[1])]
    found = ""
    if start < before:
        ours, theirs = (_state_at(reading, start - offset) for _, reading, offset in sides)
        found = _told(ours, theirs, ("a", "b"), f"before step {start:,}", counts(pair))
    breaks = [_breaks(reading, offset, counts(pair)) for _, reading, offset in sides]
    for place in sorted({*breaks[0], *breaks[1]}):
        if start < place < before:
            broke = [each.get(place) for each in breaks]
            if None in broke:
                found = f"in {'b' if broke[0] is None else 'a'}, {broke[0] or broke[1]}"
    return found


def counts(pair: Pair) -> bool:
    """Whether a learning rate follows from the count of updates: a schedule's."""
    return any(
        isinstance(optimizer.get("learning_rate"), Mapping)
        for reading in (pair.a, pair.b)
        for optimizer in [reading.call.configuration.get("optimizer")]
        if isinstance(optimizer, Mapping)
    )


def _states(call: Call, which: str) -> States:
    return call.info.get(f"{which}_optimizers") or {}


def _breaks(reading: Reading, offset: int, by_count: bool) -> dict[int, str]:
    """Where a call didn't go on from the state that the one before had ended with."""
    found: dict[int, str] = {}
    place = offset
    for last, call in zip(reading.calls, reading.calls[1:], strict=False):
        place += last.steps
        ends = f"when call {last.number} ended", f"when call {call.number} began"
        told = _told(_states(last, "final"), _states(call, "initial"), ends, "", by_count)
        if told:
            found[place] = told
    return found


def _state_at(reading: Reading, place: int) -> States:
    """The state before a step of a training: of one inside a call the counts alone."""
    for call in reading.calls:
        first = _states(call, "initial")
        if place == 0:
            return first
        if place < call.steps:
            return {
                name: {"iterations": state["iterations"] + place}
                | ({"variables": None} if "variables" in last else {})
                for name, state in first.items()
                for last in [_states(call, "final").get(name) or {}]
                if last.get("iterations") == state["iterations"] + call.steps  # all were counted
            }
        place -= call.steps
    return {}


def _told(a: States, b: States, who: tuple[str, str], when: str, by_count: bool) -> str:
    """What of two states is not the same, in words; "" where nothing that is known is."""
    for name in a.keys() & b.keys():
        ours, theirs = a[name], b[name]
        stateful = by_count or "variables" in ours or "variables" in theirs
        numbers = [int(each["iterations"]) for each in (ours, theirs)]
        prints = [each.get("variables") or "" for each in (ours, theirs)]
        known = "the optimizer" if name == "optimizer" else name
        head = f"{when} {known}".strip() + f" had made {counted(numbers[0], 'update')}"
        if stateful and numbers[0] != numbers[1]:
            return f"{head} {_in(who[0])}, and {numbers[1]:,} {_in(who[1])}"
        if numbers[0] and all(prints) and prints[0] != prints[1]:
            marks = [f"{mark[:8]} {_in(each)}" for mark, each in zip(prints, who, strict=True)]
            return f"{head}, but holds other values: fingerprints {' and '.join(marks)}"
    return ""


def _in(who: str) -> str:
    return f"in {who}" if len(who) == 1 else who
