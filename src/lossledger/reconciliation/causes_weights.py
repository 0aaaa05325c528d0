"""Causes in what a weight or a mask leaves out of a batch's loss, and of what its mean is over."""

from dataclasses import replace

import numpy as np

from lossledger.reconciliation.align import Match, match
from lossledger.reconciliation.compiled import BY_WEIGHTS, reduction_of
from lossledger.reconciliation.fold import Fold, Ledger
from lossledger.reconciliation.moves import Change, alike, near, number
from lossledger.reconciliation.pair import Pair

_OVER_ROWS = (None, "sum_over_batch_size", "mean", "auto")


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
    if reduced not in (*_OVER_ROWS, BY_WEIGHTS) or not near(count.sum(), rows.sum()):
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
    each, the others as zeros: `l_mask = l_weights n d / v` in every step of both, v the sum of the
    weights, too.
    """
    found = None if pair.same_entries else same_valid(a.ledger, b.ledger)
    if found is None:
        return None
    first = a.ledger.has("elements")
    masked, weighed = (a, b) if first else (b, a)
    places = (found.a, found.b) if first else (found.b, found.a)
    valid = masked.ledger["elements"][places[0]]
    losses = masked.ledger.data[places[0]], weighed.ledger.data[places[1]]
    rows = weighed.ledger["rows"][places[1]]
    each = losses[0] / losses[1] * valid / rows
    size = max(1, round(float(np.nan_to_num(np.median(each), nan=0.0, posinf=0.0))))
    if not alike(each, np.full(len(each), float(size))).all() or alike(*losses).all():
        return None
    columns = weighed.ledger.columns
    penalties = weighed.ledger.penalties
    counted_all = columns["rows"] * size / columns["sample_weight"]
    loss = (columns["loss"] - penalties) * counted_all + penalties
    changed = weighed.of_losses(loss)
    names = "ab" if first else "ba"
    total = float(weighed.ledger["rows"].sum()) * size
    evidence = (
        f"{names[0]}'s mask leaves {number(float(valid.sum()))} of {number(total)} targets in, and "
        f"a batch's mean is over these; {names[1]}'s sample weights leave in as many, and its mean "
        "is over all, the others as zeros."
    )
    advice = 'Mask on both sides, or compile the weighted loss with "mean_with_sample_weight".'
    return Change("mask", *((a, changed) if first else (changed, b)), evidence, advice)


def same_valid(a: Ledger, b: Ledger) -> Match | None:
    """The steps of both, where one's mask leaves in as many targets as the other's weights add to.

    `None` where it isn't so in every step that both have, or one has a step without any.
    """
    masks = [ledger.has("elements") for ledger in (a, b)]
    weighs = [ledger.has("sample_weight") for ledger in (a, b)]
    if masks == weighs or sorted(masks) != sorted(weighs) or all(masks):
        return None
    found = match(a["batch_id"], b["batch_id"])
    if not found.known or not (found.all_of_a or found.all_of_b) or not len(found.a):
        return None
    names = ("elements", "sample_weight") if masks[0] else ("sample_weight", "elements")
    ours, theirs = a[names[0]][found.a], b[names[1]][found.b]
    return found if alike(ours, theirs).all() and ours.all() else None
