"""Causes that two runs show where they train the same batches at the same weights."""

from dataclasses import dataclass

import numpy as np

from lossledger.reconciliation.align import Match, match, same_rows
from lossledger.reconciliation.data import leaves_out
from lossledger.reconciliation.fold import Fold
from lossledger.reconciliation.moves import Change, alike, near, number
from lossledger.reconciliation.pair import ROUNDS, Pair
from lossledger.words import counted


@dataclass(frozen=True)
class _Weighs:
    """A way in which rows or targets of a batch are weighted."""

    cause: str
    what: str
    advice: str


_EITHER = _Weighs(
    "sample_weight",
    "their weights, sample weights on one side and class weights, which are such too, on the other",
    "Train both with the same sample_weight, or the same class_weight.",
)
_WAYS = (
    _Weighs(
        "sample_weight",
        "sample weights",
        "Train both with the same sample_weight, or divide the loss by their mean.",
    ),
    _Weighs("class_weight", "class weights", "Train both with the same class_weight."),
    _Weighs("mask", "a mask", "Mask the same targets on both sides, or none."),
)


def weighted_rows(a: Fold, b: Fold, pair: Pair) -> Change | None:
    """Sample weights, class weights or a mask in each batch's loss, on one side or otherwise.

    At the same weights, on the same batches: `sum(w (l_a - l_b)) / sum(w)` over them, the other
    causes taken out before. Only where one of the three is all that can tell the losses apart.
    """
    if not pair.held or pair.same_entries or pair.noisy:
        return None
    found = match(a.ledger["batch_id"], b.ledger["batch_id"])
    if not found.known or not (found.all_of_a or found.all_of_b):
        return None
    ours, theirs = a.ledger["loss"][found.a], b.ledger["loss"][found.b]
    if alike(ours, theirs).all():
        return None
    ways = [way for way in _WAYS if _differs(way.cause, a, b, pair, found)]
    if len(ways) > 1 and ways[0].cause == "sample_weight" and "sample_weight" not in pair.factors:
        ways = ways[1:]  # class weights and masks reach a loss as sample weights
    if [way.cause for way in ways] == ["sample_weight", "class_weight"]:
        ways = [_EITHER]
    if len(ways) != 1 or "randomness" in pair.factors or "hyperparameters" in pair.factors:
        return None
    way = ways[0]
    changed = _with_losses(a, found.a, theirs) if found.all_of_a else a
    other = b if found.all_of_a else _with_losses(b, found.b, ours)
    place = int(np.argmax(np.abs(ours - theirs)))
    evidence = (
        f"At the same weights, {counted(len(ours), 'batch')} that both train on differ by "
        f"{way.what}: {number(float(ours.mean()))} in a and {number(float(theirs.mean()))} in b on "
        f"average; {number(float(ours[place]))} and {number(float(theirs[place]))} in batch "
        f"{int(found.a[place])}.{_totals(way.cause, a, b)}"
    )
    return Change(way.cause, changed, other, evidence, way.advice)


def _differs(cause: str, a: Fold, b: Fold, pair: Pair, found: Match) -> bool:
    if cause in pair.factors:
        return True
    column = {"sample_weight": "sample_weight", "mask": "elements"}.get(cause)
    return column is not None and weighed_otherwise(column, a, b, found)


def weighed_otherwise(column: str, a: Fold, b: Fold, found: Match) -> bool:
    """Whether the sums of weights, or of valid targets, of the same batches are not the same."""
    has = [fold.ledger.has(column) for fold in (a, b)]
    if not all(has):
        return any(has)
    ours, theirs = a.ledger[column][found.a], b.ledger[column][found.b]
    return not alike(ours, theirs).all()


def _totals(cause: str, a: Fold, b: Fold) -> str:
    """What the weights of a batch add to, where the run kept it."""
    column = "elements" if cause == "mask" else "sample_weight"
    told: list[str] = []
    for name, fold in (("a", a), ("b", b)):
        if fold.ledger.has(column):
            total, rows = (float(fold.ledger[each].sum()) for each in (column, "rows"))
            told.append(f"{number(total)} over {int(rows):,} rows in {name}")
    what = "Valid targets" if cause == "mask" else "Weights"
    return f" {what} add to {' and '.join(told)}." if told else ""


def _with_losses(fold: Fold, places: np.ndarray, losses: np.ndarray) -> Fold:
    loss = fold.ledger.columns["loss"].copy()
    loss[fold.ledger.start + places] = losses
    return fold.of_losses(loss)


_IN_EVERY_STEP = {"penalty", "loss_weights", "reduction"}
"""Causes of which no batch's loss is free."""


def other_rows(a: Fold, b: Fold, pair: Pair) -> Change | None:
    """Rows that the other side has not, where the weights stood still on both.

    Both folds are then means over rows at the same weights, and what tells them apart is which
    rows they are: `mean over b's rows - mean over a's rows`.
    """
    ids = [fold.ledger["batch_id"] for fold in (a, b)]
    found = match(ids[0], ids[1])
    beside = set(pair.factors) - {*ROUNDS, "unseen_rows", "order", "hyperparameters"}
    beside -= _IN_EVERY_STEP if len(found.a) else set()  # where they are taken out, these agree
    if pair.same_entries or not pair.any_batches or beside or a.form.shape != "mean":
        return None
    if not found.known or not found.only_a.any() or not found.only_b.any() or same_rows(*ids):
        return None
    shared = alike(a.ledger["loss"][found.a], b.ledger["loss"][found.b]).all()
    if not shared or near(a.value, b.value):
        return None
    rows = [int(fold.ledger["rows"].sum()) for fold in (a, b)]
    cause = "double_count" if pair.wraps else "unseen_rows"
    if not pair.wraps and _are_others(a, b, pair, common=len(found.a)):
        cause = "data"
    evidence = (
        f"At the same weights the mean over {rows[0]:,} rows is {number(a.value)} in a, over "
        f"{rows[1]:,} rows {number(b.value)} in b: they are not the same rows."
    )
    advice = "Measure both on the same rows: steps_per_epoch and validation_split leave rows out."
    if cause == "data":
        advice = "Train both on the same rows, and bring inputs and targets to one scale."
    return Change(cause, a.over(b.ledger), b, evidence, advice)


def _are_others(a: Fold, b: Fold, pair: Pair, common: int) -> bool:
    """Whether rows are taken for those of other data, not for others of the same."""
    rows = [int(fold.ledger["rows"].sum()) for fold in (a, b)]
    wholes = [each.fold.ledger for each in (pair.a, pair.b) if each.fold]
    cut = any(len(f.ledger) < len(whole) for f, whole in zip((a, b), wholes, strict=True))
    if pair.cut_short or (cut and pair.same_data is not False):
        return False  # a remainder was dropped, of rows in another order
    if rows[0] == rows[1]:
        return True
    drawn = pair.any_shuffled or any(e.call.epochs_from == "none" for e in (pair.a, pair.b))
    cut_alike = not drawn and len({int(f.ledger["rows"][0]) for f in (a, b)}) == 1
    fewer = pair.a if rows[0] < rows[1] else pair.b
    return cut_alike and not common and not leaves_out(fewer.call)
