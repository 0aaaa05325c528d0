"""Causes that only an evaluation can tell: another mode of the layers, weights on their way."""

from typing import TYPE_CHECKING, Any

from lossledger.errors import LossLedgerError
from lossledger.reconciliation.causes_statistic import convention, state_not_reset, weighting
from lossledger.reconciliation.fold import Fold, Form
from lossledger.reconciliation.measured_rows import Rows, between, rows_of
from lossledger.reconciliation.moves import SAME, Move, near, number, signed
from lossledger.reconciliation.pair import Pair, layers_of, stood_still
from lossledger.reconciliation.reading import Reading
from lossledger.reconciliation.rest import advice_on, causes_of, sole_cause
from lossledger.reconciliation.result import Cause, Divergence, gap_of

if TYPE_CHECKING:
    from lossledger.keras.measure import Losses

_MOVING = "Compare evaluations of the same weights: fit's loss averages weights on their way."
_MODE = "Compare numbers of one mode: `evaluate` switches dropout off and holds statistics fixed."


def measured(
    pair: Pair, parted: Divergence | None, model: Any, x: Any, y: Any, sample_weight: Any
) -> tuple[list[Cause], str]:
    """The causes between a number that was measured and one that training made.

    `moving_weights` is the loss in training mode at the final weights, less the mean of the
    steps' losses at the weights that each step had; `inference_mode` is the loss at the final
    weights in inference mode, less that in training mode.

    Args:
        pair: The two, of which one at least is measured.
        parted: Where their trainings part.
        model: The model at the final weights; `None` without one.
        x: The data that were evaluated.
        y: Their targets.
        sample_weight: Their sample weights.

    Returns:
        The causes, and the verdict.
    """
    if pair.a.fold is None and pair.b.fold is None:
        return _both(pair, parted)
    first = pair.a.fold is not None
    trained, evaluated = (pair.a, pair.b) if first else (pair.b, pair.a)
    sign = 1.0 if first else -1.0
    moves, mean = _to_mean(trained, evaluated.side.value, pair)
    left = gap_of(mean.value, evaluated.side.value)
    if parted is not None:
        more, told = [], f"{signed(left)} is unexplained: the two are of other trainings."
    else:
        more, told = _split(trained, evaluated, mean, left, (model, x, y, sample_weight))
    if not more and near(mean.value, evaluated.side.value) and (trained.moves or moves):
        told = f"All of the gap is {' and '.join(move.cause for move in (*trained.moves, *moves))}."
    causes = [
        Cause(each.cause, sign * each.amount, "exact", None, each.evidence, each.advice)
        for each in (*trained.moves, *moves)
    ]
    causes += [
        Cause(e.cause, sign * e.amount, "measured", noise, e.evidence, e.advice)
        for e, noise in more
    ]
    return causes, told


def _to_mean(trained: Reading, value: float, pair: Pair) -> tuple[list[Move], Fold]:
    """What leads from the number to the mean over the epoch's rows, which `evaluate` is like.

    Under a mask it is like the mean over valid targets where its batch was one.
    """
    fold = trained.fold
    assert fold is not None
    goal = Fold(fold.ledger, Form.named("epoch_mean"))
    if fold.ledger.has("elements"):
        valid = goal.by(weight="elements")
        goal = valid if near(valid.value, value) and not near(goal.value, value) else goal
    moves: list[Move] = []
    for stage in (convention, state_not_reset, weighting):
        step = stage(fold, goal, pair)
        if step is not None:
            amount = step.a.value - fold.value + (goal.value - step.b.value)
            moves.append(Move(step.cause, amount, step.evidence, step.advice))
            fold = step.a
    return [move for move in moves if move.amount], goal


def _split(
    trained: Reading, evaluated: Reading, mean: Fold, left: float, live: tuple[Any, ...]
) -> tuple[list[tuple[Move, float | None]], str]:
    """What of the gap each of the two is, and the verdict."""
    rows = rows_of(trained, evaluated)
    if live[0] is not None:
        return _measure(trained, rows, mean, left, live)
    if near(mean.value, mean.value + left):
        return [], "Nothing of the gap is left beyond float32 rounding."
    layers = layers_of(trained.call)
    modes = [layer["class"] for layer in layers if layer.get("training")]
    still = stood_still(trained.call)
    if len(rows.causes) == 1 and layers and still and not modes:
        slug = next(iter(rows.causes))
        evidence = f"The weights never moved, and no layer has a mode: {rows.told}."
        return [(Move(slug, left, evidence, _ADVICE[slug]), None)], f"All of the gap is {slug}."
    if rows.causes:
        moved = "" if still else "the weights moved, and "
        return [], f"{signed(left)} is unexplained: {moved}{rows.told}."
    told = f"the mean over the steps is {number(mean.value)}, evaluated it is "
    told += number(mean.value + left)
    assumed, assuming = (_SEEN, ".") if rows.same else (_ASSUMED, _IF)
    if layers and not modes and not still:
        evidence = f"No layer of the model has a mode of training; {told}, at the final weights."
        move = Move("moving_weights", left, f"{evidence} {assumed}", _MOVING)
        return [(move, None)], f"All of the gap is moving_weights{assuming}"
    if modes and still:
        evidence = f"The weights never moved; {told}, and {_act(modes)} otherwise."
        move = Move("inference_mode", left, f"{evidence} {assumed}", _MODE)
        return [(move, None)], f"All of the gap is inference_mode{assuming}"
    if still:
        told = "weights and layers are the same, so the data are not"
        if mean.ledger.has("elements") or not trained.call.mean_of_rows:
            told += ", or they were evaluated in other batches, on which this loss depends"
        return [], f"{signed(left)} is unexplained: {told}."
    return [], (
        f"{signed(left)} is moving_weights and inference_mode together: the entries can't tell "
        "them apart. Pass model=, x= and y= with the final weights to `lossledger.reconcile`."
    )


def _act(modes: list[str]) -> str:
    """The layers that act otherwise in training, each class once."""
    names = list(dict.fromkeys(modes))
    return f"{' and '.join(names)} {'acts' if len(names) == 1 else 'act'}"


_IF = ", if the data were those of the training."
_ASSUMED = "It is so if the data were those of the training."
_SEEN = "The data are those of the training: their fingerprints are equal."
_ADVICE = {
    "unseen_rows": "Evaluate the rows that were trained on.",
    "data": "Evaluate the rows that were trained on.",
    "class_weight": "Evaluate with sample_weight= of each row's class weight, or train without.",
    "sample_weight": "Evaluate with the sample weights of the training, or train without.",
}


def _measure(
    trained: Reading, rows: Rows, mean: Fold, left: float, live: tuple[Any, ...]
) -> tuple[list[tuple[Move, float | None]], str]:
    from lossledger.keras.measure import losses_of

    model, x, y, sample_weight = live
    size = int(trained.call.arguments.get("batch_size") or 32)
    found = losses_of(model, x, y, sample_weight, size)
    end = trained.names[1]
    if end and found.weights != end:
        raise LossLedgerError(
            "The model hasn't the weights that its training ended with. "
            f"Received: a model with fingerprint {found.weights}; the call ended with {end}. "
            "Pass the model as it was when the call ended.",
            slug="other-weights",
        )
    off = mean.value + left - found.inference
    moves = _modes(found, mean.value)
    if rows.causes:
        moves = [each for each in moves if each[0].cause != "moving_weights"]
    if abs(off) > 1e-5 * abs(found.inference):
        return moves, (
            f"The model's loss on these data is {number(found.inference)}, {signed(-off)} off what "
            "was evaluated: that was of other data, or of other weights."
        )
    kept = [each for each in moves if abs(each[0].amount) > SAME * abs(mean.value)]
    names = " and ".join(
        f"{each.cause} {signed(each.amount)}"
        + (" (noise)" if noise and abs(each.amount) <= noise else "")
        for each, noise in kept
    )
    told = f"Measured: {names or 'nothing'}."
    if rows.causes:
        told += f" The rest is unexplained, moving_weights and {' and '.join(rows.causes)} "
        told += f"together: {rows.told}."
    return kept, told


def _modes(found: "Losses", mean: float) -> list[tuple[Move, float | None]]:
    """The two causes, from the loss at the final weights in both modes."""
    draws = f" (mean of {found.draws} draws)" if found.noise else ""
    training = f"the loss at the final weights is {number(found.training)} in training mode{draws}"
    moving = f"The mean over the steps is {number(mean)}; {training}."
    mode = f"T{training[1:]}, and {number(found.inference)} in inference mode."
    noise = found.noise or None
    return [
        (Move("moving_weights", found.training - mean, moving, _MOVING), noise),
        (Move("inference_mode", found.inference - found.training, mode, _MODE), noise),
    ]


def _both(pair: Pair, parted: Divergence | None) -> tuple[list[Cause], str]:
    """Two measured numbers: of one difference, where there is only one."""
    a, b = pair.a.side.value, pair.b.side.value
    left = gap_of(a, b)
    if left == 0:
        return [], "No gap."
    if near(a, b):
        return [], "The numbers are equal up to float32 rounding."
    rows, aside = between(pair.a, pair.b), set(pair.factors)
    if parted is None and len(rows.causes) == 1 and aside <= {*rows.causes, "data"}:
        slug = next(iter(rows.causes))
        evidence = f"The trainings are the same, but {rows.told}."
        advice = _ADVICE[slug] if slug == "sample_weight" else "Measure both on the same rows."
        return [Cause(slug, left, "measured", None, evidence, advice)], (
            f"One cause: {slug}, {signed(left)}."
        )
    if parted is None and pair.measuring and not pair.factors:
        evidence = f"{', '.join(pair.measuring)} differ, and the trainings don't."
        advice = "Measure both on the same rows: leave validation_steps out."
        return [Cause("unseen_rows", left, "measured", None, evidence, advice)], (
            f"One cause: unseen_rows, {signed(left)}."
        )
    if pair.same_call and pair.a.epoch != pair.b.epoch:
        evidence = f"Epoch {pair.a.epoch} against epoch {pair.b.epoch} of one call."
        cause = Cause("convention", left, "measured", None, evidence, "Compare the same epoch.")
        return [cause], f"One cause: convention, {signed(left)}."
    if pair.goes_on:
        return [], f"{signed(left)} is unexplained: {pair.goes_on} was trained on from there."
    if parted is None:
        return [], f"{signed(left)} is unexplained: the trainings are the same as far as recorded."
    cause = sole_cause(pair, parted)
    if cause is not None and not pair.measuring and not rows.causes:
        evidence = f"{parted.evidence} Nothing else that is recorded differs."
        return [Cause(cause, left, "replayed", None, evidence, advice_on(cause))], (
            f"All of the gap is {cause}."
        )
    names = ", ".join(sorted({*causes_of(pair, parted), *rows.causes}))
    return [], f"{signed(left)} is unexplained: the trainings differ in {names}."
