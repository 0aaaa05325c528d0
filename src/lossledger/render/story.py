"""In words: where a run was cut short, from where it was resumed, and what was trained again."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lossledger.run import Call, Run
from lossledger.words import counted, when


def story(run: Run) -> Iterator[str]:
    """A sentence for each time that a run was resumed, in order; none where it never was."""
    for attempt, each in enumerate(_attempts(run), start=1):
        calls = [call for call in run.calls if call.attempt == attempt]
        yield f"{_stopped(each)}; resumed {when(each.get('created'))}{_went_on(calls)}"


def resumed(run: Run) -> dict[str, list[dict[str, Any]]]:
    """The same as JSON: how the run was resumed, and `again`, how many steps were trained again.

    `seen` is how many of those the restored weights had seen.
    """
    found = []
    for attempt, each in enumerate(_attempts(run), start=1):
        calls = [call for call in run.calls if call.attempt == attempt]
        seen = sum(call.standing.seen for call in calls)
        found.append({**each, "again": trained_again(calls), "seen": seen})
    return {"resumed": found} if found else {}


def _attempts(run: Run) -> list[Mapping[str, Any]]:
    found = run.info.get("resumed")
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def again(call: Call) -> str:
    """What of a call was trained again later, "" where nothing was."""
    number = call.standing.superseded
    if not number:
        return ""
    were = "was" if number == 1 else "were"
    return f"{counted(number, 'more step')} {were} trained again after a resume, and count no more"


def trained_again(calls: Sequence[Call]) -> int | None:
    """Steps that some calls trained again; `None` where it can't be told."""
    known = [call.standing.again for call in calls]
    return None if None in known else sum(number or 0 for number in known)


def _stopped(each: Mapping[str, Any]) -> str:
    place = each.get("last")
    last: Mapping[str, Any] = place if isinstance(place, dict) else {}
    how = "closed" if each.get("complete") else "cut short"
    if not all(isinstance(last.get(name), int) for name in ("epoch", "batch", "step")):
        return f"{how} before the first step"
    epoch, batch, step = (last.get(name) for name in ("epoch", "batch", "step"))
    where = f"batch {batch}" if epoch == -1 else f"batch {batch} of epoch {epoch}"
    return f"{how} after step {step:,} ({where})"


def _went_on(calls: Sequence[Call]) -> str:
    if not calls:
        return ", but trained nothing"
    number = trained_again(calls)
    where = f" with call {calls[0].number}"
    if number is None:
        return f"{where}; whether steps were trained again can't be told: they have no epochs"
    if not number:
        return where
    seen = sum(call.standing.seen for call in calls)
    more = f"; its weights had seen {seen:,} of them before" if seen else ""
    return f"{where}, which trained {counted(number, 'step')} again{more}"
