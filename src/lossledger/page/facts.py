"""Configuration and versions of what was trained: all of one call, of several what differs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lossledger.call import Call
from lossledger.reconciliation.comparable import record
from lossledger.run import Run

SUBJECTS = 8
"""Columns of the comparison, at most."""


@dataclass(frozen=True)
class Facts:
    """A table of what is recorded of some calls.

    Args:
        subjects: The columns' heads.
        differing: Names whose values are not the same in all, each with a value a subject, `None`
            where it doesn't say; of a single subject, all names.
        same: What is the same in all.
        left_out: Subjects beyond `SUBJECTS`.
    """

    subjects: Sequence[str]
    differing: Mapping[str, Sequence[Any]]
    same: Mapping[str, Any]
    left_out: int = 0


def facts(runs: Sequence[Run], names: Sequence[str]) -> Facts:
    """Puts the records of all calls side by side; calls of one run that agree are one subject.

    Args:
        runs: The runs.
        names: What a reader calls them.
    """
    found = [each for run, name in zip(runs, names, strict=True) for each in _subjects(run, name)]
    records = [each for _, each in found[:SUBJECTS]]
    table = {
        name: [each.get(name) for each in records]
        for name in dict.fromkeys(name for each in records for name in each)
    }
    if len(records) == 1:
        differing, same = table, {}
    else:
        differing = {
            n: values for n, values in table.items() if any(v != values[0] for v in values)
        }
        same = {name: values[0] for name, values in table.items() if name not in differing}
    subjects = [name for name, _ in found[:SUBJECTS]]
    return Facts(subjects, differing, same, max(len(found) - SUBJECTS, 0))


def _subjects(run: Run, name: str) -> list[tuple[str, dict[str, Any]]]:
    groups: list[tuple[list[Call], dict[str, Any]]] = []
    for call in run.calls:
        mine = _with_run(run, call)
        group = next((calls for calls, other in groups if other == mine), None)
        if group is None:
            groups.append(([call], mine))
        else:
            group.append(call)
    if len(groups) <= 1:
        return [(name, mine) for _, mine in groups] or [(name, _of_run(run))]
    return [(f"{name}, {_numbers(calls)}", mine) for calls, mine in groups]


def _numbers(calls: Sequence[Call]) -> str:
    if len(calls) == 1:
        return f"call {calls[0].number}"
    return f"{len(calls)} calls from {calls[0].number} on"


def _with_run(run: Run, call: Call) -> dict[str, Any]:
    mine = {**_of_run(run), **record(run, call)}
    mine.pop("initial_weights", None)  # a fingerprint, which any two trainings differ in
    return mine


def _of_run(run: Run) -> dict[str, Any]:
    versions = run.info.get("versions") or {}
    script = run.info.get("script") or {}
    own = {
        "command": " ".join(map(str, run.info.get("command") or [])),
        "git": run.info.get("git"),
        "script.sha256": script.get("sha256"),
        **{f"versions.{name}": value for name, value in versions.items()},
    }
    return {name: value for name, value in own.items() if value}
