"""Causes in how a step's loss is scaled: a batch's reduction, replicas, gathered steps."""

import math
from typing import cast

import numpy as np

from lossledger.reconciliation.align import Match, match, pieces, same_rows
from lossledger.reconciliation.causes_held import weighed_otherwise
from lossledger.reconciliation.compiled import BY_WEIGHTS, MEANS, outputs_of, reduction_of
from lossledger.reconciliation.data import arrays_of
from lossledger.reconciliation.fold import Floats, Fold
from lossledger.reconciliation.moves import SAME, Change, alike, near
from lossledger.reconciliation.pair import Pair
from lossledger.reconciliation.undeclared import undeclared
from lossledger.words import counted

LARGEST = 65536
"""Steps or replicas that a loss may be divided by."""

_WEIGHTS = {"sample_weight", "class_weight", "loss_weights", "mask"}


def reduction(a: Fold, b: Fold, pair: Pair) -> Change | None:
    """A batch's loss is a sum on one side and a mean on the other.

    To the mean over the d losses of a batch, all of its rows or, under a mask, the valid: `l / d`
    of a sum, `l s / d` of a mean by sample weights that add to s. Sums on both sides depend on the
    batches, too: they stay sums, of batches of one size.
    """
    seen = undeclared(a, b, pair)
    kinds = list(seen or (reduction_of(each.call) for each in (pair.a, pair.b)))
    if pair.same_entries or kinds[0] == kinds[1] != "sum" or set(kinds) <= set(MEANS):
        return None
    found = match(a.ledger["batch_id"], b.ledger["batch_id"])
    if kinds[0] == kinds[1] and not seen and (found.all_of_a or found.all_of_b):
        return None
    if bool(alike(a.ledger["loss"][found.a], b.ledger["loss"][found.b]).all()) and len(found.a):
        return None
    each = _losses_a_row(a, b, pair, found)
    if not each:
        return None
    changed = [_meant(fold, kind, each) for fold, kind in zip((a, b), kinds, strict=True)]
    if kinds[0] == kinds[1]:
        sizes = [_size(fold, each) for fold in (a, b)]
        changed = [
            _summed(fold, each, size, sum(sizes) / 2)
            for fold, size in zip((a, b), sizes, strict=True)
        ]
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
    return Change("reduction", ours, theirs, evidence, advice)


def scaling(a: Fold, b: Fold, pair: Pair) -> Change | None:
    """The same losses, times one factor: `l_b = f l_a` in every step of both.

    f or 1/f the replicas or the steps that one update gathers, as recorded; else the batch's rows,
    or these by one number, as where a short batch's sum is divided by `BATCH_SIZE`, or the values
    of a row's target: its reduction; else any whole number: a loss divided before it was logged.
    Where the two cut their rows otherwise, it is so of the sums over as many rows.
    """
    other_start = all(each.names[0] for each in (pair.a, pair.b)) and not pair.same_start
    if pair.same_call or pair.goes_on or other_start:
        return None
    scales = a.ledger.scale, b.ledger.scale
    if not all(map(math.isfinite, scales)):
        return None
    if not near(*scales):
        told = f"A step's loss is {scales[0]:.6g} times its data term in a, {scales[1]:.6g} in b."
        return _by(a, b, "accumulation_scaling", scales[1] / scales[0], told)
    if _WEIGHTS & set(pair.factors):
        return None  # all of them scale alike, too
    found = match(a.ledger["batch_id"], b.ledger["batch_id"])
    if any(weighed_otherwise(column, a, b, found) for column in ("sample_weight", "elements")):
        return None
    ours, theirs = _side_by_side(a, b, pair, found) or (np.zeros(0), np.zeros(0))
    usable = np.isfinite(ours) & np.isfinite(theirs) & (ours * theirs > 0)
    if not len(usable) or not usable.all() or alike(ours, theirs).all():
        return None
    return _of_one_factor(a, b, pair, found, theirs / ours)


def _of_one_factor(a: Fold, b: Fold, pair: Pair, found: Match, ratio: Floats) -> Change | None:
    """What a factor that all losses have in common is, where it is the rows or a whole number."""
    whole = float(np.median(ratio))
    size = round(min(max(whole, 1 / whole), LARGEST + 1))
    cause = _scaled_by(pair, size)
    told = f"Each of {counted(len(b.ledger), 'step')} has in b {{}} times the loss that a has."
    rows = a.ledger["rows"][found.a] if a.ledger.has("rows") else b.ledger["rows"][found.b]
    if cause is None and len(ratio) == len(rows) > 1 and (rows > 1).all():
        for factor, name in ((rows, "its rows"), (1 / rows, "1 / its rows")):
            if alike(ratio, factor).all():
                factor = factor[np.argsort(found.b)]
                return _by(a, b, "reduction", factor, told.format(name))
    if len(ratio) == len(rows) > 0 and (rows > 0).all() and len(set(rows.tolist())) > 1:
        for each, kept in ((rows / ratio, 1), (rows * ratio, -1)):  # divided by one number
            divisor = round(float(np.median(each)))
            if divisor > 1 and alike(each, np.full(len(each), float(divisor))).all():
                name = f"its rows / {divisor}" if kept == 1 else f"{divisor} / its rows"
                factor = ((rows / divisor) ** kept)[np.argsort(found.b)]
                return _by(a, b, cause or "reduction", factor, told.format(name))
    factor = float(size) if whole > 1 else 1 / size
    by_chance = (2 * SAME * size) ** len(ratio)  # how likely any ratio is so near a whole number
    if size < 2 or by_chance > 1e-3 or not alike(ratio, np.full(len(ratio), factor)).all():
        return None
    name = f"{size}" if whole > 1 else f"1/{size}"
    return _by(a, b, cause or "accumulation_scaling", factor, told.format(name))


def _side_by_side(a: Fold, b: Fold, pair: Pair, found: Match) -> tuple[Floats, Floats] | None:
    """The losses of the same batches; else the sums over as many rows, where both end a batch."""
    folds = a, b
    rows = [fold.ledger["rows"] for fold in folds]
    losses = [fold.ledger.data for fold in folds]
    if len(rows[0]) == len(rows[1]) and found.all_of_a and found.all_of_b:
        same = np.array_equal(rows[0][found.a], rows[1][found.b])
        same = same or not all(fold.ledger.has("rows") for fold in folds)
        return (losses[0][found.a], losses[1][found.b]) if same else None
    ids = [fold.ledger["batch_id"] for fold in folds]
    begins = pieces(ids[0], rows[0], ids[1], rows[1])
    if begins is None:
        if not pair.any_batches or not same_rows(*ids):
            return None
        begins = (np.zeros(1, int),) * 2
    sums = [np.add.reduceat(n * each, at) for n, each, at in zip(rows, losses, begins, strict=True)]
    return sums[0], sums[1]


def _by(a: Fold, b: Fold, cause: str, factor: "Floats | float", evidence: str) -> Change:
    """b's data terms without the factor; one of each step in the order of b's epoch."""
    ledger = b.ledger
    columns = ledger.columns
    loss = columns["loss"].copy()
    loss[ledger.start :] = ledger.data / factor + ledger.penalties[ledger.start :]
    advice = {
        "reduction": 'Divide a summed loss by its rows, or compile with "sum_over_batch_size".',
        "replica_scaling": "Log the loss before it is divided by the number of replicas.",
    }.get(cause, "Log the loss before it is divided by the steps that one update gathers.")
    return Change(cause, a, b.of_losses(loss), evidence, advice)


def _scaled_by(pair: Pair, size: int) -> str | None:
    """Which cause a record of as many replicas, gathered steps, or values of a target makes it."""
    records = [each.call.configuration for each in (pair.a, pair.b)]
    if size > 1 and size in [record.get("replicas") for record in records]:
        return "replica_scaling"
    if size > 1 and size in [record.get("gradient_accumulation_steps") for record in records]:
        return "accumulation_scaling"
    shapes = [cast("list[int | None]", each.get("shape") or []) for each in pair.targets]
    widths = [math.prod(each or 0 for each in shape[1:]) for shape in shapes]
    summed = size > 1 and size in widths
    return "reduction" if summed else None


def _meant(fold: Fold, kind: str | None, each: int) -> Fold | None:
    """The fold of each batch's mean over its rows."""
    columns = fold.ledger.columns
    if kind in MEANS or (kind == BY_WEIGHTS and "sample_weight" not in columns):
        return fold
    if kind not in ("sum", BY_WEIGHTS):
        return None
    penalties = fold.ledger.penalties
    total = columns["loss"] - penalties
    if kind == BY_WEIGHTS:
        total = total * columns["sample_weight"]
    return fold.of_losses(total / _count(fold, each) + penalties)


def _count(fold: Fold, each: int) -> Floats:
    """How many losses each batch has, as long as the columns are."""
    columns = fold.ledger.columns
    return columns["elements"] if fold.ledger.has("elements") else columns["rows"] * each


def _size(fold: Fold, each: int) -> float:
    """How many losses a batch has on average, by the weights of the fold."""
    begin = fold.ledger.start
    weights = fold.ledger.weights(fold.form.weight)[begin:]
    return float((_count(fold, each)[begin:] * weights).sum() / weights.sum())


def _summed(fold: Fold, each: int, size: float, common: float) -> Fold:
    """The fold of sums over batches of one size; a plain mean of sums needs but its own size."""
    penalties = fold.ledger.penalties
    own = size if fold.weighs_by == "one" else _count(fold, each)
    return fold.of_losses((fold.ledger.columns["loss"] - penalties) * common / own + penalties)


def _losses_a_row(a: Fold, b: Fold, pair: Pair, found: Match) -> int:
    """How many losses a row has: as the step's trace, the same batches or the targets tell.

    0 where that is another number in each output.
    """
    known = pair.a.call.losses_per_row or pair.b.call.losses_per_row
    if known:
        return known
    kinds = [reduction_of(each.call) for each in (pair.a, pair.b)]
    if pair.held and found.known and len(found.a) and kinds.count("sum") == 1:
        summed, place, other = a.ledger, found.a, b.ledger.data[found.b]
        if kinds[1] == "sum":
            summed, place, other = b.ledger, found.b, a.ledger.data[found.a]
        ratios = summed.data[place] / other / summed["rows"][place]
        size = float(np.median(ratios))
        one = not outputs_of(pair.a.call) or bool(alike(ratios, np.full(len(ratios), size)).all())
        if np.isfinite(size) and size >= 1 and one:
            return max(1, round(size))
    given = arrays_of(pair.a.call.arguments.get("y"))
    shapes = [cast("list[int | None]", each.get("shape") or []) for each in given]
    sizes = {math.prod(each or 1 for each in shape[1:-1]) for shape in shapes}
    return sizes.pop() if len(sizes) == 1 else 0 if sizes else 1
