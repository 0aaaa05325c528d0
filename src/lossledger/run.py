"""A recorded run, to read: its calls, its entries, and every statement about them.

Nothing is kept in memory but what `run.json` and `calls.jsonl` say: entries are read when asked
for, and a run that still grows gives what it has by then.
"""

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lossledger import catalog, copies, folded, shares
from lossledger.call import Call, entries_of, evaluations, noted, read_calls, trainings
from lossledger.catalog import RunInfo, runs_in
from lossledger.chosen import chosen, table
from lossledger.errors import LossLedgerError, count_of
from lossledger.reported import Reported, reported_by
from lossledger.segments.tables import marked
from lossledger.shares import Missing
from lossledger.statement import EpochStatement
from lossledger.statistics import named
from lossledger.vectors import Floats
from lossledger.workers import workers_of

if TYPE_CHECKING:
    import pyarrow as pa
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Call", "EpochStatement", "Reported", "Run", "RunInfo", "open", "runs_in"]


SUPERSEDED = "superseded"
"""The column of `Run.entries` that marks steps that were trained again."""

_FOLDED = ("epoch_mean", "batch_mean")
_AGREE = ("equal", "rounding")


def open(
    run: str | Path = "runs/latest",
    *,
    directory: str | Path = "runs",
    steps_per_epoch: int | None = None,
) -> "Run":
    """Opens a finished, crashed or still growing run.

    Args:
        run: A run's folder, or a name: the folder's, or the one that the run was given, of which
            the newest is meant; `latest`; or `name~1` and `latest~1` for the one before. Or a URI:
            `s3://bucket/runs/latest`.
        directory: The folder of runs in which a bare name is looked up, or its URI.
        steps_per_epoch: Steps of an epoch in series of `train_on_batch` that count none.

    Returns:
        The `Run`; its entries are read when they are asked for.

    Raises:
        LossLedgerError: No such run (slug `no-run`), one that a newer version recorded
            (`format-newer`), or `steps_per_epoch` is no such number (`not-a-count`).

    Example:

    ```python
    run = lossledger.open("runs/latest")
    run.statistic("epoch_mean")
    ```
    """
    if steps_per_epoch is not None:
        count_of("steps_per_epoch", steps_per_epoch)
    return Run(catalog.find(run, directory), steps_per_epoch=steps_per_epoch)


class Run:
    """A recorded run; see `open`.

    Where a method takes `call` and `model` and gets neither, it means all calls of the run's only
    model, one after another. An `epoch` is counted as the driver counts; calls that each have it
    all give theirs. A negative one counts from the end of what is meant: -1 is the last.

    Args:
        path: The run's folder.
        steps_per_epoch: As in `open`.
    """

    def __init__(self, path: Path, *, steps_per_epoch: int | None = None) -> None:
        self.path = path
        self.info: dict[str, Any] = catalog.read_info(path)
        self.steps_per_epoch = steps_per_epoch
        self._calls: tuple[object, list[Call]] | None = None

    def __repr__(self) -> str:
        return f"lossledger.open({self.where!r})"

    def _repr_html_(self) -> str:
        from lossledger.notebook import html

        return html(self)

    @property
    def id(self) -> str:
        """The folder's name, which no other run in its folder of runs has."""
        return self.path.name

    @property
    def name(self) -> str:
        """What the user calls the run."""
        return self.info.get("name") or self.id

    @property
    def where(self) -> str:
        """Its folder, as it is shown; of a copy of a remote run the URI."""
        return copies.where(self.path)

    @property
    def complete(self) -> bool:
        """Whether the recorder closed it; false while it grows, and after a crash."""
        return bool(self.info.get("complete"))

    @property
    def calls(self) -> list[Call]:
        """The calls, in order; read again when the run has grown."""
        state = shares.state(self.path)
        if self._calls is None or self._calls[0] != state:
            promised = [self.info.get(key) or 0 for key in ("entries", "lines")]
            promised = promised if self.complete else [0, 0]
            calls = read_calls(self.path, self.steps_per_epoch, *promised)
            self._calls = (state, calls)
        return self._calls[1]

    @property
    def missing(self) -> list[Missing]:
        """What is missing of the workers of a run that several processes recorded."""
        return shares.missing(self.path)

    def select(self, call: int | Call | None = None, model: int | None = None) -> list[Call]:
        """The calls that `call` and `model` mean.

        Raises:
            LossLedgerError: No such call (slug `no-call`), or several models and none chosen
                (slug `several-models`).
        """
        number = call.number if isinstance(call, Call) else call
        calls = self.calls
        found = [c for c in calls if number in (None, c.number) and model in (None, c.model)]
        if not found and (number is not None or model is not None):
            has = ", ".join(f"call {c.number} of model {c.model}" for c in calls) or "none"
            asked = [f"call={number}"] if number is not None else []
            asked += [f"model={model}"] if model is not None else []
            raise LossLedgerError(
                f"The run has no such call. Received: {', '.join(asked)}. It has: {has}.",
                slug="no-call",
            )
        if number is None and model is None:
            found = trainings(found)
        models = sorted({c.model for c in found})
        if len(models) > 1:
            raise LossLedgerError(
                f"The run trained several models. Received: {self.id}, and no model. Choose one "
                f"of {models}, or a call: model= or call= in Python, --model or --call in a shell, "
                f"{self.id}@model={models[0]} where numbers are reconciled.",
                slug="several-models",
            )
        return found

    def entries(
        self,
        columns: Sequence[str] | None = None,
        *,
        call: int | Call | None = None,
        model: int | None = None,
        epoch: int | None = None,
        replicas: bool = False,
    ) -> "pa.Table":
        """The entries as recorded, one row a step; those of all models where none is chosen.

        A step that several replicas or workers share is their fold, its losses float64.

        Args:
            columns: Names of columns, or one; all by default.
            call: A call or its number.
            model: A model's number.
            epoch: An epoch; see the class.
            replicas: Give such a step a row a replica, as recorded, with `worker` and `replica`.

        Returns:
            A table with the columns of `lossledger.entry` and the losses of named outputs; of a
            run that was resumed also `superseded`, which marks the steps that were trained again
            and count no more. Of an epoch, only entries that count are given.
        """
        if isinstance(columns, str):
            columns = [columns]
        if not self.info.get("resumed") and SUPERSEDED not in (columns or ()):
            return self._table(columns, call, model, epoch, replicas)
        own = None if columns is None else [name for name in columns if name != SUPERSEDED]
        needed = None if own is None else list(dict.fromkeys((*own, "call", "step")))
        found = self._table(needed, call, model, epoch, replicas)
        whole = marked(found, {c.number: c.standing.since for c in self.calls})
        return whole if columns is None else whole.select(list(columns))

    def _table(
        self,
        columns: Sequence[str] | None,
        call: int | Call | None,
        model: int | None,
        epoch: int | None,
        replicas: bool,
    ) -> "pa.Table":
        meant = None if epoch is None else self.calls
        if call is not None or model is not None:
            meant = self.select(call, model)
        return table(self.path, meant, columns, epoch, replicas)

    def losses(
        self,
        epoch: int | None = None,
        *,
        call: int | Call | None = None,
        model: int | None = None,
    ) -> Floats:
        """The raw loss of each step, float64 (steps,); the arguments are as of `statistic`."""
        return self.statistic("raw", call=call, model=model, epoch=epoch)

    def statistic(
        self,
        name: str,
        *,
        call: int | Call | None = None,
        model: int | None = None,
        epoch: int | None = None,
        **parameters: Any,
    ) -> Floats:
        """A statistic of the entries; `lossledger.statistics.STATISTICS` has their meaning.

        Args:
            name: Its name, or `evaluate` for what `Model.evaluate` measured.
            call: A call or its number.
            model: A model's number.
            epoch: An epoch; see the class. What a statistic carries over from earlier epochs,
                it carries over still.
            **parameters: Those of the statistic.

        Returns:
            float64, (steps,) or (epochs,) after the statistic.

        Raises:
            LossLedgerError: No such statistic (slug `unknown-statistic`), a parameter that it
                doesn't take (`statistic-parameter`), or no such epoch (`no-epoch`).
        """
        calls = self.select(call, model)
        if name == "evaluate":
            return np.array([value for *_, value in evaluations(calls, epoch)], np.float64)
        statistic = named(name)
        if name in _FOLDED and not parameters:
            found = [
                each for stated in folded.statements(self.path, calls).values() for each in stated
            ]
            values = np.array([getattr(each, name) for each in found], np.float64)
            return values[chosen(np.array([each.epoch for each in found], np.int64), epoch)]
        choose = None if epoch is None else partial(chosen, epoch=epoch)
        return folded.series(self.path, calls, statistic, parameters, choose)

    def epochs(self, call: int | Call | None = None) -> list[EpochStatement]:
        """A statement an epoch: what its entries say, and what was reported for it.

        Args:
            call: A call or its number; all of the run's only model by default.
        """
        stated = self.statements(self.select(call))
        return [statement for statements in stated.values() for statement in statements]

    def statements(self, calls: Sequence[Call]) -> dict[int, list[EpochStatement]]:
        """What `epochs` gives for each of some calls, by number, in one pass over the entries."""
        stated = folded.statements(self.path, calls)
        for call in calls:
            shown = {
                item.get("epoch"): float(item["value"])
                for item in call.reported
                if item.get("place") == "history" and item.get("name") in ("loss", call.loss_name)
            }
            if shown:
                stated[call.number] = [
                    dataclasses.replace(each, reported=shown.get(each.epoch))
                    for each in stated[call.number]
                ]
        if self.info.get("workers"):
            self._state_missing(calls, stated)
        return stated

    def _state_missing(
        self, calls: Sequence[Call], stated: dict[int, list[EpochStatement]]
    ) -> None:
        """States of each epoch how many of its steps lack a worker's rows."""
        ends = {n: np.cumsum([each.steps for each in epochs]) for n, epochs in stated.items()}
        lacking = {number: np.zeros(len(each), np.int64) for number, each in ends.items()}
        seen = dict.fromkeys(ends, 0)
        for call, block in entries_of(self.path, calls, ["missing"]):
            number = call.number
            places = seen[number] + np.flatnonzero(block["missing"])
            np.add.at(lacking[number], np.searchsorted(ends[number], places, "right"), 1)
            seen[number] += len(block["missing"])
        for number, epochs in stated.items():
            stated[number] = [
                dataclasses.replace(each, missing=count)
                for each, count in zip(epochs, lacking[number].tolist(), strict=True)
            ]

    def reported(self, calls: Sequence[Call] | None = None) -> list[Reported]:
        """Every number that was shown or handed out, beside what the entries say of it.

        Args:
            calls: Some of the run's; all by default.
        """
        version = self.info.get("versions", {}).get("keras")
        read = partial(entries_of, self.path)
        meant = self.calls if calls is None else calls
        found = reported_by(meant, read, shares.outputs(self.path), version, self.complete)
        own = self._of_own_rows({item.call for item in found if item.agreement == "differs"})
        return [
            dataclasses.replace(item, why=own.get(_which(item), item.why))
            if item.agreement == "differs"
            else item
            for item in found
        ]

    def _of_own_rows(self, calls: set[int]) -> dict[tuple[object, ...], str]:
        """What workers reported of some calls that is of their own share alone, and why so."""
        found: dict[tuple[object, ...], str] = {}
        for path in workers_of(self.path).values() if calls else ():
            # A call is told of by the first that has written of it; one that died early has not.
            told = calls & set(noted(path)[0])
            if not told:
                continue
            calls = calls - told
            share = Run(path, steps_per_epoch=self.steps_per_epoch)
            said = share.reported([call for call in share.calls if call.number in told])
            why = f"{path.name} reports of its own rows alone; the entries are of all workers'."
            found |= {_which(each): why for each in said if each.agreement in _AGREE}
        return found

    def plot(
        self,
        *,
        call: int | Call | None = None,
        model: int | None = None,
        ax: "Axes | None" = None,
    ) -> "Figure":
        """Draws the raw losses, their running mean, and the mean of each epoch; needs matplotlib.

        Args:
            call: A call or its number.
            model: A model's number.
            ax: Axes of matplotlib's to draw into; those of a new figure by default.

        Returns:
            The figure. Each curve's label is its statistic; where there are more steps than can
            be drawn, an envelope (smallest to largest) stands for the raw losses, and its label
            says of how many steps.

        Raises:
            LossLedgerError: matplotlib isn't installed (slug `not-installed`).
        """
        from lossledger.plot import plot

        return plot(self, self.select(call, model), ax)


def _which(item: Reported) -> tuple[object, ...]:
    """What tells a reported number from the others of its run."""
    return item.call, item.place, item.name, item.epoch


def summary(path: Path) -> dict[str, Any]:
    """What a list of runs says of a run: the recorder keeps it in `run.json` as `summary`.

    Args:
        path: The run's folder.

    Returns:
        `calls` and `steps`, how many; `epoch_mean`, of the last epoch of the last call that has
        steps, `None` without one.
    """
    run = Run(path)
    last = next((call for call in reversed(run.calls) if call.steps), None)
    return {
        "calls": len(run.calls),
        "steps": sum(call.steps for call in run.calls),
        "epoch_mean": None if last is None else run.epochs(last)[-1].epoch_mean,
    }
