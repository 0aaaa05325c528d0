"""`run.json` and the lines of `calls.jsonl`, checked: what readers take for granted of them holds.

Whoever wrote them: a run may come from somebody else. Needs neither pyarrow nor numpy.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lossledger.errors import LossLedgerError
from lossledger.folder import read_lines

SHARED = 2
"""The format from which on a step may have several rows; see `lossledger.entry`."""

_MOST = 2**31


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MOST


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_table(value: Any) -> bool:
    return isinstance(value, dict)


def _is_number(value: Any) -> bool:
    """A number, or the text that stands for one that is not finite."""
    if isinstance(value, str):
        return value in ("nan", "inf", "-inf")
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_hash(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _are_states(value: Any) -> bool:
    """Whether it says of optimizers, by name, what they had come to."""
    return _is_table(value) and all(
        _is_table(each) and _is_count(each.get("iterations")) and _is_hash(each.get("variables"))
        for each in value.values()
    )


def _is_save(value: Any) -> bool:
    """Whether it says of a save how many steps came before, and which weights they were."""
    return (
        isinstance(value, list)
        and len(value) == 2
        and _is_count(value[0])
        and isinstance(value[1], str)
    )


_KINDS: Mapping[str, Callable[[Any], bool]] = {
    "call": _is_count,
    "model": _is_count,
    "attempt": _is_count,
    "steps_per_epoch": lambda value: _is_count(value) and value > 0,
    "driver": _is_text,
    "model_name": _is_text,
    "loss_name": _is_text,
    "weight_kind": _is_text,
    "history_is": lambda value: value is None or _is_text(value),
    "failed": _is_text,
    "arguments": _is_table,
    "configuration": _is_table,
    "output_weights": _is_table,
    "validation": _is_table,
    "initial_weights": _is_hash,
    "final_weights": _is_hash,
    "weights_file": _is_hash,
    "loads": lambda value: isinstance(value, list) and all(map(_is_count, value)),
    "saved": lambda value: isinstance(value, list) and all(map(_is_save, value)),
    "initial_optimizers": _are_states,
    "final_optimizers": _are_states,
    "reported": lambda value: isinstance(value, list) and all(map(_is_item, value)),
}

_ITEM: Mapping[str, Callable[[Any], bool]] = {
    "place": _is_text,
    "name": _is_text,
    "value": _is_number,
}


def _is_item(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and all(key in value and right(value[key]) for key, right in _ITEM.items())
        and (value.get("epoch") is None or isinstance(value["epoch"], int))
        and abs(value.get("epoch") or 0) < _MOST
        and _is_count(value.get("batch", 0))
        and _is_table(value.get("data", {}))
        and _is_hash(value.get("weights"))
    )


def _of(kind: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(kind, value))


def _or_none(kind: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or kind(value)


_RUN: Mapping[str, Callable[[Any], bool]] = {
    "id": _is_text,
    "name": _or_none(_is_text),
    "created": _or_none(_is_text),
    "complete": lambda value: isinstance(value, bool),
    "workers": _or_none(lambda value: _is_count(value) and 0 < value <= 10**6),
    "entries": _or_none(lambda value: isinstance(value, int) and 0 <= value < 2**62),
    "lines": _or_none(_is_count),
    "command": _or_none(_of(_is_text)),
    "device": _or_none(_is_text),
    "git": _or_none(_is_text),
    "versions": lambda value: _is_table(value) and all(map(_is_text, value.values())),
    "warnings": _of(_is_table),
    "unseen": _of(_is_table),
    "resumed": _of(_is_table),
    "environment": _is_table,
    "summary": lambda value: (
        _is_table(value)
        and _or_none(_is_number)(value.get("epoch_mean"))
        and all(_or_none(_is_count)(value.get(name)) for name in ("calls", "steps"))
    ),
}


def wrong(info: Mapping[str, Any]) -> str | None:
    """The first value of a `run.json` that is of another kind than it can be; `None` if none is."""
    for key, right in _RUN.items():
        if key in info and not right(info[key]):
            return f"{key} = {str(info[key])[:80]}"
    if info.get("workers") and info.get("format", 1) < SHARED:
        return f"workers = {info['workers']}, which format {info.get('format', 1)} doesn't have"
    return None


def call_lines(folder: Path, promised: int = 0) -> list[dict[str, Any]]:
    """The lines of a run's `calls.jsonl`, in order; a torn last one is left out.

    Args:
        folder: The run's folder.
        promised: How many there must be at least.

    Raises:
        LossLedgerError: A line is no record of a call, or there are fewer lines (slug
            `file-damaged`).
    """
    path = folder / "calls.jsonl"
    lines = read_lines(path)
    if len(lines) < promised:
        raise damaged(f"{path}: {len(lines)} of {promised} lines")
    for place, line in enumerate(lines, start=1):
        line.setdefault("call", 0)
        wrong = [key for key, right in _KINDS.items() if key in line and not right(line[key])]
        if wrong:
            raise damaged(f"{path}, line {place}: {wrong[0]} = {str(line[wrong[0]])[:80]}")
    return lines


def damaged(received: str) -> LossLedgerError:
    """The error that a file of a run does not hold what it can hold."""
    return LossLedgerError(
        f"The record of the run is damaged. Received: {received}. Restore the file from a copy.",
        slug="file-damaged",
    )
