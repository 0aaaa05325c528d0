"""All that a page shows of some runs, and what of it is new."""

from collections.abc import Sequence
from dataclasses import dataclass

from lossledger.call import trainings
from lossledger.errors import LossLedgerError
from lossledger.page.facts import Facts, facts
from lossledger.page.gather import bucket_of
from lossledger.page.measured import Measured, measured
from lossledger.page.track import Stated, Track
from lossledger.reconciliation.main import reconcile
from lossledger.reconciliation.result import Reconciliation
from lossledger.run import Call, Reported, Run
from lossledger.shares import outputs


@dataclass(frozen=True)
class Line:
    """A track with what belongs to it.

    Args:
        run: The run's place among the runs.
        track: Its curves.
        model_name: What Keras calls the model; "" if unknown.
        calls: The model's calls.
        measured: Losses of weights held fixed.
        unplaced: How many more of these have no known place.
    """

    run: int
    track: Track
    model_name: str
    calls: Sequence[Call]
    measured: Sequence[Measured]
    unplaced: int


class Content:
    """Reads runs for a page; `update` reads what has been added since.

    Args:
        runs: The runs.
        beta: Of the exponential moving average.
        compare: Whether to reconcile two runs.
    """

    def __init__(self, runs: Sequence[Run], beta: float = 0.98, *, compare: bool = True) -> None:
        self.runs = runs  # opened anew by who follows growing ones
        self.names = _distinct([run.name for run in runs], [run.id for run in runs])
        self.beta = beta
        self.lines: list[Line] = []
        self.reported: list[list[Reported]] = []
        self.generation = 0
        self._compare = compare and len(runs) == 2
        self.reconciliation: Reconciliation | None = None
        self.refusal = ""
        self.update()

    def update(self) -> None:
        """Reads the runs as they are now."""
        kept = {(line.run, line.track.model): line.track for line in self.lines}
        found = [(place, *pair) for place, run in enumerate(self.runs) for pair in _models(run)]
        sizes = [sum(call.steps for call in calls) for _, _, calls in found]
        fresh = False
        self.lines = []
        every = [run.statements(run.calls) for run in self.runs]
        for (place, model, calls), size in zip(found, sizes, strict=True):
            run = self.runs[place]
            bucket = bucket_of(size, sum(sizes), len(sizes))
            names = outputs(run.path)
            stated = Stated.of(calls, every[place])
            track = kept.get((place, model))
            if track is None or not track.goes_on(calls, stated, bucket, names):
                track, fresh = Track(run.path, model, names, self.beta, bucket), True
            track.read(calls, stated)
            name = str(next((c.info["model_name"] for c in calls if "model_name" in c.info), ""))
            self.lines.append(Line(place, track, name, calls, *measured(calls, stated)))
        self.generation += fresh
        self.reported = [run.reported() for run in self.runs]
        if self._compare:
            self._reconcile()

    def _reconcile(self) -> None:
        self.reconciliation, self.refusal = None, ""
        try:
            self.reconciliation = reconcile(*self.runs)
        except LossLedgerError as error:
            self.refusal = str(error)

    def facts(self) -> Facts:
        """Configuration and versions."""
        return facts(self.runs, self.names)

    @property
    def enveloped(self) -> bool:
        """Whether some track carries an envelope in place of its entries."""
        return any(line.track.bucket > 1 for line in self.lines)

    @property
    def entries(self) -> int:
        """Entries of all tracks."""
        return sum(line.track.entries for line in self.lines)


def _models(run: Run) -> list[tuple[int, list[Call]]]:
    calls: dict[int, list[Call]] = {}
    for call in trainings(run.calls):
        calls.setdefault(call.model, []).append(call)
    return sorted(calls.items())


def _distinct(names: Sequence[str], ids: Sequence[str]) -> list[str]:
    """The names, and the ids where a name stands for several runs."""
    return [n if names.count(n) == 1 else i for n, i in zip(names, ids, strict=True)]
