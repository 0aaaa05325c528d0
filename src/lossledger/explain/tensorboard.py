"""A TensorBoard event file: its scalars, and who wrote them."""

import re
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from lossledger.conventions import Place
from lossledger.explain.deaverage import deaveraging
from lossledger.explain.events import Malformed, scalars
from lossledger.explain.explained import Explained, Series
from lossledger.explain.kind import (
    Kind,
    Versions,
    epoch_series,
    is_loss,
    losses_first,
    promises_loss,
    rows,
)
from lossledger.explain.lightning_csv import lightning_series
from lossledger.explain.records import HEADER, Damaged, begins, records
from lossledger.explain.source import EVENT_BYTES, NUMBERS, SERIES, Source
from lossledger.explain.trainer_state import window_series

_EVALUATION = re.compile(r"evaluation_(.+)_vs_iterations")
_CHOSEN = "which statistic it is: the program chose the tag, and the file says no more"
_VERSION = "brain.Event:"
_TRANSFORMERS: dict[str, Place] = {
    "train/loss": "history",
    "eval/loss": "evaluate",
    "train/train_loss": "training",
}


@dataclass
class _Tag:
    """The numbers under one tag; `order` is the place of each among all of the file."""

    steps: "array[int]" = field(default_factory=lambda: array("q"))
    values: "array[float]" = field(default_factory=lambda: array("d"))
    order: "array[int]" = field(default_factory=lambda: array("q"))


class TensorBoard(Kind):
    """`events.out.tfevents.*`, as TensorFlow, Keras and PyTorch write them."""

    name = "tensorboard"

    def recognises(self, source: Source) -> bool:
        """A record with a right checksum: none but TFRecord files begin so."""
        return begins(source.head)

    def read(self, source: Source, versions: Versions) -> Explained:
        """Reads it."""
        source.bound(EVENT_BYTES)
        tags, other, left = _read(source)
        notes = list(_notes(tags, other, left))
        tool = _tool(tags)
        if tool == "keras":
            series = [*_keras(tags, versions, _validation(source, tags))]
            if _validation(source, tags):
                notes.insert(0, "the numbers are of the validation data: fit wrote it after them")
        else:
            series = [_other(tool, tag, of, tags, versions) for tag, of in tags.items()]
        if not tags:
            notes.append("there is no scalar in it")
        return Explained(source.path, self.name, tool, losses_first(series), tuple(notes))


def _read(source: Source) -> tuple[dict[str, _Tag], int, int]:
    """Tags, values that are no scalars, and bytes at the end that are no whole record."""
    tags: dict[str, _Tag] = {}
    other = count = end = 0
    try:
        with source.path.open("rb") as file:
            for start, data in records(file, source.size):
                version, step, found, rest = scalars(data)
                if start == 0 and not (version or "").startswith(_VERSION):
                    raise source.unknown("a file of records, but not of TensorBoard's events")
                if not -(2**62) < step < 2**62:
                    raise Malformed(f"step {step}")
                other += rest
                for tag, value in found:
                    _add(tags, tag, step, value, count)
                    count += 1
                if count > NUMBERS or len(tags) > SERIES:
                    raise source.too_large(f"at most {NUMBERS:,} numbers, {SERIES:,} tags are read")
                end = start + HEADER.size + len(data) + 4
    except Damaged as error:
        raise source.damaged(str(error)) from error
    except Malformed as error:
        raise source.damaged(f"the record after byte {end:,} is no event: {error}") from error
    if end == 0:
        raise source.damaged("its first record is cut off")
    return tags, other, source.size - end


def _add(tags: dict[str, _Tag], tag: str, step: int, value: float, order: int) -> None:
    of = tags.setdefault(tag, _Tag())
    of.steps.append(step)
    of.values.append(value)
    of.order.append(order)


def _notes(tags: Mapping[str, _Tag], other: int, left: int) -> Iterator[str]:
    if left:
        yield f"its last {left:,} bytes are a record that was cut off, or is still being written"
    if other:
        left_out = "1 value is no scalar" if other == 1 else f"{other:,} values are no scalars"
        yield f"{left_out} (histograms, images, texts, graphs): left out"
    back = [tag for tag, of in tags.items() if (np.diff(np.array(of.steps, np.int64)) < 0).any()]
    if back:
        yield (
            f"steps go back under {', '.join(back[:4])}: the training was begun again or resumed "
            "in the same file, and some steps may be in it twice"
        )


def _tool(tags: Mapping[str, _Tag]) -> str | None:
    """Who wrote the tags, by their names."""
    if any(tag.startswith(("epoch_", "batch_")) or _EVALUATION.fullmatch(tag) for tag in tags):
        return "keras"
    if any(re.fullmatch(r"(train|eval)/.*", tag) for tag in tags) and "train/epoch" in tags:
        return "transformers"
    if "epoch" in tags and any(is_loss(re.sub("_(step|epoch)$", "", tag)) for tag in tags):
        return "lightning"
    return None


def _validation(source: Source, tags: Mapping[str, _Tag]) -> bool:
    """Whether it is the file of the validation, which Keras keeps in a folder of that name."""
    folder = source.path.resolve().parent.name
    return folder == "validation" or any(_EVALUATION.fullmatch(tag) for tag in tags)


def _keras(tags: Mapping[str, _Tag], versions: Versions, validation: bool) -> Iterator[Series]:
    """`keras.callbacks.TensorBoard`: an event file each of the training and the validation."""
    for tag, of in tags.items():
        evaluated = _EVALUATION.fullmatch(tag)
        name = evaluated[1] if evaluated else tag.removeprefix("epoch_").removeprefix("batch_")
        known = ("tf.keras", "keras") if is_loss(name) else ()
        if evaluated or (tag.startswith("epoch_") and validation):
            said = rows(versions, "evaluate", *known)
            yield epoch_series(tag, of.steps, of.values, said, "step" if evaluated else "epoch")
        elif tag.startswith("epoch_"):
            yield epoch_series(tag, of.steps, of.values, rows(versions, "history", *known))
        elif tag.startswith("batch_") and known:
            series = epoch_series(
                tag, of.steps, of.values, rows(versions, "batch_logs", *known), "step"
            )
            yield series.saying(*deaveraging(series, _ends(tags, of)))
        else:
            yield _unknown(tag, of)


def _ends(tags: Mapping[str, _Tag], batches: _Tag) -> "np.ndarray":
    """Numbers of a tag that stand before each end of an epoch, by the order of the records."""
    epochs = next((of for tag, of in tags.items() if tag.startswith("epoch_")), None)
    if epochs is None:
        return np.empty(0, np.int64)
    return np.searchsorted(np.array(batches.order), np.array(epochs.order))


def _other(
    tool: str | None, tag: str, of: _Tag, tags: Mapping[str, _Tag], versions: Versions
) -> Series:
    if tool == "lightning":
        epoch = tags["epoch"]
        known = dict(zip(epoch.steps, epoch.values, strict=True))
        epochs = [_whole(known.get(step)) for step in of.steps]
        return lightning_series(tag, of.steps, epochs, of.values, versions)
    if tool == "transformers" and tag in _TRANSFORMERS:
        said = rows(versions, _TRANSFORMERS[tag], "transformers")
        if tag == "train/loss":
            return window_series(tag, of.steps, of.values, said)
        return epoch_series(tag, of.steps, of.values, said, "step")
    return _unknown(tag, of)


def _unknown(tag: str, of: _Tag) -> Series:
    """A tag that is of no tool's."""
    series = epoch_series(tag, of.steps, of.values, (), "step")
    return series.saying([], [_CHOSEN]) if promises_loss(tag) else series


def _whole(value: float | None) -> int:
    return int(value) if value is not None and abs(value) < 2**53 else -1
