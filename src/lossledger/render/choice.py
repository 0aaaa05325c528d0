"""What of a run the options choose."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lossledger.errors import LossLedgerError
from lossledger.render.base import Options
from lossledger.render.figures import count
from lossledger.request import Request
from lossledger.run import Call, EpochStatement, Run


def chosen_calls(run: Run, options: Options) -> list[Call]:
    """The calls that the options choose, of all models where they choose none."""
    if options.call is None and options.model is None:
        return run.calls
    return run.select(**options.chosen)


def chosen_epochs(
    run: Run, calls: Sequence[Call], options: Options
) -> list[tuple[Call, list[EpochStatement]]]:
    """The calls, each with the statements of its chosen epochs.

    Raises:
        LossLedgerError: No call has the epoch (slug `no-epoch`).
    """
    stated = run.statements(calls)
    every = [(call, stated[call.number]) for call in calls]
    epoch = options.epoch
    if epoch is None:
        return every
    found = [(call, _meant(statements, epoch)) for call, statements in every]
    if not any(statements for _, statements in found):
        has = [
            f"{count(len(statements), 'epoch')} in call {call.number}" for call, statements in every
        ]
        raise LossLedgerError(
            f"There is no such epoch. Received: --epoch {epoch}. The run has "
            f"{', '.join(has[:10]) or 'no epochs'}; they count from 0, and back from -1.",
            slug="no-epoch",
        )
    return found


def _meant(statements: Sequence[EpochStatement], epoch: int) -> list[EpochStatement]:
    if epoch >= 0:
        return [statement for statement in statements if statement.epoch == epoch]
    return [statements[epoch]] if -epoch <= len(statements) else []


def statistic(run: Run, request: Request, options: Options) -> NDArray[np.float64]:
    """A statistic of the chosen calls and epoch: float64, (steps,) or (epochs,)."""
    return run.statistic(request.name, epoch=options.epoch, **options.chosen, **request.parameters)
