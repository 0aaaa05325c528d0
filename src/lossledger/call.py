"""The calls of a run: what was trained how, and how the epochs of each are known."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lossledger import shares
from lossledger.entry import NO_EPOCH
from lossledger.epochs import find_epochs
from lossledger.errors import LossLedgerError
from lossledger.statement import Block, bounds
from lossledger.workers import call_lines

Source: TypeAlias = Literal["driver", "said", "batch_id", "none"]


@dataclass(frozen=True, eq=False)
class Call:
    """One `fit`, one `Loop`, or one unbroken series of `train_on_batch` on one model.

    Args:
        number: The call's number in the run, from 0.
        model: The number of the model that it trained.
        steps: Its entries, when the calls were first looked at.
        info: What `calls.jsonl` says of it; see the guide for the keys.
        reported: What the driver reported, in order.
        epochs_from: How its epochs are known: counted by the driver, said by the user, found in
            the fingerprints of its batches, or not at all (then all its steps are epoch 0).
    """

    number: int
    model: int
    steps: int
    info: Mapping[str, Any]
    reported: tuple[Mapping[str, Any], ...]
    epochs_from: Source
    _epochs: NDArray[np.int32] | int | None = field(default=None, repr=False)

    @property
    def driver(self) -> str:
        """Who turned the crank: `fit`, `train_on_batch`, `loop` or `custom`."""
        return self.info.get("driver", "custom")

    @property
    def loss_name(self) -> str:
        """The name under which the loss is reported."""
        return self.info.get("loss_name", "loss")

    @property
    def weight_kind(self) -> str:
        """What the reported mean weights each loss by."""
        return self.info.get("weight_kind", "rows")

    @property
    def arguments(self) -> Mapping[str, Any]:
        """The arguments of `fit` or of the loop."""
        return self.info.get("arguments", {})

    @property
    def configuration(self) -> Mapping[str, Any]:
        """Optimizer, loss, dtype policy and whatever else decides what a step computes."""
        return self.info.get("configuration", {})

    @property
    def mean_of_rows(self) -> bool:
        """Whether the loss is a mean of row losses; if not, weighting it otherwise says nothing."""
        return self.info.get("mean_of_rows", True) and self.losses_per_row != 0

    @property
    def losses_per_row(self) -> int | None:
        """Loss values that one row has; 0 of a loss of the whole batch, `None` if not known."""
        return self.info.get("losses_per_row")

    def epochs_of(self, stored: np.ndarray, start: int) -> np.ndarray:
        """The epoch of each of the call's entries from `start` on.

        Args:
            stored: (steps,) the entries' column `epoch`.
            start: Entries of the call before them.
        """
        if self._epochs is None:
            return stored
        if isinstance(self._epochs, int):
            return np.arange(start, start + len(stored)) // self._epochs
        return self._epochs[start : start + len(stored)]


@dataclass
class _Seen:
    """What a first look at the entries tells of a call."""

    model: int
    steps: int = 0
    counted: bool = False


def read_calls(folder: Path, steps_per_epoch: int | None, promised: int) -> list[Call]:
    """The calls of a run, in order: those that were written down, and those with entries.

    Args:
        folder: The run's folder.
        steps_per_epoch: Steps of an epoch where the driver has none; goes before what the call
            says and what its batches tell.
        promised: How many entries there must be at least.

    Raises:
        LossLedgerError: There are fewer (slug `segment-damaged`), or a file is damaged.
    """
    # Before the calls: a recorder writes a call down before its first entry.
    seen = _look(folder, promised)
    infos, reported = noted(folder)
    numbers = sorted({*infos, *seen})
    known: dict[int, tuple[Source, NDArray[np.int32] | int | None]] = {}
    for number in numbers:
        info = infos.setdefault(number, {})
        said = steps_per_epoch or info.get("steps_per_epoch")
        if number not in seen or seen[number].counted:
            by_hand = info.get("epochs_said") or info.get("driver") == "train_on_batch"
            known[number] = ("said" if by_hand else "driver", None)
        elif said:
            known[number] = ("said", int(said))
    known |= _found(folder, [number for number in numbers if number not in known])
    calls: list[Call] = []
    for number in numbers:
        one = seen.get(number, _Seen(0))
        info, items = infos[number], tuple(reported.get(number, ()))
        model = int(info.get("model", one.model))
        calls.append(Call(number, model, one.steps, info, items, *known[number]))
    return calls


def noted(folder: Path) -> tuple[dict[int, dict[str, Any]], dict[int, list[Mapping[str, Any]]]]:
    """What was written down of each call, and what each reported, by number.

    Raises:
        LossLedgerError: `calls.jsonl` is damaged.
    """
    infos: dict[int, dict[str, Any]] = {}
    reported: dict[int, list[Mapping[str, Any]]] = {}
    for line in call_lines(folder):
        number = int(line.get("call", 0))
        reported.setdefault(number, []).extend(line.pop("reported", []))
        infos.setdefault(number, {}).update(line)
    return infos, reported


def _found(folder: Path, numbers: Sequence[int]) -> dict[int, tuple[Source, NDArray[np.int32]]]:
    """The epochs that the fingerprints of batches tell, and how."""
    ids: dict[int, list[np.ndarray]] = {number: [] for number in numbers}
    if numbers:
        for block in shares.scan(folder, ["call", "batch_id"]):
            for number, part in split(block):
                if number in ids:
                    ids[number].append(part["batch_id"])
    epochs = {number: find_epochs(np.concatenate(parts)) for number, parts in ids.items()}
    return {number: (found.source, found.epoch) for number, found in epochs.items()}


def _look(folder: Path, promised: int) -> dict[int, _Seen]:
    seen: dict[int, _Seen] = {}
    for block in shares.scan(folder, ["call", "model", "epoch"]):
        for number, part in split(block):
            one = seen.setdefault(number, _Seen(int(part["model"][0])))
            one.steps += len(part["epoch"])
            one.counted |= bool((part["epoch"] != NO_EPOCH).any())
    rows = sum(one.steps for one in seen.values())
    if rows < promised:
        raise LossLedgerError(
            "The run has fewer entries than when it was closed; no number is given from it. "
            f"Received: {folder}: {rows} of {promised}. Restore the folder from a copy.",
            slug="segment-damaged",
        )
    return seen


def split(block: Block) -> Iterator[tuple[int, Block]]:
    """A block's entries call by call, in the order of the calls' numbers."""
    calls = block["call"]
    if (np.diff(calls) < 0).any():  # two models in turn
        order = np.argsort(calls, kind="stable")
        block = {name: values[order] for name, values in block.items()}
        calls = block["call"]
    begins, ends = bounds(calls)
    for begin, end in zip(begins.tolist(), (ends + 1).tolist(), strict=True):
        yield int(calls[begin]), {name: values[begin:end] for name, values in block.items()}


def entries_of(
    folder: Path, calls: Iterable[Call], columns: Sequence[str]
) -> Iterator[tuple[Call, Block]]:
    """Reads the entries of some calls in one pass, block by block, in bounded memory.

    Of each call as many as it had when it was looked at, so that whatever is stated about a
    growing run at one time is about the same entries.

    Args:
        folder: The run's folder.
        calls: Calls of the run.
        columns: Names of columns; `epoch` is what `Call.epochs_of` makes of it.

    Yields:
        The call, and columns of some of its entries, in the order of training.
    """
    wanted = {call.number: call for call in calls}
    starts = dict.fromkeys(wanted, 0)
    for block in shares.scan(folder, list(dict.fromkeys((*columns, "call")))):
        for number, found in split(block):
            call = wanted.get(number)
            if call is None or starts[number] == call.steps:
                continue
            start = starts[number]
            part = {name: found[name][: call.steps - start] for name in columns}
            if "epoch" in part:
                part["epoch"] = call.epochs_of(part["epoch"], start)
            starts[number] = min(start + len(found["call"]), call.steps)
            yield call, part
