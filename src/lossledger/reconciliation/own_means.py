"""A step of the user's that returns a mean of its own for its loss, where the other training tells.

Nothing in such a step shows the loss of a batch, so its entries are what it returns. But a training
of the same batches from the same weights, whose entries are losses, gives these means.
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
_NOTE = "its train_step returns a mean of its own, and no step's loss"
_NEWTON, _STEP = 8, 1e-6
_ADVICE = "Return the step's loss, or a metric of Keras's that the model lists."


def seen_through(a: Reading, b: Reading) -> tuple[Reading, Reading]:
    """Both numbers; one that is such a mean as the fold of losses that it is."""
    return _told_by(a, b), _told_by(b, a)


def _told_by(reading: Reading, other: Reading) -> Reading:
    """A number as the mean over the other training's losses; as it is where it isn't one."""
    if not _may_be_mean(reading) or _may_be_mean(other) or other.fold is None:
        return reading
    mine, theirs = _columns(reading), _columns(other)
    shown, losses = mine["loss"], theirs["loss"][: len(mine["loss"])]
    same = all(np.array_equal(mine[n], theirs[n][: len(shown)]) for n in ("rows", "batch_id"))
    if len(shown) < 2 or not same or alike(shown, losses).all():
        return reading
    for form, begins, weights in _means(mine):
        if alike(shown, running_mean(losses, weights, begins)).all():
            return _as_fold(reading, form, losses, "float32_accumulation", "It is kept in float32.")
    beta = _decay(shown, losses)
    if beta is None:
        return reading
    how = f"The step returns an exponential mean, in which a loss fades by {number(beta)} a step."
    return _as_fold(reading, Form.named("epoch_mean"), losses, "convention", how)


def _may_be_mean(reading: Reading) -> bool:
    call, fold = reading.call, reading.fold
    custom = call.configuration.get("custom_train_step") and call.info.get("history_is") == "last"
    return bool(custom) and fold is not None and fold.form.shape == "last" and not reading.before


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
    moves = (*reading.moves, Move(cause, fold.value - reading.fold.value, how, _ADVICE))
    return replace(reading, fold=fold, moves=moves, side=replace(reading.side, note=_NOTE))
