"""Keras's History as JSON: lists of numbers, or an object an epoch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from lossledger.explain.explained import Explained, Series
from lossledger.explain.keras_files import CUSTOM, keras_rows
from lossledger.explain.kind import Kind, Versions, epoch_series, is_loss, losses_first
from lossledger.explain.source import NUMBERS, SERIES, Source
from lossledger.explain.table import number

COLLECTED = (
    "numbers that a callback collected batch by batch look the same in JSON: they would be "
    "batch_logs, which are running_mean in Keras 3"
)


@dataclass
class _Found:
    """What a History holds: the numbers under each name, with the epochs that they are of."""

    values: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    epochs: dict[str, list[int]] = field(default_factory=dict[str, list[int]])
    notes: list[str] = field(default_factory=list[str])

    def labelled(self, epochs: Sequence[float]) -> None:
        """Counts the epochs as the file itself does, where it says all of them."""
        if not all(each % 1 == 0 and abs(each) < 2**62 for each in epochs):
            return
        longest = max(map(len, self.values.values()), default=0)
        if len(epochs) == longest:
            labels = [int(each) for each in epochs]
            for name, places in self.epochs.items():
                short = len(places) < longest and places == list(range(len(places)))
                self.epochs[name] = places if short else [labels[place] for place in places]


class KerasHistory(Kind):
    """`History.history` as JSON: of `json.dump`, of a pandas table of it, or an object an epoch."""

    name = "keras-history"

    def recognises(self, source: Source) -> bool:
        """An object, or a list of objects; whether it holds a loss is seen when it is read."""
        opening = source.opening.lstrip()
        return opening.removeprefix("[").lstrip().startswith("{")

    def read(self, source: Source, versions: Versions) -> Explained:
        """Reads it."""
        content = _content(source)
        found = _of_records(source, content) if isinstance(content, list) else _of(source, content)
        if not any(is_loss(name) for name in found.values):
            first: Any = content[:1][0] if isinstance(content, list) else content
            keys = ", ".join(list(map(str, first))[:8])
            raise source.unknown(f"JSON without a list of losses; its keys: {keys[:200]}")
        if len(found.values) > SERIES or sum(map(len, found.values.values())) > NUMBERS:
            raise source.too_large(f"at most {NUMBERS:,} numbers in {SERIES:,} lists are read")
        series: list[Series] = []
        for name, values in found.values.items():
            said = keras_rows(name, versions)
            series.append(epoch_series(name, found.epochs[name], values, said))
        notes = (CUSTOM, COLLECTED, *found.notes)
        return Explained(source.path, self.name, "keras", losses_first(series), notes)


def _content(source: Source) -> Any:
    """The file's JSON; where it has an object a line, these as a list."""
    lines = source.text().splitlines()
    if len(lines) > 1 and all(line[:1] == "{" and line[-1:] == "}" for line in lines if line):
        return [source.parsed(line) for line in lines if line]
    return source.json()


def _of_records(source: Source, content: Sequence[Any]) -> _Found:
    """An object an epoch, as `pandas` writes records, or a program that logs its epochs."""
    found = _Found()
    texts: dict[str, None] = {}
    for place, record in enumerate(content):
        if not isinstance(record, dict):
            raise source.damaged(f"entry {place:,} of the list is no object")
        for name, value in cast("dict[str, Any]", record).items():
            read = _number(value)
            if read is None:
                texts[name] = None
                continue
            found.values.setdefault(name, []).append(read)
            found.epochs.setdefault(name, []).append(place)
    for name in texts:
        _not_numbers(source, found, name)
        found.values.pop(name, None)
        found.epochs.pop(name, None)
    found.labelled(found.values.pop("epoch", ()))
    found.epochs.pop("epoch", None)
    return found


def _of(source: Source, content: Mapping[str, Any]) -> _Found:
    """A list of numbers a name."""
    inner = content.get("history")
    if isinstance(inner, dict) and "loss" not in content:
        content = {**cast("dict[str, Any]", inner), "epoch": content.get("epoch")}
    found = _Found()
    for name, values in content.items():
        # pandas writes a column as {"0": 0.7, "1": 0.6}.
        if isinstance(values, dict):
            values = list(cast("dict[str, Any]", values).values())
        numbers = [_number(v) for v in cast("list[Any]", values)] if _is_list(values) else [None]
        read = [each for each in numbers if each is not None]
        if len(read) == len(numbers):
            found.values[name] = read
            found.epochs[name] = list(range(len(read)))
        elif _is_list(values) or is_loss(name):
            _not_numbers(source, found, name)
    labels = found.values.pop("epoch", ())
    found.epochs.pop("epoch", None)
    _short(found)
    found.labelled(labels)
    return found


def _is_list(values: Any) -> bool:
    return isinstance(values, list)


def _not_numbers(source: Source, found: _Found, name: str) -> None:
    """Notes a name with other things than numbers; a loss is none without.

    Raises:
        LossLedgerError: It is a loss (`file-damaged`).
    """
    if is_loss(name):
        raise source.damaged(f"{name} is no list of numbers")
    found.notes.append(f"{name} is left out: not all of it is numbers")


def _short(found: _Found) -> None:
    """Notes lists that are shorter than the others: a list doesn't say which epochs it is of."""
    longest = max(map(len, found.values.values()), default=0)
    short = [name for name, values in found.values.items() if len(values) < longest]
    own = [name for name in short if not name.startswith("val_")]
    if own:
        found.notes.append(
            f"{', '.join(own[:8])}: fewer numbers than epochs; which ones is unknown"
        )
    if len(own) < len(short):
        found.notes.append(
            "val_ numbers are fewer than epochs (validation_freq): their epochs aren't in the file"
        )


def _number(value: Any) -> float | None:
    """A number as JSON has it, or in text, as `json.dump(..., default=str)` writes numpy's.

    null is what pandas writes for NaN.
    """
    if value is None:
        return float("nan")
    if isinstance(value, str):
        return number(value)
    if isinstance(value, float) or (isinstance(value, int) and abs(value) < 2**62):
        return float(value)
    return None
