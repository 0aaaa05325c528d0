"""What of a run the options choose."""

from collections.abc import Sequence

import numpy as np

from lossledger.call import evaluations
from lossledger.errors import LossLedgerError
from lossledger.render.base import Options
from lossledger.request import Request
from lossledger.run import Call, EpochStatement, Run
from lossledger.statistics import named
from lossledger.vectors import Floats
from lossledger.words import counted


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
            f"{counted(len(statements), 'epoch')} in call {call.number}"
            for call, statements in every
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


def statistic(run: Run, request: Request, options: Options) -> Floats:
    """A statistic of the chosen calls and epoch: float64, (steps,) or (epochs,)."""
    return run.statistic(request.name, epoch=options.epoch, **options.chosen, **request.parameters)


def labels(
    run: Run, request: Request, options: Options, places: Sequence[int]
) -> dict[str, list[str]]:
    """What some values of `statistic` are of.

    Args:
        run: The run.
        request: The statistic.
        options: As `statistic` takes them.
        places: Of which values.

    Returns:
        Columns with a cell a value: `call`, where there are several, `epoch` ("" where the value
        belongs to none), and of a statistic of steps `batch`.
    """
    calls, epoch = run.select(**options.chosen), options.epoch
    if request.name == "evaluate":
        found = [(number, of, 1) for number, of, _ in evaluations(calls, epoch)]
    else:
        stated = run.statements(calls)
        every = [(number, each.epoch, each.steps) for number in stated for each in stated[number]]
        found = [each for each in every if epoch in (None, each[1])] or every[epoch or 0 :][:1]
    per_step = request.name != "evaluate" and named(request.name).per == "step"
    ends = np.cumsum([steps if per_step else 1 for *_, steps in found], dtype=np.int64)
    which = [int(np.searchsorted(ends, place, side="right")) for place in places]
    columns: dict[str, list[str]] = {}
    if len(calls) > 1:
        columns["call"] = [str(found[each][0]) for each in which]
    columns["epoch"] = ["" if found[each][1] is None else str(found[each][1]) for each in which]
    if per_step:
        begins = [int(ends[each]) - found[each][2] for each in which]
        columns["batch"] = [str(place - begin) for place, begin in zip(places, begins, strict=True)]
    return columns
