"""In words: where a run was cut short, from where it was resumed, and what was trained again."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lossledger.run import Call, Run
from lossledger.words import counted, when

_UNTOLD = "neither weights nor epochs nor batches say from where it went on"


def story(run: Run) -> Iterator[str]:
    """A sentence for each time that a run was resumed, in order; none where it never was."""
    for attempt, each in enumerate(_attempts(run), start=1):
        calls = [call for call in run.calls if call.attempt == attempt]
        yield f"{_stopped(each)}; resumed {when(each.get('created'))}{_went_on(calls)}"


def resumed(run: Run) -> dict[str, list[dict[str, Any]]]:
    """The same as JSON: how the run was resumed, and `again`, how many steps were trained again.

    `seen` is how many of those the restored weights had seen, `unwritten` how many steps they had
    seen that were never written, `guessed` whether batches alone say so.
    """
    found = []
    for attempt, each in enumerate(_attempts(run), start=1):
        calls = [call for call in run.calls if call.attempt == attempt]
        more: dict[str, Any] = {name: _sum(calls, name) for name in ("seen", "unwritten")}
        more["guessed"] = any(call.standing.guessed for call in calls)
        found.append({**each, "again": trained_again(calls), **more})
    return {"resumed": found} if found else {}


def _attempts(run: Run) -> list[Mapping[str, Any]]:
    found = run.info.get("resumed")
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def again(call: Call) -> str:
    """What of a call was trained again later, "" where nothing was."""
    number = call.standing.superseded
    if not number:
        return ""
    were, count = ("was", "counts") if number == 1 else ("were", "count")
    what = counted(number, "more step") if call.steps else f"all {counted(number, 'step')}"
    return f"{what} {were} trained again after a resume, and {count} no more"


def trained_again(calls: Sequence[Call]) -> int | None:
    """Steps that some calls trained again; `None` where it can't be told."""
    known = [call.standing.again for call in calls]
    return None if None in known else sum(number or 0 for number in known)


def _stopped(each: Mapping[str, Any]) -> str:
    place = each.get("last")
    last: Mapping[str, Any] = place if isinstance(place, dict) else {}
    how = "closed" if each.get("complete") else "cut short"
    if not all(isinstance(last.get(name), int) for name in ("epoch", "batch", "step")):
        return f"{how} before a step was written"
    epoch, batch, step = (last.get(name) for name in ("epoch", "batch", "step"))
    where = f"batch {batch}" if epoch == -1 else f"batch {batch} of epoch {epoch}"
    return f"{how} after step {step:,} ({where})"


def _went_on(calls: Sequence[Call]) -> str:
    if not calls:
        return ", of which nothing was written"
    said = f" with call {calls[0].number}"
    number, seen, unwritten = trained_again(calls), _sum(calls, "seen"), _sum(calls, "unwritten")
    if number is None:
        return f"{said}; whether steps were trained again can't be told: {_UNTOLD}"
    if number:
        said += f", which trained {counted(number, 'step')} again"
        if any(call.standing.guessed for call in calls):
            said += ": a guess by its batches, which other epochs have, too"
    if seen:
        said += f"; its weights had seen {seen:,} of them before"
    for epoch in {call.standing.open_epoch for call in calls} - {None}:
        said += f"; the end of epoch {epoch} may never have been written"
    if unwritten:
        said += f"; {counted(unwritten, 'step')} before it died with the process, unwritten"
    return said


def _sum(calls: Sequence[Call], name: str) -> int:
    return sum(getattr(call.standing, name) for call in calls)
