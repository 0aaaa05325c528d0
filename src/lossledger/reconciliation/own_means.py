"""A step of the user's that tells a mean of its own for its loss, where the other training shows.

A `train_step` may return one, or a loop give it to `run.step`; nothing there shows the loss of a
batch, so the entries are these means. But a training of the same batches from the same weights,
whose entries are losses, gives them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from lossledger.call import entries_of
from lossledger.exact import running_mean
from lossledger.reconciliation.fold import Fold, Form
from lossledger.reconciliation.ledgers import ledger_of
from lossledger.reconciliation.moves import Move, alike, number
from lossledger.reconciliation.reading import Reading
from lossledger.vectors import Floats, Integers

_COLUMNS = ("loss", "rows", "epoch", "batch_id")
_RETURNS = "its train_step returns a mean of its own, and no step's loss"
_GIVES = "it gives run.step a mean of its own, and no step's loss"
_NEWTON, _STEP = 8, 1e-6
_RETURN = "Return the step's loss, or a metric of Keras's that the model lists."
_GIVE = "Give run.step the step's loss."


def seen_through(a: Reading, b: Reading) -> tuple[Reading, Reading]:
    """Both numbers; one that is such a mean as the fold of losses that it is."""
    return _told_by(a, b), _told_by(b, a)


def _told_by(reading: Reading, other: Reading) -> Reading:
    """A number as the mean over the other training's losses; as it is where it isn't one."""
    if not _may_be_mean(reading) or _may_be_mean(other) or other.fold is None:
        return reading
    mine, theirs = _columns(reading), _columns(other)
    shown, losses = mine["loss"], theirs["loss"][: len(mine["loss"])]
    if len(shown) < 2 or len(losses) < len(shown) or alike(shown, losses).all():
        return reading
    if not all(_agree(mine[name], theirs[name][: len(shown)]) for name in ("rows", "batch_id")):
        return reading
    own = reading.fold.form if reading.fold else Form.named("last")
    for form, begins, weights in _means(mine):
        if alike(shown, running_mean(losses, weights, begins)).all():
            if own.shape == "last":
                how = "It is kept in float32."
                return _as_fold(reading, form, losses, "float32_accumulation", how)
            how = f"What each step gives is {_words(form)}, and {own.text} folds these means."
            return _as_fold(reading, own, losses, "convention", how)
    beta = _decay(shown, losses)
    if beta is None:
        return reading
    how = f"The step tells an exponential mean, in which a loss fades by {number(beta)} a step."
    form = Form.named("epoch_mean") if own.shape == "last" else own
    return _as_fold(reading, form, losses, "convention", how)


def _agree(mine: np.ndarray, theirs: np.ndarray) -> bool:
    """Whether a column is the same in both, where both have it; a loop may not say it."""
    return np.array_equal(mine, theirs) or not mine.any() or not theirs.any()


def _words(form: Form) -> str:
    of = "all steps" if form.statistic == "cumulative_mean" else "the epoch"
    by = "weighted by rows" if form.weight == "rows" else "each step alike"
    return f"the mean so far of {of}, {by}"


def _may_be_mean(reading: Reading) -> bool:
    call, fold = reading.call, reading.fold
    if fold is None or reading.before:
        return False
    returned = call.configuration.get("custom_train_step") and call.info.get("history_is") == "last"
    return _is_given(reading) or (bool(returned) and fold.form.shape == "last")


def _is_given(reading: Reading) -> bool:
    """Whether a loop gave the losses to `run.step`."""
    return reading.call.driver == "custom"


def _columns(reading: Reading) -> Mapping[str, np.ndarray]:
    """What is needed of a training's entries, up to the end of the epoch."""
    run, calls, steps = reading.training
    blocks = [block for _, block in entries_of(run.path, calls, _COLUMNS)]
    found = {name: np.concatenate([block[name] for block in blocks])[:steps] for name in _COLUMNS}
    return {**found, "loss": found["loss"].astype("f8"), "rows": found["rows"].astype("f8")}


def _means(columns: Mapping[str, np.ndarray]) -> Iterator[tuple[Form, Integers, Floats]]:
    """Means that a step may keep, of all steps or of the epoch's, by steps or by rows.

    Yields:
        The form, the place at which each step's mean begins, and the weights.
    """
    epochs, rows = columns["epoch"], columns["rows"]
    places = np.arange(len(rows))
    begins = np.maximum.accumulate(np.where(np.diff(epochs, prepend=epochs[0]) != 0, places, 0))
    for weight, each in (("one", np.ones(len(rows))), ("rows", rows)):
        yield Form.named("cumulative_mean", weight=weight), np.zeros_like(begins), each
        yield Form.named("epoch_mean", weight=weight), begins, each


def _decay(shown: Floats, losses: Floats) -> float | None:
    """The beta of `m_k = beta m_(k-1) + (1 - beta) l_k`; `None` where no beta gives all steps.

    The mean begins with 0 or with a loss; or it is divided by `1 - beta^k`, as Adam's moments are.
    """
    if len(shown) < 3:
        return None
    counts = np.arange(1, len(shown) + 1)
    with np.errstate(all="ignore"):
        place = 1 + int(np.argmax(np.abs(shown[:-1] - losses[1:])))
        plain = (shown[place] - losses[place]) / (shown[place - 1] - losses[place])
        if _fades(shown, losses, plain):
            return float(plain)
        divided = (losses[1] - shown[1]) / (shown[1] - losses[0])
        for _ in range(_NEWTON):  # the second step alone is rounded too much
            near = _off(shown, losses, counts, divided)
            slope = (_off(shown, losses, counts, divided + _STEP) - near) / _STEP
            divided -= float(near @ slope / (slope @ slope))
        if _fades(shown * (1 - divided**counts), losses, divided):
            return float(divided)
    return None


def _off(shown: Floats, losses: Floats, counts: Integers, beta: float) -> Floats:
    """By how much each step's divided mean is not what beta makes of the one before."""
    means = shown * (1 - beta**counts)
    return means[1:] - beta * means[:-1] - (1 - beta) * losses[1:]


def _fades(means: Floats, losses: Floats, beta: float) -> bool:
    rest = beta * means[:-1] + (1 - beta) * losses[1:]
    return 0 < beta < 1 and bool(alike(rest, means[1:]).all())


def _as_fold(reading: Reading, form: Form, losses: Floats, cause: str, how: str) -> Reading:
    """The number as a fold of losses, and what is left between the two as a cause."""
    assert reading.fold is not None
    begin = reading.begin + reading.call.before
    span = begin, begin + len(reading.fold.ledger)
    ledger = ledger_of(reading.run, reading.call, span, form)
    ledger = ledger.with_loss(losses[len(losses) - len(ledger.columns["loss"]) :])
    fold = Fold(ledger, form)
    note, advice = (_GIVES, _GIVE) if _is_given(reading) else (_RETURNS, _RETURN)
    moves = (*reading.moves, Move(cause, fold.value - reading.fold.value, how, advice))
    return replace(reading, fold=fold, moves=moves, side=replace(reading.side, note=note))
