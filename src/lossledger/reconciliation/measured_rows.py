"""Whether a number was measured on the rows that an epoch trained on, as far as is on record."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from lossledger.entry import MEASURED
from lossledger.reconciliation.align import same_rows
from lossledger.reconciliation.compiled import BY_WEIGHTS, ignores_class, layers_of, reduction_of
from lossledger.reconciliation.factors import masks
from lossledger.reconciliation.fold import Ledger
from lossledger.reconciliation.reading import Reading
from lossledger.words import counted

_DEFAULT = 32
"""Keras's own `batch_size`."""
ELSEWHERE = "the evaluated weights are not those that the training ended with"
ADVICE = {
    "unseen_rows": "Evaluate the rows that were trained on.",
    "data": "Evaluate the rows that were trained on.",
    "weighting": "Measure in batches of one size, or the epoch's mean by what a batch's is by.",
    "reduction": 'Compile with "sum_over_batch_size", or measure in batches of one size.',
    "hyperparameters": "Measure in batches of one size.",
    "class_weight": "Evaluate with sample_weight= of each row's class weight, or train without.",
    "sample_weight": "Evaluate with the sample weights of the training, or train without.",
}
"""The change that would remove what measured rows are a cause of."""


@dataclass(frozen=True)
class Rows:
    """What is known of the measured rows, beside those of the training.

    Args:
        causes: What they differ in, as names of causes, each with half a sentence; none where
            nothing tells them apart.
        same: Whether they are seen to be the same, and not only not seen to be others.
    """

    causes: Mapping[str, str]
    same: bool = False

    @property
    def told(self) -> str:
        """The differences in words."""
        return ", and ".join(self.causes.values())


def rows_of(trained: Reading, measured: Reading) -> Rows:
    """Sets the data of a measured number beside those of the epoch that was trained."""
    causes = {**_which(trained, measured), **_weighed(trained, measured)}
    sizes = training_size(trained), size_of(measured)
    causes |= _cut(trained, sizes, "training takes", "the evaluation", measured)
    fold, identity = trained.fold, _identity(measured)
    if causes or fold is None or identity is None:
        return Rows(causes)
    weighted = measured.data.get("weighted")
    return Rows({}, same_rows(fold.ledger["batch_id"], identity) and not weighted)


def between(a: Reading, b: Reading) -> Rows:
    """Sets the data of two measured numbers beside each other."""
    ours, theirs = a.data, b.data
    causes: dict[str, str] = {}
    if not ours or not theirs:
        return Rows(causes)
    counts = [int(each["rows"]) for each in (ours, theirs)]
    ids = [each.get("batch_id") for each in (ours, theirs)]
    if counts[0] != counts[1]:
        causes["unseen_rows"] = f"a is measured on {counted(counts[0], 'row')}, b on {counts[1]:,}"
    elif None not in ids and ids[0] != ids[1]:
        causes["data"] = f"both are measured on {counted(counts[0], 'row')}, which are not the same"
    weighted = [each.get("weighted") for each in (ours, theirs)]
    if None not in weighted and weighted[0] != weighted[1]:
        names = ("a", "b") if weighted[0] else ("b", "a")
        causes["sample_weight"] = f"{names[0]} weighs rows by sample weights, {names[1]} doesn't"
    sizes = size_of(a), size_of(b)
    if list(sizes) != counts:  # else each is one batch
        causes |= _cut(a, sizes, "a is measured in", "b", b)
    return Rows(causes, not causes and None not in ids and not any(weighted))


def training_size(trained: Reading) -> int | None:
    """Rows of a full batch of the training; `None` without entries."""
    if trained.fold is None or not len(trained.fold.ledger):
        return None
    return int(trained.fold.ledger["rows"][0]) or None


def size_of(measured: Reading) -> int | None:
    """Rows of a full batch of the measurement, where that was of arrays; else `None`."""
    arguments, rows = measured.call.arguments, measured.data.get("rows")
    if "weighted" not in measured.data:
        return None  # a data set has batches of its own
    said = measured.data.get("batch_size")
    if _validates(measured):
        said = arguments.get("validation_batch_size") or arguments.get("batch_size")
    return min(int(said or _DEFAULT), int(rows)) if rows else None


def _validates(measured: Reading) -> bool:
    """Whether a number is of a validation of `fit`, and no measurement of the program's."""
    return measured.side.statistic.partition(":")[0] not in MEASURED


def _cut(
    trained: Reading, sizes: tuple[int | None, int | None], one: str, other: str, measured: Reading
) -> dict[str, str]:
    """Other batches, where a loss depends on them."""
    if sizes[0] is None or sizes[0] == sizes[1]:
        return {}
    if sizes[1] is None and "rows" not in measured.data:
        return {}
    size = "of a data set's own" if sizes[1] is None else f"of {sizes[1]:,}"
    told = f"{one} batches of {counted(sizes[0], 'row')}, {other} {size}, "
    call = trained.call
    reduced = reduction_of(call)
    masked = any(map(masks, layers_of(call))) or ignores_class(call)
    masked |= trained.fold is not None and trained.fold.ledger.has("elements")
    if reduced == "sum":
        return {"reduction": f"{told}and the loss is a sum over a batch"}
    if masked or (reduced == BY_WEIGHTS and measured.data.get("weighted")):
        what = "valid targets" if masked else "sample weights"
        return {"weighting": f"{told}and a batch's mean is by its {what}, the epoch's by rows"}
    if call.losses_per_row == 0:
        return {"hyperparameters": f"{told}and the loss is one of the whole batch"}
    return {}


def _identity(measured: Reading) -> np.ndarray | None:
    found = measured.data.get("batch_id")
    return np.array([int(found, 16)], np.uint64) if found else None


def _which(trained: Reading, measured: Reading) -> dict[str, str]:
    """Other rows."""
    arguments, validates = measured.call.arguments, _validates(measured)
    if validates and arguments.get("validation_split"):
        return {"unseen_rows": "the validation data are rows that training doesn't see"}
    fold, count = trained.fold, measured.data.get("rows") or _validated(arguments, validates)
    own = int(fold.ledger["rows"].sum()) if fold else None
    steps = arguments.get("validation_steps") if validates else measured.data.get("steps")
    if steps and count != own:
        what = "validation" if validates else "evaluation"
        return {"unseen_rows": f"the {what} ends after {counted(int(steps), 'step')}"}
    if fold is None or own is None or count is None:
        return {}
    what = "validation data have" if validates else "evaluated data have"
    if count != own:
        return _other_count(trained, measured, count, what)
    identity, ids = _identity(measured), fold.ledger["batch_id"]
    if identity is not None and ids.all() and identity.all() and not same_rows(ids, identity):
        return {"data": f"the {what} {count:,} other rows: their fingerprints differ"}
    return {}


def _other_count(trained: Reading, measured: Reading, count: int, what: str) -> dict[str, str]:
    """More rows or fewer than the epoch has: of its data, other ones, or nobody knows."""
    assert trained.fold is not None
    ledger, identity = trained.fold.ledger, _identity(measured)
    own, among = int(ledger["rows"].sum()), _among(ledger, measured)
    rows = f"the {what} {counted(count, 'row')}, those of the training {own:,}"
    if among is not None and count < own:
        of = "all" if among == count else f"{among:,}" if among else "none"
        rows = f"the {what} {counted(count, 'row')}, {of} of them among the training's {own:,}"
    part = identity is not None and _is_part(ledger, identity, count)
    if part or count in (among, _given(trained)) or _shares_batches(ledger, measured):
        return {"unseen_rows": rows}
    if among is None:
        unknown = "whether they are among these is not on record"
        return {"unseen_rows": rows, "data": unknown}
    return {"data": rows}


def _among(ledger: Ledger, measured: Reading) -> int | None:
    """How many of the measured rows are among the training's; `None` where that isn't known.

    Of rows that were given in batches it is where the arrays that these, or the measured rows, are
    a part of are the epoch's rows; or where they are these and the measured ones.
    """
    whole, identity = measured.data.get("within"), _identity(measured)
    if whole is None or identity is None:
        return measured.data.get("trained")
    ids, all_of_it = ledger["batch_id"], np.array([int(whole["batch_id"], 16)], np.uint64)
    if same_rows(ids, all_of_it):
        return int(whole["has"])
    rest = same_rows(np.append(ids, identity), all_of_it)
    return 0 if rest and whole["rows"] > measured.data["rows"] else None


def _shares_batches(ledger: Ledger, measured: Reading) -> bool:
    """Whether all whole batches of the measured rows are batches of the training."""
    texts = measured.data.get("batches") or ()
    ids = np.array([int(text, 16) for text in texts], np.uint64)
    return bool(len(ids) and np.isin(ids, ledger["batch_id"]).all())


def _is_part(ledger: Ledger, identity: np.ndarray, count: int) -> bool:
    """Whether the measured rows are those of the first steps."""
    seen = np.cumsum(ledger["rows"])
    return any(
        same_rows(ledger["batch_id"][: place + 1], identity)
        for place in np.flatnonzero(seen == count).tolist()
    )


def _given(trained: Reading) -> int | None:
    """How many rows the training was given, of which an epoch may leave some out."""
    return _length(trained.call.arguments.get("x"))


def _validated(arguments: Mapping[str, Any], validates: bool) -> int | None:
    """The rows of the validation data as `fit` was given them."""
    given = arguments.get("validation_data")
    return _length(given[0]) if validates and isinstance(given, list) and given else None


def _length(given: Any) -> int | None:
    shape = cast("Mapping[str, Any]", given).get("shape") if isinstance(given, Mapping) else None
    return int(shape[0]) if shape and shape[0] is not None else None


def _weighed(trained: Reading, measured: Reading) -> dict[str, str]:
    """The same rows, of other weights."""
    arguments = trained.call.arguments
    if arguments.get("class_weight"):
        return {"class_weight": "training weighs rows by their class, the evaluation doesn't"}
    weighted = measured.data.get("weighted")
    own = "sample_weight" in arguments or (
        trained.fold is not None and trained.fold.ledger.has("sample_weight")
    )
    if weighted is None or weighted == own:
        return {}
    names = ("the evaluation", "training") if weighted else ("training", "the evaluation")
    return {"sample_weight": f"{names[0]} weighs rows by sample weights, {names[1]} doesn't"}


def elsewhere(measured: Reading, trained: Reading) -> bool:
    """Whether other weights were evaluated than those that a training ended with."""
    known = measured.data.get("weights"), trained.names[1]
    return all(known) and known[0] != known[1]
