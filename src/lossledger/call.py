"""The calls of a run: what was trained how, and how the epochs of each are known."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from lossledger import shares
from lossledger.continued import Standing, standings_of
from lossledger.entry import MEASURES, NO_EPOCH
from lossledger.epochs import Epochs, GoesOn, find_epochs
from lossledger.errors import LossLedgerError
from lossledger.series import bounds
from lossledger.statement import Block
from lossledger.workers import call_lines

LOOKED_AT = 2**21
"""Steps of a series without epochs of which they are sought at first; the rest must go on so."""

Source: TypeAlias = Literal["driver", "said", "batch_id", "none"]


@dataclass(frozen=True, eq=False)
class Call:
    """One `fit`, one `Loop`, or one unbroken series of `train_on_batch` on one model.

    Args:
        number: The call's number in the run, from 0.
        model: The number of the model that it trained.
        steps: Its entries that count, when the calls were first looked at: of a run that was
            resumed, those that were not trained again.
        info: What `calls.jsonl` says of it; its keys are in `docs/format.md`.
        reported: What the driver reported, in order.
        epochs_from: How its epochs are known: counted by the driver, said by the user, found in
            the fingerprints of its batches, or not at all (then all its steps are epoch 0).
        standing: How it stands to the others in a run that was resumed.
        line: The number of the call that it goes on from, or of the one that that one goes on
            from, and so forth; its own where it began anew. Calls of a line count epochs on.
        before: Entries that count of the calls of its line before it.
    """

    number: int
    model: int
    steps: int
    info: Mapping[str, Any]
    reported: tuple[Mapping[str, Any], ...]
    epochs_from: Source
    _epochs: Epochs | None = field(default=None, repr=False)
    standing: Standing = field(default_factory=lambda: Standing(0))
    line: int = 0
    before: int = 0

    @property
    def whole(self) -> "Call":
        """The call with all its entries, those that were trained again, too."""
        return replace(self, steps=self.steps + self.standing.superseded)

    @property
    def attempt(self) -> int:
        """How often the run had been resumed when the call began."""
        return int(self.info.get("attempt") or 0)

    @property
    def driver(self) -> str:
        """Who turned the crank: `fit`, `train_on_batch`, `loop` or `custom`; or `evaluate`."""
        return self.info.get("driver", "custom")

    @property
    def measures(self) -> bool:
        """Whether it is evaluations alone, of a model that the run hadn't trained yet."""
        return self.driver == MEASURES

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
    def loads(self) -> Sequence[int]:
        """Steps of the call after which its program set the model's weights, ascending."""
        return self.info.get("loads") or ()

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
        return self._epochs.at(self.before + start, len(stored))


@dataclass
class _Seen:
    """What a first look at the entries tells of a call."""

    model: int
    steps: int = 0
    counted: bool = False


def read_calls(
    folder: Path, steps_per_epoch: int | None, promised: int, written: int = 0
) -> list[Call]:
    """The calls of a run, in order: those that were written down, and those with entries.

    Args:
        folder: The run's folder.
        steps_per_epoch: Steps of an epoch where the driver has none; goes before what the call
            says and what its batches tell.
        promised: How many entries there must be at least.
        written: How many lines `calls.jsonl` must have at least.

    Raises:
        LossLedgerError: There are fewer (slug `segment-damaged`), or a file is damaged.
    """
    # Before the calls: a recorder writes a call down before its first entry.
    seen = _look(folder, promised)
    infos, reported = noted(folder, written)
    numbers = sorted({*infos, *seen})
    standings = _standings(folder, infos, seen, reported)
    lines: dict[int, int] = {}
    known: dict[int, tuple[Source, Epochs | None]] = {}
    for number in numbers:
        info = infos.setdefault(number, {})
        before = standings[number].continues
        lines[number] = number if before is None else lines[before]
        said = steps_per_epoch or info.get("steps_per_epoch")
        if number not in seen or seen[number].counted:
            by_hand = info.get("epochs_said") or info.get("driver") == "train_on_batch"
            known[number] = ("said" if by_hand else "driver", None)
        elif said:
            known[number] = ("said", Epochs(0, "said", int(said)))
    rest = [number for number in numbers if number not in known]
    known |= _found(folder, {n: (lines[n], standings[n].steps) for n in rest})
    calls: list[Call] = []
    totals: dict[int, int] = {}
    for number in numbers:
        info, items, standing = infos[number], tuple(reported.get(number, ())), standings[number]
        model = info.get("model", seen[number].model if number in seen else 0)
        line, (source, epochs) = lines[number], known[number]
        before = totals.get(line, 0)
        totals[line] = before + standing.steps
        calls.append(
            Call(number, model, standing.steps, info, items, source, epochs, standing, line, before)
        )
    return calls


def trainings(calls: Sequence[Call]) -> list[Call]:
    """Without those that are evaluations alone; all where nothing was trained."""
    return [call for call in calls if not call.measures] or list(calls)


def noted(
    folder: Path, written: int = 0
) -> tuple[dict[int, dict[str, Any]], dict[int, list[Mapping[str, Any]]]]:
    """What was written down of each call, and what each reported, by number.

    Args:
        folder: The run's folder.
        written: How many lines `calls.jsonl` must have at least.

    Raises:
        LossLedgerError: `calls.jsonl` is damaged, or has fewer lines.
    """
    infos: dict[int, dict[str, Any]] = {}
    reported: dict[int, list[Mapping[str, Any]]] = {}
    for line in call_lines(folder, written):
        number = line["call"]
        reported.setdefault(number, []).extend(line.pop("reported", []))
        info, saved = infos.setdefault(number, {}), line.pop("saved", None)
        info.update(line)
        if saved:
            info.setdefault("saved", []).extend(saved)
    return infos, reported


def evaluations(
    calls: Iterable[Call], epoch: int | None = None
) -> list[tuple[int, int | None, float]]:
    """What `Model.evaluate` returned while a call was its model's last.

    Args:
        calls: Calls of the run.
        epoch: Of which epoch; a negative one counts evaluations back from the end.

    Returns:
        The call's number, the epoch, and the loss; the epoch of one outside of `fit` is `None`.
    """
    found = [
        (call.number, item.get("epoch"), float(item["value"]))
        for call in calls
        for item in call.reported
        if item.get("place") == "evaluate" and item.get("name") in ("loss", call.loss_name)
    ]
    if epoch is None:
        return found
    if epoch >= 0:
        return [each for each in found if each[1] == epoch]
    return [found[epoch]] if -epoch <= len(found) else []


def _standings(
    folder: Path,
    infos: Mapping[int, Mapping[str, Any]],
    seen: Mapping[int, "_Seen"],
    reported: Mapping[int, Sequence[Mapping[str, Any]]],
) -> dict[int, Standing]:
    """How the calls stand to each other; of a run that never was resumed all that they have."""
    standings = {number: Standing(0) for number in infos}
    if any(info.get("attempt") for info in infos.values()):
        counts = {number: (one.model, one.steps) for number, one in seen.items()}
        ended = {
            number: {i["epoch"] for i in items if i["place"] == "history" and "epoch" in i}
            for number, items in reported.items()
        }
        return standings | standings_of(folder, infos, counts, ended)
    return standings | {number: Standing(one.steps) for number, one in seen.items()}


def _found(
    folder: Path, calls: Mapping[int, tuple[int, int]]
) -> dict[int, tuple[Source, Epochs | None]]:
    """The epochs that the fingerprints of batches tell, and how; of a line's calls together."""
    if not calls:
        return {}
    begun: dict[int, list[Block]] = {line: [] for line, _ in calls.values()}
    room = dict.fromkeys(begun, LOOKED_AT)
    for line, part in _batches(folder, calls):
        begun[line].append({name: values[: room[line]].copy() for name, values in part.items()})
        room[line] -= len(begun[line][-1]["loss"])
    epochs = {line: _epochs(parts) for line, parts in begun.items()}
    if any(not left for left in room.values()):
        ids = {line: _joined(parts, "batch_id") for line, parts in begun.items()}
        _confirm(folder, calls, ids, epochs)
    return {number: (epochs[line].source, epochs[line]) for number, (line, _) in calls.items()}


def _epochs(parts: Sequence[Block]) -> Epochs:
    return find_epochs(_joined(parts, "batch_id"), _joined(parts, "loss"))


def _joined(parts: Sequence[Block], name: str) -> np.ndarray:
    return np.concatenate([part[name] for part in parts] or [np.empty(0)])


def _confirm(
    folder: Path,
    calls: Mapping[int, tuple[int, int]],
    begun: Mapping[int, np.ndarray],
    epochs: dict[int, Epochs],
) -> None:
    """Looks at all of series of which only the beginning was; at once where that tells nothing."""
    going = {line: GoesOn(epochs[line], part) for line, part in begun.items()}
    for line, part in _batches(folder, calls):
        going[line].feed(part["batch_id"])
    for line, one in going.items():
        if not one.holds and len(begun[line]) == LOOKED_AT:
            epochs[line] = _epochs([part for each, part in _batches(folder, calls) if each == line])


def _batches(folder: Path, calls: Mapping[int, tuple[int, int]]) -> Iterator[tuple[int, Block]]:
    """`batch_id` and `loss` of some calls' lines, block by block."""
    left = {number: steps for number, (_, steps) in calls.items()}
    for block in shares.scan(folder, ["call", "batch_id", "loss"]):
        for number, part in split(block):
            if left.get(number):
                names = ("batch_id", "loss")
                found = {name: part[name][: left[number]] for name in names}
                left[number] -= len(found["loss"])
                yield calls[number][0], found


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
