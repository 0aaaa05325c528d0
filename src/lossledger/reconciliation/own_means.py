"""A step of the user's that returns a mean of its own for its loss, where the other training tells.

Nothing in such a step shows the loss of a batch, so its entries are what it returns. But a training
of the same batches from the same weights, whose entries are losses, gives these means.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from lossledger.call import entries_of
from lossledger.exact import running_mean
from lossledger.reconciliation.fold import Fold, Form
from lossledger.reconciliation.ledgers import ledger_of
from lossledger.reconciliation.moves import Move, alike
from lossledger.reconciliation.reading import Reading

_COLUMNS = ("loss", "rows", "epoch", "batch_id")
_NOTE = "its train_step returns a mean of its own, and no step's loss"


def seen_through(a: Reading, b: Reading) -> tuple[Reading, Reading]:
    """Both numbers; one that is such a mean as the fold of losses that it is."""
    return _told_by(a, b), _told_by(b, a)


def _told_by(reading: Reading, other: Reading) -> Reading:
    """A number as the mean over the other training's losses; as it is where it isn't one."""
    if not _may_be_mean(reading) or _may_be_mean(other) or other.fold is None:
        return reading
    mine, theirs = _columns(reading), _columns(other)
    count = len(mine["loss"])
    first = {name: column[:count] for name, column in theirs.items()}
    same = all(np.array_equal(mine[name], first[name]) for name in ("rows", "batch_id"))
    if count < 2 or not same or alike(mine["loss"], first["loss"]).all():
        return reading
    for form, begins, weights in _means(mine):
        means = running_mean(first["loss"], weights, begins)
        if alike(mine["loss"], means).all():
            return _as_fold(reading, form, first["loss"])
    return reading


def _may_be_mean(reading: Reading) -> bool:
    call, fold = reading.call, reading.fold
    custom = call.configuration.get("custom_train_step") and call.info.get("history_is") == "last"
    return bool(custom) and fold is not None and fold.form.shape == "last" and not reading.before


def _columns(reading: Reading) -> dict[str, np.ndarray]:
    """What is needed of a training's entries, up to the end of the epoch."""
    run, calls, steps = reading.training
    blocks = [block for _, block in entries_of(run.path, calls, _COLUMNS)]
    found = {name: np.concatenate([block[name] for block in blocks])[:steps] for name in _COLUMNS}
    return {**found, "loss": found["loss"].astype("f8"), "rows": found["rows"].astype("f8")}


def _means(columns: dict[str, np.ndarray]) -> Iterator[tuple[Form, np.ndarray, np.ndarray]]:
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


def _as_fold(reading: Reading, form: Form, losses: np.ndarray) -> Reading:
    assert reading.fold is not None
    begin = reading.begin + reading.call.before
    span = begin, begin + len(reading.fold.ledger)
    ledger = ledger_of(reading.run, reading.call, span, form)
    ledger = ledger.with_loss(losses[len(losses) - len(ledger.columns["loss"]) :])
    fold = Fold(ledger, form)
    off = fold.value - reading.side.value
    how = "The step keeps its mean in float32."
    advice = "Return the step's loss, or a metric of Keras's that the model lists."
    moves = (Move("float32_accumulation", off, how, advice),) if off else ()
    return replace(reading, fold=fold, moves=moves, side=replace(reading.side, note=_NOTE))
