"""From a number that was shown or handed out to the fold over entries that it is."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from lossledger.exact import running_mean
from lossledger.floats import gap_of, same
from lossledger.reconciliation.fold import Fold, Form
from lossledger.reconciliation.moves import SAME, Move, near, number, signed
from lossledger.returned import are_whole, roundings
from lossledger.statistics import Mean, keras_mean
from lossledger.words import counted

DIFFERS = "differs"
"""How the note begins of a number that is none of its statistics."""

RESETS = 64
"""Places in an epoch that are tried for a reset, at most."""

_OUTSIDE = (
    "Evaluate, and reset metrics, between epochs (on_epoch_end), or with a copy of the model."
)
_AFTER = "State the epoch from its entries, which have all steps; or train these between two fits."
_UPDATED = "Update a metric of that name in train_step, and list it in the model's `metrics`."
_MULTIPLIES = "Use Keras 3.10 or newer, or state the number from the entries."
_ROUNDED = "None is needed: a float32 sum rounds. Keep the entries, and state the number from them."


class Inside(NamedTuple):
    """An evaluation while an epoch went on.

    Args:
        steps: Steps of the epoch before it.
        loss: What it gave.
        by: The method: `evaluate` or `test_on_batch`.
        resets: Whether this Keras resets the metrics before it.
    """

    steps: int
    loss: float
    by: str = "evaluate"
    resets: bool = True


def reported(
    stated: Fold, value: float, inside: Sequence[Inside] = (), replicas: int = 1
) -> tuple[Fold, tuple[Move, ...], str]:
    """A loss that `fit` reported for an epoch.

    Keras adds `loss * weight` and `weight` in float32 and divides, so its number is the fold up
    to `stated - value` of rounding. Where it is another fold of the same entries (a plain mean,
    the last step's loss), it is taken for that.

    Args:
        stated: What the convention of its Keras says that it is.
        value: The number.
        inside: Evaluations while the epoch went on.
        replicas: How many trained at once.

    Returns:
        The fold that it is, what leads there, and a note where it is none of them.
    """
    names = (stated.form.statistic, "epoch_mean", "batch_mean", "last")
    for form in dict.fromkeys((stated.form, *(_like(stated.form, name) for name in names))):
        fold = Fold(stated.ledger, form)
        how = _rounding(fold, value)
        if how is not None:
            left = gap_of(value, fold.value)
            moves = (Move("float32_accumulation", left, how, _ROUNDED),) if left else ()
            return fold, moves, ""
    if stated.form.shape == "last" and value == 0:
        return stated, (Move("convention", stated.value, _untouched(stated), _UPDATED),), ""
    how = _evaluated(stated, value, inside[-1]) if inside else None
    how = how or _reset(stated, value)
    if how is not None:
        return stated, (Move("state_not_reset", stated.value - value, how, _OUTSIDE),), ""
    how = _before_more(stated, value)
    if how is not None:
        return stated, (Move("hidden_steps", stated.value - value, how, _AFTER),), ""
    how = _multiplied(stated, value, replicas) if replicas > 1 else None
    if how is not None:
        return stated, (Move("replica_scaling", stated.value - value, how, _MULTIPLIES),), ""
    off = value - stated.value
    return stated, (), f"{DIFFERS} from {stated.form.text} of the entries by {signed(off)}"


def _untouched(stated: Fold) -> str:
    return (
        "Keras reports its own metric of that name, which the model's train_step never updates: 0, "
        f"where the last step returned {number(stated.value)}."
    )


def _evaluated(stated: Fold, value: float, inside: Inside) -> str | None:
    """How an evaluation inside the epoch makes a number; `None` where it can't.

    It resets the mean and leaves its own loss e of R rows in it, so Keras reports
    `(e R + sum(w l)) / (R + sum(w))` over the steps that follow. R is what solves it, and has to
    be a whole number. Before Keras 3.15 `test_on_batch` resets nothing: it gives the mean with its
    own rows in, and R counts those of the steps before, too.
    """
    place, loss = inside.steps, inside.loss
    tail = slice(stated.ledger.start + place, None)
    losses, weights = stated.losses[tail], _weights(stated)[tail]
    whole = ""
    if len(losses):
        distance = Mean.of(losses, weights).result - value
        rows = float(weights.sum()) * distance / (value - loss) if value != loss else math.inf
        if not (math.isfinite(rows) and abs(rows - round(rows)) <= 1e-3 * rows):
            return None
        whole = f" of {counted(round(rows), 'row')}"
    elif not near(value, loss):
        return None
    article = "An" if inside.by == "evaluate" else "A"
    if not inside.resets:
        return (
            f"A {inside.by} after {counted(place, 'step')} of the epoch put its own loss into the "
            f"mean, which was {number(loss)}{whole} then and is {number(value)} at the end."
        )
    return (
        f"{article} {inside.by}{whole} after {counted(place, 'step')} of the epoch reset its mean: "
        f"{number(value)} is made of the evaluated loss {number(loss)} and of the "
        f"{counted(len(losses), 'step')} that followed, not of all."
    )


def _multiplied(stated: Fold, value: float, replicas: int) -> str | None:
    """How a mean that replicas multiply makes a number; `None` where it can't.

    Keras 3.7 to 3.9 adds the R replicas' sums, each of which holds all that came before, so that
    step k of K weighs `R^(K - k) w_k`: on every replica `assign_add` adds up all of them.
    """
    ledger = stated.ledger
    weight = ledger.weights(stated.form.weight)[ledger.start :]
    # By the first step's: R^K has no float64 where there are many steps.
    weight = weight * float(replicas) ** -np.arange(len(weight))
    mean = Mean.of(stated.losses[ledger.start :], weight).result
    if stated.form.shape != "mean" or not near(mean, value):
        return None
    return (
        f"Its sums were multiplied by the {replicas} replicas at every step, so the first steps "
        f"weigh the most: {number(mean)}, where the steps' mean is {number(stated.value)}."
    )


def _reset(stated: Fold, value: float) -> str | None:
    """How metrics that were reset inside the epoch make a number; `None` where they can't.

    Keras then reports the mean of the steps that follow, or 0 where none does. To be taken for
    that, its float32 sums have to give the number to the last bit.
    """
    count = _left(stated, value, from_end=True)
    whole = len(stated.ledger)
    if count:
        return (
            f"The metrics were reset after {counted(whole - count, 'step')} of the epoch: "
            f"{number(value)} is the mean of the {counted(count, 'step')} that "
            f"followed; of all {whole:,} it is {number(stated.value)}."
        )
    if value == 0 and whole:
        return f"The metrics were reset after the last step: 0 is the mean of none of {whole:,}."
    return None


def _before_more(stated: Fold, value: float) -> str | None:
    """How a number that was reported before the epoch's last steps is made; `None` if it wasn't.

    As where a callback trains on, after Keras has read its metrics at the epoch's end.
    """
    count = _left(stated, value, from_end=False)
    if count is None:
        return None
    return (
        f"{number(value)} is the mean of the epoch's first {counted(count, 'step')}: Keras had "
        "reported it before the others, which a callback trained. Of all "
        f"{len(stated.ledger):,} it is {number(stated.value)}."
    )


def _left(stated: Fold, value: float, *, from_end: bool) -> int | None:
    """Of how many of the epoch's last steps, or first, Keras's float32 sums give a number."""
    order = slice(None, None, -1 if from_end else 1)
    start = stated.ledger.start
    loss, weight = (each[start:][order] for each in (stated.losses, _weights(stated)))
    with np.errstate(all="ignore"):
        means = np.cumsum(loss * weight) / np.cumsum(weight)
    counts = 1 + np.flatnonzero(np.abs(means - value) <= SAME * abs(value))
    for count in counts[counts < len(loss)][::-1][:RESETS].tolist():
        part = loss[:count][order], weight[:count][order]
        if same(float(keras_mean(*part, np.zeros(count))[0]), float(np.float32(value))):
            return count
    return None


def _weights(fold: Fold) -> np.ndarray:
    return fold.ledger.weights(fold.form.weight)


def _like(form: Form, name: str) -> Form:
    other = Form.named(name)
    return replace(form, statistic=other.statistic, parameters=(), weight=other.weight)


def _rounding(fold: Fold, value: float) -> str | None:
    """How rounding makes a fold into the value; `None` where it can't."""
    with np.errstate(over="ignore"):
        short, stated = float(np.float32(value)), float(np.float32(fold.value))
    text = f"reported {value:.9g} for {fold.value:.9g}"
    if same(short, stated):
        return f"Float32 has no nearer number: {text}."
    if fold.form.shape != "mean":
        return None
    loss, weight = (each[fold.ledger.start :] for each in (fold.losses, _weights(fold)))
    if same(short, float(keras_mean(loss, weight, np.zeros(len(loss)))[0])):
        return f"Keras's float32 sums, repeated, give it to the last bit: {text}."
    size = running_mean(np.abs(loss), np.abs(weight), np.zeros(len(loss), np.int64))[-1:]
    bound = float(roundings([len(loss)], size, are_whole(weight))[0])
    if abs(value - fold.value) > bound:
        return None
    steps = counted(len(loss), "step")
    return f"Within the {bound:.1e} that float32 sums over {steps} can come to: {text}."


def returned(raw: Fold, unreset: bool) -> tuple[float, Fold, tuple[Move, ...]]:
    """What `train_on_batch` returned: its plain mean over the epoch, or its last value.

    Before Keras 3.15 the n-th value is `sum(w l) / sum(w)` of all steps since the metrics were
    reset, which `train_on_batch` never does.

    Args:
        raw: The same fold of the losses that the steps computed.
        unreset: Whether this Keras returns that mean, and not the step's loss.

    Returns:
        The number, the fold of the raw losses, and what leads there.
    """
    shown = raw.ledger["reported"]
    losses = raw.ledger["loss"]
    mean = raw.form.shape == "mean"
    value = Mean.of(shown).result if mean else float(shown[-1])
    left = raw.value - value
    if same(raw.value, value) or math.isnan(value):
        return value, raw, ()
    if not unreset:
        how = "train_on_batch returned each step's loss, rounded to float32."
        return value, raw, (Move("float32_accumulation", left, how, _ROUNDED),)
    how = (
        f"train_on_batch returned a mean over all steps since the metrics were last reset: at the "
        f"epoch's end {number(float(shown[-1]))}, where that step's loss was "
        f"{number(float(losses[-1]))}."
    )
    advice = "Call model.reset_metrics() before each train_on_batch, or use Keras 3.15 or newer."
    return value, raw, (Move("state_not_reset", left, how, advice),)
