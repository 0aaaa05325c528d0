"""The entries that a number is made of: where they lie in a run, read into a ledger."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from lossledger import shares
from lossledger.call import Call, entries_of
from lossledger.entry import NAMES
from lossledger.errors import LossLedgerError
from lossledger.reconciliation.fold import Form, Ledger
from lossledger.reconciliation.moves import SAME, alike, near
from lossledger.reconciliation.spec import Spec
from lossledger.run import SUPERSEDED, Run
from lossledger.series import bounds

_COLUMNS = ("epoch", "loss", "weight", "rows", "penalty", "batch_id", "reported")
_OPTIONAL = ("elements", "sample_weight")


def epoch_of(run: Run, calls: Sequence[Call], epoch: int) -> tuple[Call, int, int, int]:
    """The call that ends an epoch, the epoch's number, and where in the line it begins and ends."""
    found: dict[tuple[int, int], tuple[int, int]] = {}
    starts: dict[int, int] = {}
    for call in calls:
        starts.setdefault(call.line, call.before)
    for call, block in entries_of(run.path, calls, ["epoch"]):
        before = starts[call.line]
        for begin, end in zip(*(each.tolist() for each in bounds(block["epoch"])), strict=True):
            key = (call.line, int(block["epoch"][begin]))
            first = found[key][0] if key in found else before + begin
            found[key] = (first, before + end + 1)
        starts[call.line] = before + len(block["epoch"])
    keys = sorted(found)
    meant = [key for key in keys if key[1] == epoch] if epoch >= 0 else keys[epoch:][:1]
    if not meant or -epoch > len(keys):
        has = f"{keys[0][1]} to {keys[-1][1]}" if keys else "none"
        raise LossLedgerError(
            f"The run has no such epoch. Received: {epoch} of {run.where}. It has: {has}.",
            slug="no-epoch",
        )
    line, label = meant[-1]
    begin, end = found[line, label]
    call = next(c for c in reversed(calls) if c.line == line and c.before < end)
    return call, label, begin, end


def up_to(spec: Spec, begin: int, end: int) -> int:
    """Where in its line an epoch ends that ends with the batch that is meant."""
    last = begin + (spec.batch or 0)
    if last >= end:
        raise LossLedgerError(
            f"The epoch has no such batch. Received: {spec.text}. It has {end - begin}, "
            "counted from 0.",
            slug="no-batch",
        )
    return last + 1


def ledger_of(
    run: Run, call: Call, span: tuple[int, int], form: Form, again: int | None = None
) -> Ledger:
    """The entries that a form folds: one epoch, or all of the line up to its end.

    Args:
        run: The run.
        call: The call that ends the epoch.
        span: Where in its line the epoch begins and ends.
        form: The form.
        again: The epoch's number, where its steps that were trained again are to count, too.
    """
    outputs = shares.outputs(run.path)
    has = [*_COLUMNS, *outputs]
    has += [name for name in _OPTIONAL if name not in has and name in NAMES]
    start = 0
    if again is not None:
        parts, start = _all_times(run, call, again, has, back=form.looks_back)
    else:
        begin = 0 if form.looks_back else span[0]
        parts, start = _within(run, call, (begin, span[1]), has), span[0] - begin
    columns = {name: np.concatenate(found) for name, found in parts.items()}
    kept = {name: _typed(name, column) for name, column in columns.items()}
    for name in _OPTIONAL:
        if name in kept and not np.isfinite(kept[name]).any():
            del kept[name]
    ledger = _scaled(Ledger(kept, start, call.weight_kind))
    if call.configuration.get("custom_compute_loss"):
        ledger = _unknown(ledger)
    _check(form, ledger, outputs)
    return ledger


def _within(
    run: Run, call: Call, span: tuple[int, int], names: Sequence[str]
) -> dict[str, list[np.ndarray]]:
    """Columns of a call's line, from one place to another, in pieces."""
    parts: dict[str, list[np.ndarray]] = {name: [] for name in names}
    calls = [c for c in run.calls if c.line == call.line and c.number <= call.number and c.steps]
    done = calls[0].before
    for _, block in entries_of(run.path, calls, names):
        length = len(block["epoch"])
        window = slice(max(span[0] - done, 0), max(span[1] - done, 0))
        if window.start < min(window.stop, length):
            for name in names:  # copies: a view would hold its whole block
                parts[name].append(block[name][window].copy())
        done += length
        if done >= span[1]:
            break
    return parts


def _check(form: Form, ledger: Ledger, outputs: Sequence[str]) -> None:
    unknown = [part for part in form.loss.split("+") if part not in ("loss", "data", *outputs)]
    if unknown or (form.loss == "data" and not ledger.has("penalty")):
        raise LossLedgerError(
            f"The run's entries have no such loss. Received: loss={form.loss}. "
            f"They have: {', '.join(('loss', 'data', *outputs))}; data needs a known penalty.",
            slug="no-loss",
            exit_code=2,
        )


def _scaled(ledger: Ledger) -> Ledger:
    """The entries, where what is added to the data term is a share of it: `l = f d` in every step.

    So it is where a model of the user's scales what Keras gives it, by `super().compute_loss(...)`.
    That is no penalty. Where all losses are one, f or 1/f has to be a whole number.
    """
    loss, penalty = ledger.columns["loss"], ledger.columns["penalty"]
    data = loss - penalty
    with np.errstate(all="ignore"):
        scale = float(np.median(loss / data)) if len(loss) else 1.0
    if not 0 < scale < np.inf or near(scale, 1.0) or not alike(loss, scale * data).all():
        return ledger
    size = max(scale, 1 / scale)
    whole = near(size, round(size))
    if not whole and alike(loss, np.full(len(loss), loss[0])).all():
        return ledger
    if whole:
        scale = float(round(size)) if scale > 1 else 1 / round(size)
    return replace(ledger.with_loss(loss, penalty=np.zeros(len(loss))), scale=scale)


def _unknown(ledger: Ledger) -> Ledger:
    """The entries without what a model's own compute_loss takes away from the data term.

    No regularizer does: it may have scaled data term and penalty together.
    """
    taken = ledger.columns["penalty"] < -SAME * np.abs(ledger.columns["loss"])
    if not len(taken) or not taken.all():
        return ledger
    loss = ledger.columns["loss"]
    return replace(ledger.with_loss(loss, penalty=np.full(len(loss), np.nan)), scale=np.nan)


def _all_times(
    run: Run, call: Call, epoch: int, names: Sequence[str], *, back: bool
) -> tuple[dict[str, list[np.ndarray]], int]:
    """Columns of an epoch, those that were trained again marked, in the order of training.

    Where a form looks back, of all epochs up to where this one ended last, and where it began then.
    """
    parts: dict[str, list[np.ndarray]] = {name: [] for name in (*names, SUPERSEDED)}
    same = [c for c in run.calls if (c.model, c.driver) == (call.model, call.driver)]
    same = [c for c in same if c.number <= call.number]
    ours = [c for c in same if c.line == call.line or c.standing.superseded]
    seen = {c.number: 0 for c in ours}
    counts = {c.number: c.steps for c in ours}
    for each, block in entries_of(run.path, [c.whole for c in ours], names):
        place = np.arange(len(block["epoch"])) + seen[each.number]
        seen[each.number] += len(place)
        mine = (block["epoch"] == epoch) | back
        if mine.any():
            for name, column in block.items():
                parts[name].append(column[mine])
            parts[SUPERSEDED].append((place >= counts[each.number])[mine])
    if not back:
        return parts, 0
    labels = np.concatenate(parts["epoch"])
    end = int(np.flatnonzero(labels == epoch)[-1]) + 1
    starts = np.diff(labels[:end], prepend=labels[0]) != 0
    kept = {name: [np.concatenate(found)[:end]] for name, found in parts.items()}
    kept["epoch"] = [np.cumsum(starts)]  # numbered on, as they came
    return kept, int(np.flatnonzero(starts)[-1]) if starts.any() else 0


def _typed(name: str, column: np.ndarray) -> np.ndarray:
    kinds = {"epoch": np.int64, "batch_id": np.uint64}
    return column.astype(kinds.get(name, np.float64))
