"""What the exact causes leave: whose it is, where two trainings can tell, and else nobody's."""

import math
import re
from collections.abc import Collection

import numpy as np

from lossledger.reconciliation.align import match, same_rows
from lossledger.reconciliation.causes_held import weighed_otherwise
from lossledger.reconciliation.causes_loss import drops_otherwise, on_one_side
from lossledger.reconciliation.causes_weights import same_valid
from lossledger.reconciliation.chain import Chain
from lossledger.reconciliation.compiled import ignores_class, layers_of
from lossledger.reconciliation.divergence import UNKNOWN
from lossledger.reconciliation.factors import masks
from lossledger.reconciliation.fold import Fold
from lossledger.reconciliation.moves import near, number, signed
from lossledger.reconciliation.optimizers import other_state
from lossledger.reconciliation.pair import ROUNDS, Pair
from lossledger.reconciliation.result import Cause, Divergence

_ADVICE = {
    "hyperparameters": "Give both trainings the same model, optimizer, learning rate and batches.",
    "reduction": 'Give both losses the same reduction, "sum_over_batch_size".',
    "loss_weights": "Weigh the losses alike: loss_weights of compile, or factors in your own step.",
    "mask": "Mask the same targets on both sides, or none.",
    "driver": "Train both with the same driver, fit or train_on_batch.",
    "order": "Train both in the same order: fit(shuffle=False), or the same permutation.",
    "unseen_rows": "Train both on the same rows, the remainder included.",
    "data": "Train both on the same rows.",
    "double_count": "Train on each row once an epoch: steps_per_epoch, a resume or the data "
    "repeat some.",
    "penalty": "Give both models the same regularizers.",
    "randomness": "Give the layers the same rates and seeds.",
    "precision": "Compute both in the same dtype.",
    "compilation": "Compile both alike.",
    "backend": "Train both on the same backend and device.",
    "keras_version": "Train both with the same version of Keras.",
    "replica_scaling": "Give every replica as many rows (drop_remainder=True), or use one replica.",
    "initial_weights": "Begin both from the same weights: load them, or set one seed.",
    "optimizer_state": "Load the optimizer with the weights (model.save keeps it); compile once.",
    "sample_weight": "Train both with the same sample weights.",
    "class_weight": "Train both with the same class weights.",
}

_OF_UPDATES = re.compile("optimizer|gradient_accumulation_steps")
_ADDED = "what the weights, or the valid targets, add to"
_BY_MASKS = (
    "A batch's loss is a sum of means over each output's valid targets, the epoch's mean is by "
    "rows: so it depends on which rows share a batch."
)


def rest(chain: Chain, pair: Pair, parted: Divergence | None) -> Cause | None:
    """The one cause of what is left, where two trainings tell it.

    Two trainings that differ in one recorded thing are a replay of each other with that thing
    swapped: what is left is its amount, of unknown noise, once. Nothing is told where more things
    differ, or where chance does: other seeds, other initial weights, orders drawn at random on
    both sides, other draws of dropout.

    Args:
        chain: What the exact causes left of both folds.
        pair: The two.
        parted: Where they part.
    """
    a, b = chain.a, chain.b
    left = b.value - a.value
    if near(a.value, b.value) or not math.isfinite(left):
        return None
    if pair.same_entries or not all(math.isfinite(fold.ledger.scale) for fold in (a, b)):
        return None
    if pair.same_call:
        return _epochs(a, b, pair, left)
    if pair.goes_on:
        return _went_on(a, b, pair, left)
    if parted is None:
        cut = pair.a.epoch != pair.b.epoch or len(set(pair.spans)) > 1
        return _epochs(a, b, pair, left) if cut else None
    cause = _still(chain, pair)
    if cause is not None:
        evidence = (
            f"The weights stood still, so it doesn't matter how the rows were cut into batches: "
            f"the mean is {number(a.value)} in a, {number(b.value)} in b. What differs: "
            f"{', '.join(pair.factors.get(cause, [_ADDED]))}."
        )
        return Cause(cause, left, "exact", None, evidence, advice_on(cause))
    # Nothing that came before depends on rows that were left out last.
    aside = {"unseen_rows"} - {parted.cause} if _left_out_last(chain, pair) else set[str]()
    cause = sole_cause(pair, parted, aside)
    if cause is None:
        return None
    if cause == "hyperparameters" and pair.held and _same_rows(pair) and _of_valid(pair):
        advice = "Give both the same batches: no weight makes one mean of several outputs' masks."
        evidence = f"The weights stood still. {parted.evidence} {_BY_MASKS}"
        return Cause("weighting", left, "exact", None, evidence, advice)
    kind = "exact" if pair.held and cause != "randomness" else "replayed"
    evidence = (
        f"The same {a.form.text} is {number(a.value)} of a's steps, {number(b.value)} of b's. "
        f"{parted.evidence} Nothing else that is recorded differs, so each training is the "
        "other's replay; one pair tells no noise."
    )
    if pair.held:
        evidence = f"{parted.evidence} The weights stood still, and nothing else differs."
    return Cause(cause, left, kind, None, evidence, advice_on(cause))


def _of_valid(pair: Pair) -> bool:
    """Whether a batch's loss is of means over valid targets."""
    calls = [each.call for each in (pair.a, pair.b)]
    return all(any(map(masks, layers_of(call))) or ignores_class(call) for call in calls)


def _still(chain: Chain, pair: Pair) -> str | None:
    """The one thing that can tell means over the same rows, at the same weights, apart."""
    folds = chain.a, chain.b
    by_rows = all(f.form.weight != "one" or len(set(f.ledger["rows"].tolist())) == 1 for f in folds)
    ids = [fold.ledger["batch_id"] for fold in folds]
    if not pair.any_batches or not by_rows or not same_rows(ids[0], ids[1]):
        return None
    done = {each.cause for each in chain.causes}
    causes = _by_weights({*pair.factors, *_weighed_otherwise(pair)})
    causes -= {"hyperparameters", "order", "unseen_rows", "data", *done}
    causes = causes - {*ROUNDS} or causes
    return causes.pop() if len(causes) == 1 else None


def _left_out_last(chain: Chain, pair: Pair) -> bool:
    """Whether what was left of the first epoch is its beginning, on both sides."""
    for reading, fold in ((pair.a, chain.a), (pair.b, chain.b)):
        whole = reading.fold
        count = len(fold.ledger)
        if whole is None or reading.steps != len(whole.ledger):
            return False
        if not np.array_equal(whole.ledger["batch_id"][:count], fold.ledger["batch_id"]):
            return False
    return any(each.cause == "unseen_rows" for each in chain.causes)


def advice_on(cause: str) -> str:
    """The change that would remove what tells two trainings apart."""
    return _ADVICE.get(cause, "Give both trainings the same.")


def sole_cause(pair: Pair, parted: Divergence, aside: Collection[str] = frozenset()) -> str | None:
    """The one recorded thing in which two trainings differ; `None` of several, or of chance."""
    if parted.cause == UNKNOWN or by_chance(pair, parted):
        return None
    causes = causes_of(pair, parted).difference(aside)
    return causes.pop() if len(causes) == 1 else None


def by_chance(pair: Pair, parted: Divergence) -> bool:
    """Whether what tells the trainings apart was drawn at random."""
    if parted.cause == "initial_weights" and parted.step is None:
        return True
    if parted.cause == "order" and pair.shuffled:
        return True
    if parted.cause == "randomness" and "randomness" not in pair.factors:
        return True
    return pair.noisy and pair.seeds_differ


def causes_of(pair: Pair, parted: Divergence) -> set[str]:
    """All causes that what differs could be."""
    causes = _by_weights({parted.cause, *pair.factors, *_weighed_otherwise(pair)})
    folds = [each.fold for each in (pair.a, pair.b) if each.fold]
    ledgers = [fold.ledger for fold in folds]
    if {"sample_weight", "mask"} <= causes and len(ledgers) == 2 and same_valid(*ledgers):
        causes.discard("sample_weight")  # weights of 0 and 1, in the place of a mask
    if parted.cause == "replica_scaling":
        causes -= {*ROUNDS}  # until there, all of them came to rounding
    _settle_rows(causes, pair, parted)
    _settle_updates(causes, pair, parted)
    if len(folds) == 2 and drops_otherwise(*folds):
        causes.add("nonfinite")
    penalized = len(ledgers) == 2 and not pair.same_call and on_one_side(*ledgers)
    if penalized or pair.other_penalties:
        causes.add("penalty")
    if len(set(pair.spans)) > 1 and (pair.begins or pair.a.epoch != pair.b.epoch):
        causes.add("convention")
    return causes


def _settle_rows(causes: set[str], pair: Pair, parted: Divergence) -> None:
    """Which rows, in what order and batches: what the entries' rows say of it goes before."""
    if parted.cause != "order" and _share_batches(pair):
        causes.discard("order")  # an argument of shuffle that changed no batch
    rows = _counts(pair)
    if len(set(rows)) > 1 and all(rows) and parted.cause != "double_count":
        causes.add("unseen_rows")
    if parted.cause == "double_count":
        causes.discard("unseen_rows")
        if _of_other_sizes(pair):
            causes.add("hyperparameters")
    same = _same_rows(pair)
    if parted.cause == "hyperparameters" and len(set(rows)) == 1 and same is False:
        causes.add("data")  # beside a batch size
    if parted.cause != "unseen_rows" and same and len(set(rows)) == 1:
        causes.discard("unseen_rows")  # an argument that left no row out
    if parted.cause != "data" and same:
        causes.discard("data")
    if parted.cause == "data" and len(set(rows)) == 1:
        causes.discard("unseen_rows")  # an argument that leaves as many rows as the other has
    if parted.cause == "data" and (
        pair.without_remainder or (pair.any_shuffled and not pair.drawn_alike)
    ):
        causes.add("order")  # which other rows don't tell
    arrays = all(name.startswith("arguments") for name in pair.factors.get("precision", ["dtype"]))
    if arrays and (same or parted.cause == "data"):
        causes.discard("precision")  # a dtype of arrays that changed no value, or beside others


def _settle_updates(causes: set[str], pair: Pair, parted: Divergence) -> None:
    """What moves the weights: where nothing moved them, or another thing is seen to."""
    names = pair.factors.get("hyperparameters", [])
    by_layers = names == ["layers"]
    if by_layers and parted.cause == "penalty" and parted.step == 0:
        causes.discard("hyperparameters")  # a layer that changes no data term adds a loss alone
    if pair.held and parted.cause != "hyperparameters" and all(map(_OF_UPDATES.match, names)):
        causes.discard("hyperparameters")  # of updates, after which no loss was
    if other_state(pair):
        causes.add("optimizer_state")
    if pair.other_rates and not pair.held and parted.cause != "optimizer_state":
        causes.add("hyperparameters")


def _by_weights(causes: set[str]) -> set[str]:
    """Causes without class weights beside sample weights: to a loss they are the same."""
    return causes - ({"class_weight"} if "sample_weight" in causes else set[str]())


def _weighed_otherwise(pair: Pair) -> set[str]:
    """What sums of weights, or of valid targets, of the same rows say, where no record does."""
    folds = [each.fold for each in (pair.a, pair.b) if each.fold]
    if len(folds) < 2 or pair.same_call:
        return set()
    a, b = folds
    found = match(a.ledger["batch_id"], b.ledger["batch_id"])
    for cause, column in (("mask", "elements"), ("sample_weight", "sample_weight")):
        has = [fold.ledger.has(column) for fold in folds]
        if found.known and len(found.a):
            other = all(has) and weighed_otherwise(column, a, b, found)
        else:
            other = any(has) and _same_rows(pair) and _of_other_totals(column, pair)
        if other:
            named = {"sample_weight", "class_weight", "mask"} & set(pair.factors)
            return named or {cause}  # class weights and masks reach a loss as sample weights
    return set()


def _of_other_totals(column: str, pair: Pair) -> bool:
    """Whether the weights, or valid targets, of the same rows add to another number.

    Where a side has none, each of its values counts as 1.
    """
    totals: list[float] = []
    for each in (pair.a, pair.b):
        ledger = each.fold.ledger if each.fold else None
        if ledger is not None:
            values = ledger["rows"] * (each.call.losses_per_row or 1)
            totals.append(float((ledger[column] if ledger.has(column) else values).sum()))
    return len(totals) == 2 and not near(*totals)


def _counts(pair: Pair) -> list[int]:
    """How many rows each epoch has; where one's weights add to as many as the other has, these."""
    ledgers = [each.fold.ledger for each in (pair.a, pair.b) if each.fold]
    rows = [int(ledger["rows"].sum()) for ledger in ledgers]
    for place, ledger in enumerate(ledgers):
        if len(rows) == 2 and ledger.has("sample_weight"):
            total = float(ledger["sample_weight"].sum())
            rows = [rows[1 - place]] * 2 if near(total, rows[1 - place]) else rows
    return rows


def _of_other_sizes(pair: Pair) -> bool:
    """Whether the epochs' first batches have other sizes."""
    ledgers = [each.fold.ledger for each in (pair.a, pair.b) if each.fold]
    return len({int(ledger["rows"][0]) for ledger in ledgers if len(ledger)}) > 1


def _share_batches(pair: Pair) -> bool:
    """Whether both epochs have a batch in common, as far as they say."""
    ids = [each.fold.ledger["batch_id"] for each in (pair.a, pair.b) if each.fold]
    return len(ids) < 2 or bool(len(match(*ids).a))


def _same_rows(pair: Pair) -> bool | None:
    """Whether the epochs hold the same rows; `None` where their batches don't tell."""
    ids = [each.fold.ledger["batch_id"] for each in (pair.a, pair.b) if each.fold]
    return same_rows(*ids) if len(ids) == 2 and all(each.all() for each in ids) else None


def _epochs(a: Fold, b: Fold, pair: Pair, left: float) -> Cause:
    """Two epochs of one call, or of two trainings that are the same as far as both go."""
    one = "one call" if pair.same_call else "the same training"
    cut = f" (steps {pair.spans[0]} and {pair.spans[1]})" if not pair.same_call else ""
    cut = f" ({pair.begun}; steps {pair.spans[0]} and {pair.spans[1]})" if pair.begins else cut
    evidence = (
        f"Epoch {pair.a.epoch} against epoch {pair.b.epoch} of {one}{cut}: their {a.form.text} is "
        f"{number(a.value)} and {number(b.value)}; the training between them is {signed(left)}."
    )
    advice = "Compare the same epoch, of the same steps."
    return Cause("convention", left, "exact", None, evidence, advice)


def _went_on(a: Fold, b: Fold, pair: Pair, left: float) -> Cause | None:
    """Two calls of which the one goes on where the other ended, and that differ in nothing else."""
    if set(pair.factors) - {"order"} or _same_rows(pair) is False:
        return None
    later, other = (pair.b, "a") if pair.goes_on == "b" else (pair.a, "b")
    if later.call.arguments.get("initial_epoch"):
        return _epochs(a, b, pair, left)
    evidence = (
        f"{pair.goes_on}'s call began with the weights that {other}'s ended with: {a.form.text} is "
        f"{number(a.value)} and {number(b.value)}."
    )
    return Cause("initial_weights", left, "replayed", None, evidence, _ADVICE["initial_weights"])
