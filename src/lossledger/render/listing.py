"""`list`: a line a run, and the same as JSON; needs no numpy."""

from lossledger.render.base import Listed, Listing, Renderer
from lossledger.render.figures import UNKNOWN, single
from lossledger.render.objects import to_json
from lossledger.render.terminal import Column, Page
from lossledger.words import counted, when

NAME = 20
"""Characters to which a run's name is cut where the line has no room for more."""


class TerminalList(Renderer[Listing]):
    """The runs of a folder as a table for a person, the newest last."""

    def render(self, content: Listing) -> str:
        """Gives the table."""
        page = Page(self.options)
        if not content.runs:
            page.fact("no runs", f"in {content.directory}; `lossledger run script.py` records one")
            return page.text()
        runs = content.runs
        page.table(
            [
                Column("name", [run.name for run in runs], left=True, cut=NAME),
                Column("when", [when(run.created) for run in runs], 1, left=True),
                Column("calls", [_count(run.calls) for run in runs], 4),
                Column("steps", [_count(run.steps) for run in runs], 3),
                Column("epoch_mean", [single(run.epoch_mean) for run in runs], 0),
                Column("complete", [_state(run) for run in runs], 2, left=True),
                Column("folder", [run.id for run in runs], 5, left=True),
            ]
        )
        if content.older:
            page.fact("...", f"{counted(content.older, 'older run')} left out: -n 0 lists all")
        for run in runs:
            if run.problem:
                page.fact("problem", f"{run.id}: {run.problem}", "red")
        return page.text()


class JsonList(Renderer[Listing]):
    """The runs of a folder as one object: `directory`, `runs` and `older`."""

    def render(self, content: Listing) -> str:
        """Gives the folder's object."""
        runs = [vars(listed) for listed in content.runs]
        return to_json({"directory": content.directory, "runs": runs, "older": content.older})


def _count(number: int | None) -> str:
    return UNKNOWN if number is None else f"{number:,}"


def _state(run: Listed) -> str:
    if run.problem:
        return "unreadable"
    return "complete" if run.complete else "incomplete"
