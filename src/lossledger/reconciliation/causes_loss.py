"""Causes in what a step's loss is made of: penalties, weights of outputs, a batch's reduction."""

import math
from collections.abc import Mapping

import numpy as np

from lossledger.reconciliation.align import match
from lossledger.reconciliation.compiled import loss_weights_of, outputs_of, weights_within
from lossledger.reconciliation.fold import Fold, Ledger
from lossledger.reconciliation.moves import Change, alike, near, number, signed
from lossledger.reconciliation.pair import Pair
from lossledger.reconciliation.parting import first_nonfinite
from lossledger.reconciliation.reading import Reading
from lossledger.vectors import Floats, Mask, among
from lossledger.words import counted

_ALONE = "loss"
_ZERO = 2e-7
"""A penalty that is the float32 rounding of a difference, relatively to the loss."""


def nonfinite(a: Fold, b: Fold, pair: Pair) -> Change | None:
    """NaN or infinity, averaged in or dropped.

    The fold of the finite losses alone, less the fold of all.
    """
    bad = [int((~np.isfinite(_seen(fold))).sum()) for fold in (a, b)]
    if not any(bad):
        return None
    folds = [fold.by(finite=True) for fold in (a, b)]
    kept = _both_finite(a, b)
    if kept is not None:
        folds = [f.over(f.ledger.keep(mask)) for f, mask in zip(folds, kept, strict=True)]
    over = "Over the finite ones" if kept is None else "Without these steps on either side"
    told = [
        f"{side} has {counted(count, 'loss')} of {len(fold.ledger):,} not finite, first in batch "
        f"{int(np.flatnonzero(~np.isfinite(_seen(fold)))[0])}"
        + _began(reading)
        + (f" and drops {'it' if count == 1 else 'them'}" if fold.form.finite else "")
        for side, count, fold, reading in zip("ab", bad, (a, b), (pair.a, pair.b), strict=True)
        if count
    ]
    evidence = (
        f"{'; '.join(told)}. {over} a is {number(folds[0].value)} and b {number(folds[1].value)}."
    )
    advice = "Find the step that gave it (`lossledger show --epoch`); average with np.nanmean only "
    return Change("nonfinite", folds[0], folds[1], evidence, f"{advice}if you also count them.")


def _both_finite(a: Fold, b: Fold) -> tuple[Mask, Mask] | None:
    """Which steps of each are finite on both sides, where both trained on those same batches.

    `None` where they didn't, or a loss that is not finite is in one of the means. A batch with
    NaN in it has a fingerprint of its own, so steps are paired by place first.
    """
    good = [np.isfinite(_seen(fold)) for fold in (a, b)]
    if not all(f.form.finite or mask.all() for f, mask in zip((a, b), good, strict=True)):
        return None
    if len(good[0]) == len(good[1]):
        kept = good[0] & good[1]
        same = [np.array_equal(a.ledger[n][kept], b.ledger[n][kept]) for n in ("batch_id", "rows")]
        if all(same):
            return (kept, kept) if kept.any() else None
    found = match(a.ledger["batch_id"], b.ledger["batch_id"])
    skipped = (good[0] & found.only_a).any() or (good[1] & found.only_b).any()
    kept = good[0][found.a] & good[1][found.b]
    if not found.known or skipped or not kept.any() or (np.diff(found.b) < 0).any():
        return None
    ours, theirs = (np.arange(len(each)) for each in good)
    return among(ours, found.a[kept]), among(theirs, found.b[kept])


def drops_otherwise(a: Fold, b: Fold) -> bool:
    """Whether the two drop losses that are not finite, of other rows, and nothing pairs the rest.

    As where a NaN spreads in batches of other sizes: more rows came after it in the one.
    """
    rows = [float(fold.ledger["rows"][~np.isfinite(_seen(fold))].sum()) for fold in (a, b)]
    return rows[0] != rows[1] and _both_finite(a, b) is None


def _began(reading: Reading) -> str:
    """Where the training's first such loss is, if that is in an epoch before."""
    found = first_nonfinite(*reading.training)
    if found is None or found["epoch"] == reading.epoch:
        return ""
    return f" (of the training in batch {found['batch']} of epoch {found['epoch']})"


def _seen(fold: Fold) -> Floats:
    return fold.losses[fold.ledger.start :]


def penalty(a: Fold, b: Fold, pair: Pair) -> Change | None:
    """Regularizers and `add_loss`, in the one number and not in the other.

    On each side `fold(l - penalty) - fold(l)`, where one side has no penalty, or another
    regularizer, or leaves it out.
    """
    folds = (a, b)
    without = [fold.form.loss != "loss" for fold in folds]
    if any(without):
        if all(without) or not all(
            _has_penalty(f) or w for f, w in zip(folds, without, strict=True)
        ):
            return None
    elif not all(map(_has_penalty, folds)):
        return _forgotten(a, b, pair)
    elif not _penalties_differ(a, b, pair):
        return None
    changed = [
        fold if fold.form.loss not in ("loss", "data") else fold.without_penalty for fold in folds
    ]
    parts = [
        signed(before.value - after.value) for before, after in zip(folds, changed, strict=True)
    ]
    evidence = f"Penalties add {parts[0]} to a and {parts[1]} to b."
    advice = "Compare the data terms, or train both with the same regularizers and add_loss."
    return Change("penalty", changed[0], changed[1], evidence, advice)


def _forgotten(a: Fold, b: Fold, pair: Pair) -> Change | None:
    """A penalty on one side that a step of the user's leaves out on the other, which records none.

    Only where nothing else tells the two apart, in the epoch or in the first step: then its loss is
    the other's data term.
    """
    if not any(map(_has_penalty, (a, b))) or near(a.value, b.value):
        return None
    known, other = (a, b) if _has_penalty(a) else (b, a)
    changed = known.without_penalty
    if not near(changed.value, other.value) and not pair.forgets_penalty:
        return None
    names = "ab" if known is a else "ba"
    evidence = (
        f"Penalties add {signed(known.value - changed.value)} to {names[0]}; {names[1]}'s own step "
        "has the data terms alone."
    )
    advice = "Add sum(model.losses) in the step, as compute_loss does."
    return Change("penalty", *((changed, b) if known is a else (a, changed)), evidence, advice)


def _has_penalty(fold: Fold) -> bool:
    return fold.form.loss == "data" or fold.ledger.has("penalty") or _none_finite(fold)


def _none_finite(fold: Fold) -> bool:
    """Losses that are not finite have no finite penalty either; others decide."""
    finite = np.isfinite(fold.ledger["loss"])
    known = np.isfinite(fold.ledger["penalty"])
    return bool(len(finite)) and bool((known | ~finite).all()) and bool(finite.any())


def _penalties_differ(a: Fold, b: Fold, pair: Pair) -> bool:
    none = [_is_none(fold.ledger) for fold in (a, b)]
    if all(none) or pair.same_entries:
        return False
    if any(none) or "penalty" in pair.factors:
        return True
    if pair.other_penalties and {a.ledger.scale, b.ledger.scale} == {1.0}:
        return True
    if not pair.held:
        return False
    found = match(a.ledger["batch_id"], b.ledger["batch_id"])
    if not (found.all_of_a or found.all_of_b):  # where the data terms agree, nothing else differs
        return near(a.without_penalty.value, b.without_penalty.value) and not near(a.value, b.value)
    ours, theirs = a.ledger["penalty"][found.a], b.ledger["penalty"][found.b]
    losses = np.abs(a.ledger["loss"][found.a]), np.abs(b.ledger["loss"][found.b])
    return not alike(ours, theirs, np.fmax(*losses)).all()


def on_one_side(a: Ledger, b: Ledger) -> bool:
    """Whether one of two epochs has penalties and the other none, as far as both are known."""
    known = a.has("penalty") and b.has("penalty")
    return known and _is_none(a) != _is_none(b)


def _is_none(ledger: Ledger) -> bool:
    penalties = np.abs(ledger["penalty"])
    return bool(((penalties == 0) | (penalties <= _ZERO * np.abs(ledger["loss"]))).all())


def loss_weights(a: Fold, b: Fold, pair: Pair) -> Change | None:
    """Other weights of the losses of several outputs.

    `l + sum((m_i - w_i) l_i)` on each side, m the mean of both sides' weights w; the loss against
    a sum of named losses: that sum.
    """
    named = [fold.form.loss not in ("loss", "data") for fold in (a, b)]
    if any(named):
        return None if all(named) or a.form.loss == b.form.loss else _summed(a, b, named[0])
    fewer = _without_output(a, b, pair)
    if fewer is not None:
        return fewer
    if "loss_weights" not in pair.factors:
        return None
    weights = pair.own_weights or [_weights(each) for each in (pair.a, pair.b)]
    if not weights[0] or not weights[1] or weights[0].keys() != weights[1].keys():
        return None
    if not all(_adds_up(f.ledger, w) for f, w in zip((a, b), weights, strict=True)):
        return None
    middle = {name: (weights[0][name] + weights[1][name]) / 2 for name in weights[0]}
    changed = [_reweighted(fold, mine, middle) for fold, mine in zip((a, b), weights, strict=True)]
    told = [" + ".join(f"{value:g} {name}" for name, value in each.items()) for each in weights]
    evidence = f"The loss is {told[0]} in a, {told[1]} in b."
    advice = "Compile both with the same loss_weights, or compare the outputs' own losses."
    if pair.own_weights:
        advice = "Add the losses by the same weights in both, or compare them one by one."
    return Change("loss_weights", changed[0], changed[1], evidence, advice)


def _without_output(a: Fold, b: Fold, pair: Pair) -> Change | None:
    """An output that has a loss on one side only: `p + sum(w_i l_i)` over those of the other."""
    names = [outputs_of(each.call) for each in (pair.a, pair.b)]
    first = len(names[0]) > len(names[1])
    more, less, other = (a, pair.b, names[0]) if first else (b, pair.a, names[1])
    weights = weights_within(less.call, other)
    if (
        pair.same_call
        or not 0 < len(weights) < len(other)
        or not set(other) <= set(more.ledger.columns)
    ):
        return None
    columns = more.ledger.columns
    changed = more.of_losses(
        more.ledger.penalties + sum(w * columns[name] for name, w in weights.items())
    )
    absent = " and ".join(name for name in other if name not in weights)
    sides = ("b", "a") if first else ("a", "b")
    evidence = (
        f"{sides[0]} has no {absent}, which {sides[1]} adds: without it {sides[1]} is "
        f"{number(changed.value)}."
    )
    advice = "Give every output a loss on both sides, or compare the outputs' own losses."
    return Change("loss_weights", *((changed, b) if first else (a, changed)), evidence, advice)


def _summed(a: Fold, b: Fold, first: bool) -> Change | None:
    named, loss = (a, b) if first else (b, a)
    if not set(named.form.loss.split("+")) <= set(loss.ledger.columns):
        return None
    summed = loss.by(loss=named.form.loss)
    evidence = (
        f"{named.form.loss} stands alone where the loss adds all outputs by their weights: "
        f"{number(summed.value)} against {number(loss.value)}."
    )
    advice = "Multiply each output's loss by its weight in loss_weights before adding."
    changed = (a, summed) if first else (summed, b)
    return Change("loss_weights", *changed, evidence, advice)


def _weights(reading: Reading) -> dict[str, float]:
    """The weight of each named loss, or, of a single output, of the data term."""
    fold, names = reading.fold, outputs_of(reading.call) or (_ALONE,)
    values = loss_weights_of(reading.call)
    if fold is None or len(values) != len(names) or not all(map(math.isfinite, values)):
        return {}
    found = dict(zip(names, values, strict=True))
    known = values[0] != 0 if names == (_ALONE,) else set(names) <= set(fold.ledger.columns)
    return found if known else {}


def _terms(ledger: Ledger, weights: Mapping[str, float]) -> dict[str, Floats]:
    """The losses that the weights are of."""
    columns = ledger.columns
    if set(weights) == {_ALONE}:
        return {_ALONE: (columns["loss"] - ledger.penalties) / weights[_ALONE]}
    return {name: columns[name] for name in weights}


def _adds_up(ledger: Ledger, weights: Mapping[str, float]) -> bool:
    """Whether the named losses, so weighted, and the penalty are the loss."""
    terms = _terms(ledger, weights).items()
    total = ledger.penalties + sum(weights[name] * term for name, term in terms)
    return bool(np.allclose(total, ledger.columns["loss"], rtol=1e-5, equal_nan=True))


def _reweighted(fold: Fold, mine: Mapping[str, float], middle: Mapping[str, float]) -> Fold:
    terms = _terms(fold.ledger, mine)
    more = sum((middle[name] - mine[name]) * terms[name] for name in mine)
    return fold.of_losses(fold.ledger.columns["loss"] + more)
