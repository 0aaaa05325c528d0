"""`lossledger.reconcile`: the gap between two numbers, cause by cause."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lossledger.reconciliation.chain import chain, merged
from lossledger.reconciliation.comparable import reasons
from lossledger.reconciliation.divergence import UNKNOWN, divergence
from lossledger.reconciliation.file_number import file_of
from lossledger.reconciliation.files import with_files
from lossledger.reconciliation.measured import measured
from lossledger.reconciliation.moves import Move, near
from lossledger.reconciliation.own_means import seen_through
from lossledger.reconciliation.pair import Pair
from lossledger.reconciliation.reading import Reading, read
from lossledger.reconciliation.rest import rest
from lossledger.reconciliation.result import Cause, Reconciliation, gap_of
from lossledger.reconciliation.spec import Spec, Which
from lossledger.reconciliation.undeclared import with_rows
from lossledger.reconciliation.verdict import verdict
from lossledger.run import open as open_run


def reconcile(
    a: Which,
    b: Which,
    *,
    epoch: int = -1,
    across: bool = False,
    directory: str | Path = "runs",
    steps_per_epoch: int | None = None,
    model: Any = None,
    x: Any = None,
    y: Any = None,
    sample_weight: Any = None,
) -> Reconciliation:
    """Splits the gap between two losses into named causes that sum to it.

    Each number is `RUN[@SELECTION][:STATISTIC]`. RUN is what `lossledger.open` takes. The
    statistic is one of `lossledger.statistics.STATISTICS` with its parameters, `reported` (what
    the user was shown), `returned` (what `train_on_batch` returned last), `evaluate`, or a
    validation loss by its name; by default it is what the run's driver reports: the epoch's mean
    of `fit`, the plain mean of a loop's losses. The selection is a call's number, or `call=`,
    `model=`, `epoch=`, `batch=`, `every=`, `loss=`, `weight=`, `finite`, between commas.

    Instead of a run, a file that `lossledger.explain` reads: `FILE[:SERIES]`, as far as a file
    without entries goes.

    Args:
        a: The number to start from: text, a path, a `Run`, or a run and a statistic in a tuple.
        b: The number to arrive at.
        epoch: The epoch of both, where they are of one; from the end where negative.
        across: Whether to go on where the two may not be compared.
        directory: The folder of runs in which a bare name is looked up.
        steps_per_epoch: As in `lossledger.open`.
        model: The model with the weights that its run ended with, to tell what training mode and
            moving weights are worth where one number is `evaluate`.
        x: The data that were evaluated, with `model`.
        y: Their targets.
        sample_weight: Their sample weights.

    Returns:
        A `Reconciliation`.

    Raises:
        LossLedgerError: A number can't be read; the message says which and what to do.

    Example:

    ```python
    lossledger.reconcile("runs/a:epoch_mean", "runs/b:batch_mean", epoch=-1)
    ```
    """
    files = file_of(a), file_of(b)
    if any(files):
        opened = partial(open_run, directory=directory, steps_per_epoch=steps_per_epoch)
        inner = partial(
            reconcile,
            epoch=epoch,
            across=across,
            directory=directory,
            steps_per_epoch=steps_per_epoch,
        )
        return with_files((a, b), files, epoch, opened, inner)
    with np.errstate(all="ignore"):  # what is not finite is told as a cause
        sides = [read(Spec.of(each), epoch, directory, steps_per_epoch) for each in (a, b)]
        pair = Pair(*with_rows(*seen_through(*sides)))
        if not pair.same_form:
            pair = Pair(_unidentified(pair.a), _unidentified(pair.b))
        return _reconciled(pair, across, (model, x, y, sample_weight))


def _reconciled(pair: Pair, across: bool, live: tuple[Any, Any, Any, Any]) -> Reconciliation:
    parted = divergence(pair)
    agree = pair.same_start and (parted is None or bool(parted.step))
    sides = [(each.run, each.call) for each in (pair.a, pair.b)]
    why = () if pair.same_call else reasons(*sides, agree=agree)
    if why and pair.same_start and _one_function(pair):
        why = reasons(*sides, agree=True)
    why = (*why, *pair.other_losses)
    if why and not across:
        told = f"The two may not be compared. {why[0]}"
        return _result(pair, (), told, why)
    if pair.a.fold is None or pair.b.fold is None:
        causes, told = measured(pair, parted, *live)
        return _result(pair, merged(causes), told, why, parted)
    found = chain(pair.a.fold, pair.b.fold, pair)
    finite = math.isfinite(gap_of(pair.a.side.value, pair.b.side.value))
    left = rest(found, pair, parted) if finite else None
    if parted is not None and parted.cause == UNKNOWN and near(found.a.value, found.b.value):
        parted = None  # the causes tell what that step doesn't
    causes = [*shown(pair), *found.causes, *([] if left is None else [left])]
    causes = settled(merged(causes), gap_of(pair.a.side.value, pair.b.side.value))
    return _result(pair, causes, verdict(pair, causes, found, parted), why, parted)


def _one_function(pair: Pair) -> bool:
    """Whether nothing is left where each batch's loss is a sum on one side, a mean on the other."""
    if pair.a.fold is None or pair.b.fold is None:
        return False
    found = chain(pair.a.fold, pair.b.fold, pair)
    return any(e.cause == "reduction" for e in found.causes) and near(found.a.value, found.b.value)


def _unidentified(reading: Reading) -> Reading:
    """A number whose batches can't be known again among the other's."""
    if reading.fold is None:
        return reading
    columns = reading.fold.ledger.columns
    ledger = replace(
        reading.fold.ledger,
        columns={**columns, "batch_id": np.zeros_like(columns["batch_id"])},
    )
    return replace(reading, fold=reading.fold.over(ledger))


def settled(causes: Sequence[Cause], gap: float) -> tuple[Cause, ...]:
    """The causes, of which one at most is not finite: all of a gap that is not."""
    finite = [cause for cause in causes if math.isfinite(cause.amount)]
    others = [cause for cause in causes if not math.isfinite(cause.amount)]
    if not others or math.isfinite(gap):
        return tuple(finite)
    first = next((cause for cause in others if cause.cause == "nonfinite"), others[0])
    return (*finite, replace(first, amount=gap))


def shown(pair: Pair) -> list[Cause]:
    """What leads from a number that was reported to its fold, and from the other's fold to it."""

    def cause(move: Move, sign: float) -> Cause:
        return Cause(move.cause, sign * move.amount, "exact", None, move.evidence, move.advice)

    return [cause(m, 1.0) for m in pair.a.moves] + [cause(m, -1.0) for m in pair.b.moves]


def _result(pair: Pair, causes: Any, told: str, why: Any, parted: Any = None) -> Reconciliation:
    return Reconciliation.of(
        pair.a.side,
        pair.b.side,
        causes,
        verdict=told,
        reasons=why,
        differences=pair.differences,
        comparable=not why,
        divergence=parted,
    )
