"""Causes in what a weight or a mask leaves out of a batch's loss, and of what its mean is over."""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from lossledger.reconciliation.align import match, pieces
from lossledger.reconciliation.compiled import BY_WEIGHTS, MEANS, reduction_of
from lossledger.reconciliation.fold import Fold, Ledger
from lossledger.reconciliation.moves import Change, alike, near, number
from lossledger.reconciliation.pair import Pair
from lossledger.vectors import Floats


def weights_for_rows(a: Fold, b: Fold, pair: Pair) -> Change | None:
    """Sample weights on one side in the place of rows that the other has, or has not.

    As of padding, or of rows that are left out, whose weight is 0; or of a row that is there
    twice. `sum(n l) / sum(s)` of a batch's mean l over n rows and the sum s of its weights, which
    is the mean over the other side's rows, less `sum(n l) / sum(n)`. Only where these are one
    number, or where each batch's weights add to the rows of the other's, as of a padded remainder.
    Where a batch's mean is over that sum, `mean_with_sample_weight`, it is the epoch's weighting
    alone: `sum(s l) / sum(s)` less `sum(n l) / sum(n)`.
    """
    weighs = [fold.ledger.has("sample_weight") for fold in (a, b)]
    if pair.same_entries or weighs[0] == weighs[1] or {a.form.shape, b.form.shape} != {"mean"}:
        return None
    mine = weighs[0]
    fold, other, reading = (a, b, pair.a) if mine else (b, a, pair.b)
    each = reading.call.losses_per_row or 1
    rows, count = other.ledger["rows"], fold.ledger["sample_weight"] / each
    own = fold.ledger["rows"]
    paired = len(rows) == len(count) and bool(alike(count, rows).all() and (own == rows).any())
    reduced = reduction_of(reading.call)
    if reduced not in (*MEANS, BY_WEIGHTS) or not near(count.sum(), rows.sum()):
        return None
    if alike(own, count).all():
        return None
    changed = _by_weights(fold, each) if reduced == BY_WEIGHTS else _over_weights(fold, each)
    data = [each.without_penalty.value for each in (fold, changed, other)]
    if not (paired or near(data[1], data[2])) or near(data[0], data[2]):
        return None
    of_classes = "class_weight" in reading.call.arguments
    cause = "class_weight" if of_classes else "sample_weight"
    cause = "weighting" if reduced == BY_WEIGHTS else cause
    mean = "The epoch's" if reduced == BY_WEIGHTS else "A batch's"
    names = "ab" if mine else "ba"
    evidence = (
        f"{names[0]}'s weights add to {number(float(count.sum()))} over "
        f"{int(own.sum()):,} rows, as many as {names[1]} has. {mean} mean is "
        f"over its rows, those that weigh nothing too: {number(fold.value)}; over the weights' "
        f"sum it is {number(changed.value)}."
    )
    advice = 'Leave such rows out, or compile with reduction="mean_with_sample_weight" and '
    advice += "average by the sum of the weights."
    if reduced == BY_WEIGHTS:
        advice = "Average the epoch by the sums of weights that the batches' means are over."
    return Change(cause, *((changed, b) if mine else (a, changed)), evidence, advice)


def _by_weights(fold: Fold, each: int) -> Fold:
    """The epoch's mean by the sums of the weights, which a batch's rows are then."""
    kept = fold.over(fold.ledger.keep(fold.ledger["sample_weight"] > 0))
    columns = dict(kept.ledger.columns)
    count = columns.pop("sample_weight") / each  # nothing else is to be done with them
    columns |= {"rows": count, "weight": count}
    return kept.over(replace(kept.ledger, columns=columns))


def _over_weights(fold: Fold, each: int) -> Fold:
    """Each batch's mean over the sum of its weights, which its rows are then; none of weight 0."""
    counted = fold.ledger["sample_weight"] > 0
    kept = fold.over(fold.ledger.keep(counted))
    columns = kept.ledger.columns
    count = columns["sample_weight"] / each
    penalties = kept.ledger.penalties
    loss = (columns["loss"] - penalties) * columns["rows"] / count + penalties
    return kept.of_losses(loss, rows=count, weight=count)


def zeros(a: Fold, b: Fold, pair: Pair) -> Change | None:
    """A mask on one side, sample weights of 0 and 1 of the same targets on the other.

    The mask's mean is over v valid targets, that of the weights over all n rows of d targets
    each, the others as zeros: `l_mask v = l_weights n d` in every step of both, v the sum of the
    weights, too; or in sums of steps, where they cut the same rows otherwise.
    """
    found = None if pair.same_entries else same_valid(a.ledger, b.ledger)
    if found is None:
        return None
    first = a.ledger.has("elements")
    masked, weighed = (a, b) if first else (b, a)
    ours, theirs = found if first else found[::-1]
    valid, rows = ours(masked.ledger["elements"]), theirs(weighed.ledger["rows"])
    totals = ours(masked.ledger.data * masked.ledger["elements"])
    weighted = theirs(weighed.ledger.data * weighed.ledger["rows"])
    each = totals / weighted
    size = max(1, round(float(np.nan_to_num(np.median(each), nan=0.0, posinf=0.0))))
    if not alike(each, np.full(len(each), float(size))).all():
        return None
    if alike(totals / valid, weighted / rows).all():
        return None
    changed = _over_valid(weighed, size, by_valid=masked.weighs_by == "elements")
    names = "ab" if first else "ba"
    total = float(weighed.ledger["rows"].sum()) * size
    evidence = (
        f"{names[0]}'s mask leaves {number(float(valid.sum()))} of {number(total)} targets in, and "
        f"a batch's mean is over these; {names[1]}'s sample weights leave in as many, and its mean "
        "is over all, the others as zeros."
    )
    advice = 'Mask on both sides, or compile the weighted loss with "mean_with_sample_weight".'
    return Change("mask", *((a, changed) if first else (changed, b)), evidence, advice)


def _over_valid(fold: Fold, size: int, *, by_valid: bool) -> Fold:
    """Each batch's mean over the targets that weigh 1; the epoch's, too, where the other's is."""
    columns = fold.ledger.columns
    penalties = fold.ledger.penalties
    loss = (columns["loss"] - penalties) * columns["rows"] * size / columns["sample_weight"]
    changed = fold.of_losses(loss + penalties)
    return changed.by(weight="sample_weight") if by_valid else changed


Adds: TypeAlias = Callable[[Floats], Floats]
"""Adds up a column of an epoch over its steps, or over pieces of several."""


def same_valid(a: Ledger, b: Ledger) -> tuple[Adds, Adds] | None:
    """What adds up both sides' columns over the same rows, where a mask leaves in what weighs 1.

    `None` where the one's valid targets aren't as many as the other's weights add to in every step
    that both have, or piece of the epochs that holds the same rows; or one has a step without any.
    """
    masks = [ledger.has("elements") for ledger in (a, b)]
    weighs = [ledger.has("sample_weight") for ledger in (a, b)]
    if masks == weighs or sorted(masks) != sorted(weighs) or all(masks):
        return None
    adds = _over_same_rows(a, b)
    names = ("elements", "sample_weight") if masks[0] else ("sample_weight", "elements")
    columns = a[names[0]], b[names[1]]
    if adds is None or not all(column.all() for column in columns):
        return None
    ours, theirs = (add(column) for add, column in zip(adds, columns, strict=True))
    return adds if alike(ours, theirs).all() else None


def _over_same_rows(a: Ledger, b: Ledger) -> tuple[Adds, Adds] | None:
    ids = a["batch_id"], b["batch_id"]
    found = match(*ids)
    if found.known and (found.all_of_a or found.all_of_b) and len(found.a):
        return (lambda column: column[found.a]), (lambda column: column[found.b])
    begins = pieces(ids[0], a["rows"], ids[1], b["rows"]) if all(e.all() for e in ids) else None
    if begins is None:
        return None
    ours, theirs = begins
    return (
        lambda column: np.add.reduceat(column, ours),
        lambda column: np.add.reduceat(column, theirs),
    )
