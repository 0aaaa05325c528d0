"""Causes in how a number is made of its entries: another statistic, no reset, other weights."""

import numpy as np

from lossledger.reconciliation.align import match
from lossledger.reconciliation.compiled import BY_WEIGHTS, reduction_of
from lossledger.reconciliation.fold import Fold, Form
from lossledger.reconciliation.moves import Change, near, number, share
from lossledger.reconciliation.pair import Pair
from lossledger.reconciliation.undeclared import undeclared
from lossledger.words import counted

_STATED = "State the same statistic on both sides: `--statistic` of `lossledger show` has them all."


def convention(a: Fold, b: Fold, pair: Pair) -> Change | None:
    """The same entries under another statistic.

    `f_b(E) - f_a(E)`, f the statistic (its weights included), E the entries of the side whose
    statistic is no mean of an epoch; of either, each to the plain mean, where both are none.
    """
    shapes = {a.form.shape, b.form.shape}
    chosen = pair.same_entries or pair.a.part or pair.b.part
    means = pair.same_entries and (pair.a.part or pair.b.part) and shapes == {"mean"}
    if (means or (chosen and shapes == {"last"})) and len(a.ledger) != len(b.ledger):
        return _other_batch(a, b, pair)
    same = a.form.statistic == b.form.statistic and a.form.parameters == b.form.parameters
    if same or shapes <= {"mean", "cumulative"} or shapes <= {"last", "cumulative"}:
        return None
    changed = (_averaged(a, b.form), _averaged(b, a.form))
    about = " and ".join(
        f"{number(fold.value)} is {fold.form.text} of the entries whose {other.form.text} is "
        f"{number(other.value)}"
        for fold, other in zip((a, b), changed, strict=True)
        if fold is not other
    )
    evidence = f"{a.form.text} in a, {b.form.text} in b; {about}."
    return Change("convention", changed[0], changed[1], evidence, _STATED)


def _other_batch(a: Fold, b: Fold, pair: Pair) -> Change:
    """The loss of a later batch, or the mean up to it, less that of the other's batch."""
    places = [len(fold.ledger) - 1 for fold in (a, b)]
    changed = [
        fold.over(fold.ledger.keep(np.arange(len(fold.ledger)) <= min(places))) for fold in (a, b)
    ]
    of = "of one epoch" if pair.same_entries else "of their epochs"
    what = "The loss of" if a.form.shape == "last" else "The mean up to"
    evidence = f"{what} batch {places[0]} in a, batch {places[1]} in b, {of}."
    return Change("convention", changed[0], changed[1], evidence, "Compare the same batch.")


def _averaged(fold: Fold, other: Form) -> Fold:
    """The mean that the other side's number is, or a plain one, in the place of no mean."""
    if fold.form.shape in ("mean", "cumulative"):
        return fold
    form = other if other.shape == "mean" else Form.named("batch_mean")
    return fold.by(statistic=form.statistic, parameters=form.parameters, weight=form.weight)


def state_not_reset(a: Fold, b: Fold, pair: Pair) -> Change | None:
    """A running mean that goes on over earlier epochs.

    `sum(w l) / sum(w)` over the epoch, less the same over all steps since the first.
    """
    del pair
    shapes = (a.form.shape, b.form.shape)
    if shapes.count("cumulative") != 1:
        return None
    cumulative, other = (a, b) if shapes[0] == "cumulative" else (b, a)
    statistic = "last" if other.form.shape == "last" else "epoch_mean"
    reset = cumulative.by(statistic=statistic)
    earlier = cumulative.ledger.start + (len(cumulative.ledger) - 1 if statistic == "last" else 0)
    evidence = (
        f"The mean still holds {counted(earlier, 'earlier step')}: {number(cumulative.value)}; "
        f"without them it is {number(reset.value)}."
    )
    advice = "Call model.reset_metrics() before each train_on_batch, or at each epoch's beginning."
    changed = (reset, b) if cumulative is a else (a, reset)
    return Change("state_not_reset", *changed, evidence, advice)


def weighting(a: Fold, b: Fold, pair: Pair) -> Change | None:
    """Another weight for each step's loss.

    `sum(v l) / sum(v) - sum(w l) / sum(w)` over the same entries: those of the side that doesn't
    weigh by rows; where neither does, of the side that has more. So rows that the one side leaves
    out are priced as rows, and a list of equal batches needs no weights. Where both weigh alike but
    cut their rows into other batches, each side goes to the weights that don't depend on the
    batches: rows, or what a batch's mean was over.
    """
    if not {a.form.shape, b.form.shape} <= {"mean", "cumulative"}:
        return None
    kinds = [fold.weighs_by for fold in (a, b)]
    if kinds[0] == kinds[1]:
        return _batches(a, b, pair, kinds[0])
    rows = [float(fold.ledger["rows"].sum()) for fold in (a, b)]
    mine = kinds[0] != "rows" if "rows" in kinds else rows[0] >= rows[1]
    fold, kind = (a, kinds[1]) if mine else (b, kinds[0])
    if not _has(fold, kind):
        mine = not mine
        fold, kind = (a, kinds[1]) if mine else (b, kinds[0])
        if not _has(fold, kind):
            return None
    changed = fold.by(weight=kind)
    evidence = _weighed(fold, changed)
    if not (pair.a if mine else pair.b).call.mean_of_rows:
        evidence += " Its loss is no mean of row losses, which no weights make of it."
    advice = "Average with the rows as weights: np.average(losses, weights=rows)."
    if not (pair.a if mine else pair.b).call.mean_of_rows:
        advice = 'Take the same mean on both sides: but of means over rows ("sum_over_batch_size") '
        advice += "each depends on the batches."
    elif {"elements", "sample_weight"} & set(kinds):
        advice = "Average the epoch with the weights that the batches' own means have."
    return Change("weighting", changed if mine else a, b if mine else changed, evidence, advice)


def _has(fold: Fold, kind: str) -> bool:
    return kind in ("one", fold.ledger.kind) or fold.ledger.has(kind)


def _batches(a: Fold, b: Fold, pair: Pair, kind: str) -> Change | None:
    """The same weight kind over other batches: what a batch's own mean was over decides."""
    found = match(a.ledger["batch_id"], b.ledger["batch_id"])
    if pair.same_entries or kind not in ("one", "rows"):
        return None
    if not found.known and undeclared(a, b, pair) is None:
        return None
    if found.known and (found.all_of_a or found.all_of_b):
        return None
    by_weights = all(reduction_of(each.call) == BY_WEIGHTS for each in (pair.a, pair.b))
    wanted = [_own(fold, by_weights) for fold in (a, b)]
    changed = [fold.by(weight=each) for fold, each in zip((a, b), wanted, strict=True)]
    if wanted == [kind, kind]:
        return None
    if _cut_alike(a, b) and (near(a.value, b.value) or not near(*(f.value for f in changed))):
        return None
    named = " and ".join(dict.fromkeys(wanted))
    evidence = (
        f"Both weigh by {kind}, over other batches: {counted(len(a.ledger), 'step')} in a, "
        f"{counted(len(b.ledger), 'step')} in b. By {named} they are {number(changed[0].value)} "
        f"and {number(changed[1].value)}."
    )
    advice = f"Weight the batches by {named}: then their size doesn't matter."
    return Change("weighting", changed[0], changed[1], evidence, advice)


def _own(fold: Fold, by_weights: bool) -> str:
    """What the mean of a batch is over, so that the epoch's mean by it is of no batches."""
    if fold.ledger.has("elements"):
        return "elements"
    return "sample_weight" if by_weights and fold.ledger.has("sample_weight") else "rows"


def _cut_alike(a: Fold, b: Fold) -> bool:
    """Whether both cut their rows into batches of the same sizes, but for a short last one."""
    fewer, more = sorted((fold.ledger["rows"] for fold in (a, b)), key=len)
    full = len(fewer) - 1
    if not np.array_equal(fewer[:full], more[:full]):
        return False
    return len(fewer) == len(more) or bool(fewer[full] <= more[full])


def _weighed(before: Fold, after: Fold) -> str:
    """Where the weights of two folds of the same entries differ most."""
    start = before.ledger.start
    weights = [fold.ledger.weights(fold.form.weight)[start:] for fold in (before, after)]
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = [each / each.sum() for each in weights]
        apart = np.abs(shares[1] - shares[0])
        place = int(np.nanargmax(apart)) if np.isfinite(apart).any() else 0
    loss = before.losses[start:][place]
    rest = np.delete(before.losses[start:], place)
    others = f", the others' mean {number(float(rest.mean()))}" if len(rest) else ""
    rows = int(before.ledger["rows"][place])
    return (
        f"Batch {place} of {len(weights[0]):,} has {counted(rows, 'row')} and weighs "
        f"{share(shares[0][place], 1)} by {before.weighs_by}, {share(shares[1][place], 1)} by "
        f"{after.weighs_by}; its loss is {number(loss)}{others}."
    )
