"""Causes in how a step's loss is scaled: a batch's reduction, replicas, gathered steps."""

from collections.abc import Mapping

import numpy as np

from lossledger.reconciliation.align import Match, match
from lossledger.reconciliation.causes_held import weighed_otherwise
from lossledger.reconciliation.compiled import reduction_of
from lossledger.reconciliation.fold import Floats, Fold, Ledger
from lossledger.reconciliation.moves import Step, alike, counted, number
from lossledger.reconciliation.pair import Pair
from lossledger.reconciliation.undeclared import undeclared

LARGEST = 65536
"""Steps or replicas that a loss may be divided by."""

_WEIGHTS = {"sample_weight", "class_weight", "loss_weights", "mask"}
_MEANS = (None, "sum_over_batch_size", "mean", "auto")


def reduction(a: Fold, b: Fold, pair: Pair) -> Step | None:
    """A batch's loss is a sum on one side and a mean on the other.

    To the mean over the d losses of a batch, all of its rows or, under a mask, the valid: `l / d`
    of a sum, `l s / d` of a mean by sample weights that add to s. Sums on both sides depend on the
    batches, too.
    """
    seen = undeclared(a, b, pair)
    kinds = list(seen or (reduction_of(each.call) for each in (pair.a, pair.b)))
    if pair.same_entries or kinds[0] == kinds[1] != "sum" or set(kinds) <= set(_MEANS):
        return None
    found = match(a.ledger["batch_id"], b.ledger["batch_id"])
    if kinds[0] == kinds[1] and not seen and (found.all_of_a or found.all_of_b):
        return None
    if bool(alike(a.ledger["loss"][found.a], b.ledger["loss"][found.b]).all()) and len(found.a):
        return None
    each = _losses_a_row(a, b, pair, found)
    changed = [_meant(fold, kind, each) for fold, kind in zip((a, b), kinds, strict=True)]
    if None in changed:
        return None
    told = [str(kind or "sum_over_batch_size") for kind in kinds]
    if kinds[0] == kinds[1]:
        sizes = [counted(len(fold.ledger), "batch") for fold in (a, b)]
        evidence = f"Both sum a batch's losses, and cut the rows into {sizes[0]} and {sizes[1]}."
    else:
        evidence = f"reduction={told[0]} in a, {told[1]} in b: a batch's losses by other divisors."
    if seen:
        evidence += " No record says so, but only then are the means over all rows equal."
    advice = 'Give both losses the same reduction, "sum_over_batch_size".'
    ours, theirs = (fold for fold in changed if fold is not None)
    return Step("reduction", ours, theirs, evidence, advice)


def scaling(a: Fold, b: Fold, pair: Pair) -> Step | None:
    """The same losses, times one factor: `l_b = f l_a` in every step of both.

    f or 1/f the replicas or the steps that one update gathers, as recorded; else the batch's rows:
    its reduction; else any whole number: a loss divided before it was logged.
    """
    other_start = all(each.names[0] for each in (pair.a, pair.b)) and not pair.same_start
    if pair.same_call or pair.goes_on or other_start or len(a.ledger) != len(b.ledger):
        return None
    if _WEIGHTS & set(pair.factors):
        return None  # all of them scale alike, too
    found = match(a.ledger["batch_id"], b.ledger["batch_id"])
    if not (found.all_of_a and found.all_of_b) or len(found.a) < 2:
        return None
    if any(weighed_otherwise(column, a, b, found) for column in ("sample_weight", "elements")):
        return None
    ours, theirs = (_data(a.ledger)[found.a], _data(b.ledger)[found.b])
    usable = np.isfinite(ours) & np.isfinite(theirs) & (ours * theirs > 0)
    if not usable.all() or alike(ours, theirs).all():
        return None
    ratio = theirs / ours
    rows = a.ledger["rows"][found.a]
    if not np.array_equal(rows, b.ledger["rows"][found.b]):
        return None
    whole = float(np.median(ratio))
    size = round(min(max(whole, 1 / whole), LARGEST + 1))
    gathered = _scaled_by(pair, size)
    for factor, name in ((rows, "its rows"), (1 / rows, "1 / its rows")):
        if gathered is None and (rows > 1).all() and alike(ratio, factor).all():
            return _by(a, b, "reduction", factor[np.argsort(found.b)], name)
    factor = np.full(len(ratio), float(size) if whole > 1 else 1 / size)
    if not 2 <= size <= LARGEST or not alike(ratio, factor).all():
        return None
    name = f"{size}" if whole > 1 else f"1/{size}"
    return _by(a, b, gathered or "accumulation_scaling", factor, name)


def zeros(a: Fold, b: Fold, pair: Pair) -> Step | None:
    """A mask on one side, sample weights of 0 and 1 of the same targets on the other.

    The mask's mean is over v valid targets, that of the weights over all n rows of d targets
    each, the others as zeros: `l_mask = l_weights n d / v` in every step of both, v the sum of the
    weights, too.
    """
    masks = [fold.ledger.has("elements") for fold in (a, b)]
    weighs = [fold.ledger.has("sample_weight") for fold in (a, b)]
    if pair.same_entries or masks == weighs or sorted(masks) != sorted(weighs) or all(masks):
        return None
    found = match(a.ledger["batch_id"], b.ledger["batch_id"])
    if not found.known or not (found.all_of_a or found.all_of_b) or not len(found.a):
        return None
    masked, weighed = (a, b) if masks[0] else (b, a)
    places = (found.a, found.b) if masks[0] else (found.b, found.a)
    valid = masked.ledger["elements"][places[0]]
    if not alike(valid, weighed.ledger["sample_weight"][places[1]]).all() or not valid.all():
        return None
    losses = _data(masked.ledger)[places[0]], _data(weighed.ledger)[places[1]]
    rows = weighed.ledger["rows"][places[1]]
    each = losses[0] / losses[1] * valid / rows
    size = max(1, round(float(np.nan_to_num(np.median(each), nan=0.0, posinf=0.0))))
    if not alike(each, np.full(len(each), float(size))).all() or alike(*losses).all():
        return None
    columns = weighed.ledger.columns
    penalties = np.nan_to_num(columns["penalty"], nan=0.0)
    counted_all = columns["rows"] * size / columns["sample_weight"]
    loss = (columns["loss"] - penalties) * counted_all + penalties
    changed = weighed.of_losses(loss)
    names = "ab" if masks[0] else "ba"
    total = float(weighed.ledger["rows"].sum()) * size
    evidence = (
        f"{names[0]}'s mask leaves {number(float(valid.sum()))} of {number(total)} targets in, and "
        f"a batch's mean is over these; {names[1]}'s sample weights leave in as many, and its mean "
        "is over all, the others as zeros."
    )
    advice = 'Mask on both sides, or compile the weighted loss with "mean_with_sample_weight".'
    return Step("mask", *((a, changed) if masks[0] else (changed, b)), evidence, advice)


def _by(a: Fold, b: Fold, cause: str, factor: Floats, name: str) -> Step:
    """b's data terms without the factor; `factor` in the order of b's epoch."""
    ledger = b.ledger
    columns = ledger.columns
    penalties = np.nan_to_num(columns["penalty"], nan=0.0)
    loss = columns["loss"].copy()
    loss[ledger.start :] = (_data(ledger) / factor) + penalties[ledger.start :]
    evidence = f"Each of {counted(len(ledger), 'step')} has in b {name} times the loss that a has."
    advice = {
        "reduction": 'Divide a summed loss by its rows, or compile with "sum_over_batch_size".',
        "replica_scaling": "Log the loss before it is divided by the number of replicas.",
    }.get(cause, "Log the loss before it is divided by the steps that one update gathers.")
    return Step(cause, a, b.of_losses(loss), evidence, advice)


def _scaled_by(pair: Pair, size: int) -> str | None:
    """Which cause a record of as many replicas, or of as many gathered steps, makes it."""
    records = [each.call.configuration for each in (pair.a, pair.b)]
    if size > 1 and size in [record.get("replicas") for record in records]:
        return "replica_scaling"
    gathers = [record.get("gradient_accumulation_steps") for record in records]
    return "accumulation_scaling" if size > 1 and size in gathers else None


def _data(ledger: Ledger) -> Floats:
    return ledger["loss"] - np.nan_to_num(ledger["penalty"], nan=0.0)


def _meant(fold: Fold, kind: str | None, each: int) -> Fold | None:
    """The fold of each batch's mean over its rows."""
    columns = fold.ledger.columns
    if kind in _MEANS or (kind == "mean_with_sample_weight" and "sample_weight" not in columns):
        return fold
    if kind not in ("sum", "mean_with_sample_weight"):
        return None
    penalties = np.nan_to_num(columns["penalty"], nan=0.0)
    total = columns["loss"] - penalties
    if kind == "mean_with_sample_weight":
        total = total * columns["sample_weight"]
    count = columns["elements"] if fold.ledger.has("elements") else columns["rows"] * each
    return fold.of_losses(total / count + penalties)


def _losses_a_row(a: Fold, b: Fold, pair: Pair, found: Match) -> int:
    """How many losses a row has: as the step's trace, the same batches or the targets tell."""
    known = pair.a.call.losses_per_row or pair.b.call.losses_per_row
    if known:
        return known
    kinds = [reduction_of(each.call) for each in (pair.a, pair.b)]
    if pair.held and found.known and len(found.a) and kinds.count("sum") == 1:
        summed, place, other = a.ledger, found.a, _data(b.ledger)[found.b]
        if kinds[1] == "sum":
            summed, place, other = b.ledger, found.b, _data(a.ledger)[found.a]
        size = float(np.median(_data(summed)[place] / other / summed["rows"][place]))
        if np.isfinite(size) and size >= 1:
            return max(1, round(size))
    targets = pair.a.call.arguments.get("y")
    shape = targets.get("shape") if isinstance(targets, Mapping) else None
    return int(np.prod(shape[1:-1])) if shape and len(shape) > 2 else 1
