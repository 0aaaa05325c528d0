"""Causes that only an evaluation can tell: another mode of the layers, weights on their way."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lossledger.call import Call
from lossledger.errors import LossLedgerError
from lossledger.reconciliation.causes_loss import loss_weights, penalty
from lossledger.reconciliation.causes_rows import hidden_steps
from lossledger.reconciliation.causes_statistic import convention, state_not_reset, weighting
from lossledger.reconciliation.compiled import layers_of
from lossledger.reconciliation.fold import Fold, Form
from lossledger.reconciliation.measured_both import both
from lossledger.reconciliation.measured_rows import (
    ADVICE,
    ELSEWHERE,
    Rows,
    elsewhere,
    rows_of,
    size_of,
    training_size,
)
from lossledger.reconciliation.moves import SAME, Move, near, number, signed
from lossledger.reconciliation.pair import Pair
from lossledger.reconciliation.reading import Reading
from lossledger.reconciliation.result import Cause, Divergence, gap_of
from lossledger.reconciliation.verdict import named
from lossledger.reconciliation.weights import stood_still

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
        return both(pair, parted)
    first = pair.a.fold is not None
    trained, evaluated = (pair.a, pair.b) if first else (pair.b, pair.a)
    sign = 1.0 if first else -1.0
    moves, mean = _to_mean(trained, evaluated.side.value, pair)
    left = gap_of(mean.value, evaluated.side.value)
    if parted is not None and near(mean.value, evaluated.side.value):
        more, told = [], "The numbers are equal up to float32 rounding."
    elif parted is not None:
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
    if more and len(causes) > len(more) and model is None:
        told = named(causes)
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
    stages = (convention, state_not_reset, weighting, hidden_steps, penalty, loss_weights)
    for stage in stages:
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
        end = evaluated.data.get("weights") or trained.names[1]
        return _measure(trained, end, rows, mean, left, (*live, size_of(evaluated)))
    if near(mean.value, mean.value + left):
        return [], "Nothing of the gap is left beyond float32 rounding."
    begun = evaluated.data.get("weights") == trained.names[0] != ""
    if elsewhere(evaluated, trained) and not begun:
        return [], f"{signed(left)} is unexplained: {ELSEWHERE}."
    layers = layers_of(trained.call)
    modes = any(layer.get("training") for layer in layers)
    still = stood_still(trained.call)
    if len(rows.causes) == 1 and layers and still and not modes:
        slug = next(iter(rows.causes))
        evidence = f"The weights never moved, and no layer has a mode: {rows.told}."
        return [(Move(slug, left, evidence, ADVICE[slug]), None)], f"All of the gap is {slug}."
    if rows.causes:
        moved = "" if still else "the weights moved, and "
        told = f"{signed(left)} is unexplained: {moved}{rows.told}."
        return [], told + (f" {_PASS}" if set(rows.causes) <= {"class_weight", *_CUT} else "")
    return _of_one(trained, mean, left, same=rows.same, at=_BEGUN if begun else _FINAL)


def _of_one(
    trained: Reading, mean: Fold, left: float, *, same: bool, at: str
) -> tuple[list[tuple[Move, float | None]], str]:
    """The gap as that of moving weights, or of another mode, where only one of them can be."""
    layers, still = layers_of(trained.call), stood_still(trained.call)
    modes = [layer["class"] for layer in layers if layer.get("training")]
    told = f"the mean over the steps is {number(mean.value)}, evaluated it is "
    told += number(mean.value + left)
    assumed, assuming = (_SEEN, ".") if same else (_ASSUMED, _IF)
    if layers and not modes and not still:
        evidence = f"No layer of the model has a mode of training; {told}, at {at}."
        if at == _FINAL and trained.call.steps in trained.call.loads:
            evidence += " These the program set after the last step, as restore_best_weights does."
        if at == _FINAL and _averages(trained.call):
            evidence += f" {_AVERAGES}"
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
        f"them apart. {_PASS}"
    )


def _averages(call: Call) -> bool:
    optimizer = call.configuration.get("optimizer")
    return isinstance(optimizer, Mapping) and bool(optimizer.get("use_ema"))


def _act(modes: list[str]) -> str:
    """The layers that act otherwise in training, each class once."""
    names = list(dict.fromkeys(modes))
    return f"{' and '.join(names)} {'acts' if len(names) == 1 else 'act'}"


_CUT = ("weighting", "reduction", "hyperparameters")
"""What a measurement in other batches is a cause of."""
_PASS = "Pass model=, x= and y= with the final weights to `lossledger.reconcile`."
_AVERAGES = "With use_ema they are the optimizer's averages, which replace the weights in the end."
_FINAL, _BEGUN = "the final weights", "the weights that the training began with"
_IF = ", if the data were those of the training."
_ASSUMED = "It is so if the data were those of the training."
_SEEN = "The data are those of the training: their fingerprints are equal."


def _measure(
    trained: Reading, end: str, rows: Rows, mean: Fold, left: float, live: tuple[Any, ...]
) -> tuple[list[tuple[Move, float | None]], str]:
    from lossledger.keras.measure import losses_of

    model, x, y, sample_weight, other = live
    size = training_size(trained) or other or 32
    weights = trained.call.arguments.get("class_weight")
    found = losses_of(model, x, y, sample_weight, (size, other or size), weights)
    if end and found.weights != end:
        raise LossLedgerError(
            "The model hasn't the weights that were evaluated. "
            f"Received: a model with fingerprint {found.weights}; {end} was evaluated. "
            "Pass the model as it was then.",
            slug="other-weights",
        )
    off = mean.value + left - found.evaluated
    moves, unknown = _modes(found, mean.value, rows)
    if abs(off) > 1e-5 * abs(found.evaluated):
        return moves, (
            f"The model's loss on these data is {number(found.evaluated)}, {signed(-off)} off what "
            "was evaluated: that was of other data, or of other weights."
        )
    kept = [each for each in moves if abs(each[0].amount) > SAME * abs(mean.value)]
    names = " and ".join(
        f"{each.cause} {signed(each.amount)}"
        + (" (noise)" if noise and abs(each.amount) <= noise else "")
        for each, noise in kept
    )
    told = f"Measured: {names or 'nothing'}."
    if unknown:
        told += f" The rest is unexplained, moving_weights and {' and '.join(unknown)} "
        told += f"together: {', and '.join(rows.causes[each] for each in unknown)}."
    return kept, told


def _modes(
    found: "Losses", mean: float, rows: Rows
) -> tuple[list[tuple[Move, float | None]], list[str]]:
    """The causes, from losses at the final weights, and of `rows` those that they don't price."""
    amounts = {"class_weight": found.training - found.weighed}
    amounts |= dict.fromkeys(_CUT, found.evaluated - found.inference)
    unknown = [slug for slug in rows.causes if slug not in amounts]
    draws = f" (mean of {found.draws} draws)" if found.noise else ""
    what = f"in training mode{draws}"
    weighed = ", with the class weights" if "class_weight" in rows.causes else ""
    moving = f"The mean over the steps is {number(mean)}; the loss at the final weights is "
    moving += f"{number(found.weighed)} {what}{weighed}."
    training = f"the loss at the final weights is {number(found.training)} {what}"
    mode = f"T{training[1:]}, and {number(found.inference)} in inference mode."
    noise = found.noise or None
    moves = [(Move("inference_mode", found.inference - found.training, mode, _MODE), noise)]
    for slug in rows.causes:
        if slug in amounts:
            evidence = f"At the final weights, {rows.causes[slug]}."
            moves.append((Move(slug, amounts[slug], evidence, ADVICE[slug]), None))
    if not unknown:
        moves.insert(0, (Move("moving_weights", found.weighed - mean, moving, _MOVING), noise))
    return moves, unknown
