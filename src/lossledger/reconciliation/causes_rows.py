"""Causes in which steps a number is made of: left out, counted twice, or not shown."""

from typing import Literal

import numpy as np

from lossledger.reconciliation.align import drops_remainder, match, same_rows
from lossledger.reconciliation.fold import Fold, Ledger, shown
from lossledger.reconciliation.moves import Change, alike, number
from lossledger.reconciliation.pair import Pair
from lossledger.vectors import Ids, Mask
from lossledger.words import counted


def unseen_rows(a: Fold, b: Fold, pair: Pair) -> Change | None:
    """Rows that one side leaves out of its number, or never trains on.

    The fold of all steps of the side that has more, less the fold of those steps of it whose
    batches the other side has: found by the batches' fingerprints, which tell its first rows in
    batches of another size, too; without them, by place where the losses agree. A short last
    batch beside an epoch that has one batch less, and no short one, is such a step, whatever the
    order of rows.
    """
    for which, more, less in (("a", a, b), ("b", b, a)):
        if which == pair.wraps:
            continue  # what it has more are rows that it had before
        again, other = more.ledger.again, less.ledger.again  # a cause of their own
        left_out = np.zeros(len(again), bool)
        found = _left_out(more.ledger.keep(~again), less.ledger.keep(~other))
        if found is not None:
            left_out[~again] = found
        if left_out.any():
            return _without("unseen_rows", which, (a, b), left_out)
    return None


def double_count(a: Fold, b: Fold, pair: Pair) -> Change | None:
    """Steps counted twice, as after a resume.

    The fold of all steps, less the fold without those that the run itself marks as trained again;
    where it marks none, without those after all rows of the data, or, where the program may have
    put the weights back, those that came first of batches that the other side has once.
    """
    for which, more, less in (("a", a, b), ("b", b, a)):
        if more.ledger.again.any() and not less.ledger.again.any():
            return _without("double_count", which, (a, b), more.ledger.again)
    for which, more, less, reading in (("a", a, b, pair.a), ("b", b, a, pair.b)):
        on = which == pair.wraps and not reading.call.loads
        beyond = _beyond(more.ledger, less.ledger) if on else None
        if beyond is not None:
            return _without("double_count", which, (a, b), beyond)
        found = match(more.ledger["batch_id"], less.ledger["batch_id"])
        if found.known and found.all_of_b and found.again_a.any():
            again = _first_times(more.ledger, found.again_a)
            return _without("double_count", which, (a, b), again)
    return None


def hidden_steps(a: Fold, b: Fold, pair: Pair) -> Change | None:
    """Steps that a log with a stride, or of executions of several steps, never shows.

    The fold of all steps, less the fold of the last one of every so many.
    """
    del pair
    if a.form.every == b.form.every:
        return None
    folds = [fold.by(every=1) for fold in (a, b)]
    told: list[str] = []
    for name, fold in (("a", a), ("b", b)):
        if fold.form.every > 1:
            count = len(fold.ledger)
            seen = int(shown(count, 0, fold.form.every).sum())
            told.append(f"{name} shows {counted(seen, 'step')} of {count:,}")
    evidence = (
        f"{' and '.join(told)}; of all of them it is {number(folds[0].value)} in a, "
        f"{number(folds[1].value)} in b."
    )
    advice = "Keep each step's loss: a log with a stride, or of executions, leaves steps out."
    return Change("hidden_steps", folds[0], folds[1], evidence, advice)


def _left_out(more: Ledger, less: Ledger) -> Mask | None:
    """Which steps the other side has no counterpart of, where it has all others, or some again."""
    if not len(less):
        return None
    found = match(more["batch_id"], less["batch_id"])
    if found.known and not (found.only_b & ~found.again_b).any():
        return found.only_a & ~found.again_a
    beyond = _beyond(more, less)
    if beyond is not None:
        return beyond
    last = np.arange(len(more)) == len(more) - 1
    if drops_remainder(more["rows"], less["rows"]):
        return last
    ahead = len(more) > len(less) and bool(
        alike(more["loss"][: len(less)], less["loss"]).all()
        and (not less.has("rows") or (more["rows"][: len(less)] == less["rows"]).all())
    )
    return np.arange(len(more)) >= len(less) if ahead and not found.known else None


def _beyond(more: Ledger, less: Ledger) -> Mask | None:
    """The steps after those that hold all rows of the other, in batches of another size."""
    for place in np.flatnonzero(np.cumsum(more["rows"]) == less["rows"].sum()).tolist():
        if place + 1 < len(more) and same_rows(more["batch_id"][: place + 1], less["batch_id"]):
            return np.arange(len(more)) > place
    return None


def _first_times(ledger: Ledger, again: Mask) -> Mask:
    """As many of the steps of each batch that is there again, from the front."""
    ids = ledger["batch_id"]
    left: dict[int, int] = {}
    for batch in ids[again].tolist():
        left[batch] = left.get(batch, 0) + 1
    mask = np.zeros(len(ids), bool)
    for place in np.flatnonzero(np.isin(ids, ids[again])).tolist():
        batch = int(ids[place])
        if left.get(batch, 0):
            mask[place] = True
            left[batch] -= 1
    return mask


def _without(
    cause: Literal["unseen_rows", "double_count"], which: str, folds: tuple[Fold, Fold], mask: Mask
) -> Change:
    fold = folds[0] if which == "a" else folds[1]
    ledger, other = fold.ledger, "b" if which == "a" else "a"
    kept = fold.over(ledger.keep(~mask))
    losses, rows = fold.losses[ledger.start :], ledger["rows"]
    means = [_mean(losses[part], rows[part]) for part in (mask, ~mask)]
    steps = f"{int(mask.sum()):,} of {counted(len(mask), 'step')}"
    count = f"{int(rows[mask].sum()):,} of {counted(int(rows.sum()), 'row')}"
    if cause == "unseen_rows":
        evidence = (
            f"{other} leaves out {steps} of {which}: {count}, whose loss is {number(means[0])} "
            f"where the others' is {number(means[1])}."
        )
        if _elsewhere(*(each.ledger["batch_id"] for each in (kept, folds[which == "a"]))):
            evidence = (
                f"{other} leaves out as many rows as {steps} of {which} have, {count}, but trains "
                f"on none of its batches. Without these steps {which} is {number(kept.value)}."
            )
        advice = "Train on the remainder, too, and average over all rows; or drop it on both sides."
    else:
        marked = ledger.again.any()
        batches = "that a resume trained again" if marked else f"of batches that {other} has once"
        evidence = (
            f"{which} counts {steps} twice: {count} {batches}, with a loss "
            f"of {number(means[0])} where the others' is {number(means[1])}."
        )
        advice = "Where a training resumes or restores weights, drop the losses of the steps that "
        advice += "it trains again; see that neither steps_per_epoch nor the data repeat rows."
    changed = (kept, folds[1]) if which == "a" else (folds[0], kept)
    return Change(cause, *changed, evidence, advice)


def _elsewhere(kept: Ids, other: Ids) -> bool:
    """Whether what is left of one side's batches holds none but other rows than the other side's.

    Its number of rows alone tells then that a remainder was dropped.
    """
    found = match(kept, other)
    return found.known and not len(found.a) and not same_rows(kept, other)


def _mean(losses: np.ndarray, rows: np.ndarray) -> float:
    total = float(rows.sum())
    return float((losses * rows).sum() / total) if total else float("nan")
