"""Reads one of the two numbers: finds its run, call and epoch, and loads only what it folds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lossledger import conventions
from lossledger import run as runs
from lossledger.call import Call
from lossledger.entry import MEASURED, OF_EPOCHS
from lossledger.errors import LossLedgerError
from lossledger.floats import same
from lossledger.reconciliation.compiled import outputs_of
from lossledger.reconciliation.fold import Fold, Form
from lossledger.reconciliation.ledgers import epoch_of, ledger_of, up_to
from lossledger.reconciliation.moves import Move, near, number
from lossledger.reconciliation.numbers import (
    history,
    inside,
    is_shown,
    keras_of,
    measured,
    never_reset,
)
from lossledger.reconciliation.result import Side
from lossledger.reconciliation.shown import reported, returned
from lossledger.reconciliation.spec import Spec
from lossledger.request import Request
from lossledger.run import Run
from lossledger.statistics import STATISTICS
from lossledger.workers import workers_of

_ROUNDED = 1e-4
"""How far a sum that Keras keeps in float32 may be off, relatively."""


@dataclass(frozen=True, eq=False)
class Reading:
    """A number, with all that is known of how it came about.

    Args:
        side: The number, as the result shows it.
        run: Its run.
        call: Its call.
        before: Calls of the run that trained the same model before it, each from where the one
            before it had ended.
        fold: The fold that it is; `None` where no training step made it (`evaluate`).
        moves: What leads from the number to the fold: rounding, where it was reported.
        epoch: Its epoch, as the driver counts.
        begin: Entries of the call before the epoch.
        part: Whether it ends before its epoch does.
        data: What is on record of the data that it was measured on.
    """

    side: Side
    run: Run
    call: Call
    before: tuple[Call, ...]
    fold: Fold | None
    moves: tuple[Move, ...]
    epoch: int
    begin: int
    part: bool = False
    data: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def keras(self) -> str:
        """The version of the Keras that reported."""
        return keras_of(self.run)

    @property
    def calls(self) -> tuple[Call, ...]:
        """The calls that are one training, up to its own."""
        return (*self.before, self.call)

    @property
    def steps(self) -> int:
        """Steps of that training up to the end of the epoch."""
        length = len(self.fold.ledger) if self.fold else self.call.steps - self.begin
        return sum(call.steps for call in self.before) + self.begin + length

    @property
    def weightless(self) -> bool:
        """Whether no sample or class weights are in its losses, which those of one output tell."""
        if self.fold is None or outputs_of(self.call) or self.fold.ledger.has("sample_weight"):
            return False
        return not any(map(self.call.arguments.get, ("sample_weight", "class_weight")))

    @property
    def training(self) -> tuple[Run, tuple[Call, ...], int]:
        """That training, up to the end of the epoch (`lossledger.reconciliation.parting`)."""
        return self.run, self.calls, self.steps

    def span(self, more: int = 0) -> str:
        """Its steps, of all that the training has had, and of so many more before it."""
        begin = sum(call.steps for call in self.before) + self.begin + more
        return f"{begin:,} to {self.steps - 1 + more:,}"

    @property
    def names(self) -> tuple[str, str]:
        """Fingerprints of the training's initial and final weights; "" where there are none."""
        return _weights(self.calls[0], "initial"), _weights(self.call, "final")


def read(spec: Spec, epoch: int, directory: Any, steps_per_epoch: int | None) -> Reading:
    """Reads a number.

    Args:
        spec: Which.
        epoch: Its epoch, unless the spec names one; from the end where negative.
        directory: The folder of runs in which a bare name is looked up.
        steps_per_epoch: As in `lossledger.open`.

    Raises:
        LossLedgerError: There is no such run, call, epoch, statistic or reported number.
    """
    run = _run(spec, directory, steps_per_epoch)
    return replace(_read(spec, run, epoch), part=spec.batch is not None)


def _run(spec: Spec, directory: Any, steps_per_epoch: int | None) -> Run:
    if isinstance(spec.run, Run):
        return spec.run
    return runs.open(spec.run, directory=directory, steps_per_epoch=steps_per_epoch)


def _read(spec: Spec, run: Run, epoch: int) -> Reading:
    chosen = run.select(spec.call, spec.model)
    calls = [call for call in chosen if call.steps]
    evaluated = _evaluations_alone(spec, run, calls, chosen)
    if evaluated is not None:
        return _evaluated(spec, run, evaluated)
    wanted = epoch if spec.epoch is None else spec.epoch
    call, label, begin, end = epoch_of(run, calls, wanted)
    before = _before(run, call)
    if spec.batch is not None:
        end = up_to(spec, begin, end)
    name = spec.statistic.name if spec.statistic else _driver_reports(run, call)
    said = _said(spec.statistic.text if spec.statistic else name, spec)
    of = None if name in MEASURED else label  # measured after the call
    if is_shown(name, run, call):
        spec = replace(spec, loss="loss" if name == call.loss_name else name)
        name = "reported"

    def side(value: float, note: str = "") -> Side:
        return Side(run.where, said, value, call.number, of, note or _unknown_epochs(call))

    if name not in STATISTICS and name not in ("reported", "returned"):
        ends = end == call.before + call.steps
        number, data = measured(run, call, name, label, ends, _which(spec))
        return Reading(
            side(number), run, call, before, None, (), label, begin - call.before, data=data
        )
    form = _form(spec, run, call, name)
    ledger = ledger_of(run, call, (begin, end), form, label if spec.again else None)
    begin -= call.before
    if name == "returned" or (name == "reported" and call.driver == "train_on_batch"):
        unreset = conventions.of("keras", keras_of(run), "returned").statistic == "cumulative_mean"
        number, fold, moves = returned(Fold(ledger, form), unreset)
        return Reading(side(number), run, call, before, fold, moves, label, begin)
    if name == "reported":
        number = history(run, call, spec, label)
        fold, moves, note = _shown(Fold(ledger, form), number, run, call, (label, begin, end))
        return Reading(side(number, note), run, call, before, fold, moves, label, begin)
    fold = Fold(ledger, form)
    note = _shown_otherwise(spec, run, call, fold, label)
    return Reading(side(fold.value, note), run, call, before, fold, (), label, begin)


def _shown_otherwise(spec: Spec, run: Run, call: Call, fold: Fold, epoch: int) -> str:
    """What `fit` showed, where nobody asked for a statistic and it is another number."""
    plain = Spec(spec.run, spec.text, call=spec.call, model=spec.model, epoch=spec.epoch)
    if spec != plain or call.driver not in OF_EPOCHS:
        return ""
    items = [i for i in call.reported if (i.get("place"), i.get("epoch")) == ("history", epoch)]
    if call.loss_name not in [item.get("name") for item in items]:
        return ""
    shown = history(run, call, spec, epoch)
    if math.isclose(shown, fold.value, rel_tol=_ROUNDED) or same(shown, fold.value):
        return ""
    return f"History has {number(shown)}, which is :reported"


def _evaluations_alone(
    spec: Spec, run: Run, calls: Sequence[Call], chosen: Sequence[Call]
) -> Call | None:
    """The call of evaluations, before any training, that is meant; `None` where none is.

    One that is chosen by its number is; and of a model that was evaluated before its training
    alone, `evaluate` is.
    """
    asked = spec.statistic.name if spec.statistic else None
    if not calls:
        alone = chosen[-1] if chosen and chosen[-1].measures else None
        return alone if asked is None or asked in MEASURED else None
    if asked not in MEASURED or spec.call is not None or spec.epoch is not None:
        return None
    if any(item.get("place") == asked for item in calls[-1].reported):
        return None
    models = {call.model for call in calls}
    before = [call for call in run.calls if call.measures and call.model in models]
    return next((c for c in before if any(i["place"] == asked for i in c.reported)), None)


def _evaluated(spec: Spec, run: Run, call: Call) -> Reading:
    """What a call of evaluations alone gave."""
    asked = spec.statistic or Request.parse(call.reported[-1]["place"] if call.reported else "")
    value, data = measured(run, call, asked.name, 0, True, _which(spec))
    side = Side(run.where, _said(asked.text, spec), value, call.number)
    return Reading(side, run, call, (), None, (), 0, 0, data=data)


def _which(spec: Spec) -> int:
    """Which of several evaluations is meant: the last by default.

    Raises:
        LossLedgerError: It is given otherwise than as a whole number (slug `statistic-parameter`).
    """
    own = dict(spec.statistic.parameters) if spec.statistic else {}
    which = own.pop("n", -1)
    if own or not isinstance(which, int):
        raise LossLedgerError(
            f"A measured number has no such parameter. Received: {spec.text}. Of several "
            "evaluations, evaluate:n=0 is the first, evaluate:n=-1 the last.",
            slug="statistic-parameter",
            exit_code=2,
        )
    return which


def _weights(call: Call, which: str) -> str:
    return call.info.get(f"{which}_weights") or ""


def _before(run: Run, call: Call) -> tuple[Call, ...]:
    """The calls that led to where a call began, without a gap."""
    found: list[Call] = []
    first = call
    for each in reversed([each for each in run.calls if each.number < call.number]):
        if each.model == call.model and each.steps:
            begins = _weights(first, "initial")
            led = begins and _weights(each, "final") == begins and not each.standing.superseded
            if not led and first.standing.continues != each.number:
                break
            found.insert(0, each)
            first = each
    return tuple(found)


def _unknown_epochs(call: Call) -> str:
    return "its epochs are not known: all its steps" if call.epochs_from == "none" else ""


def _said(text: str, spec: Spec) -> str:
    """The statistic with what of the selection changes its arithmetic."""
    more = [("batch", spec.batch, None), ("every", spec.every, 1), ("loss", spec.loss, "loss")]
    found = [f"{key}={value}" for key, value, usual in more if value != usual]
    if spec.weight is not None and "weight=" not in text:
        found.append(f"weight={spec.weight}")
    found += [key for key in ("finite", "again") if getattr(spec, key)]
    return f"{text} ({', '.join(found)})" if found else text


def _form(spec: Spec, run: Run, call: Call, name: str) -> Form:
    own = spec.statistic.parameters if spec.statistic else {}
    if name == "returned" and call.driver != "train_on_batch":
        raise LossLedgerError(
            f"Only train_on_batch returns the loss of a step. Received: {spec.text}, in call "
            f"{call.number}, of {call.driver}. What fit shows is `reported`.",
            slug="not-reported",
        )
    if name in ("reported", "returned"):
        name = "last" if name == "returned" else _driver_reports(run, call)
        if own or spec.weight or spec.finite or spec.every > 1:
            raise LossLedgerError(
                f"A number that was reported is what it is. Received: {spec.text}. "
                "Leave parameters, weight, finite and every out, or choose a statistic.",
                slug="selection",
                exit_code=2,
            )
    return Form.named(
        name,
        weight=spec.weight,
        loss=spec.loss,
        every=spec.every,
        finite=spec.finite,
        parameters=tuple(sorted(own.items())),
    )


def _driver_reports(run: Run, call: Call) -> str:
    """The statistic that the driver reports: of a list of losses, their plain mean."""
    if call.driver not in OF_EPOCHS:
        return "batch_mean"
    if call.info.get("history_is") == "last":
        return "last"
    return conventions.of("keras", keras_of(run), "history").statistic


def _shown(
    stated: Fold, number: float, run: Run, call: Call, epoch: tuple[int, int, int]
) -> tuple[Fold, tuple[Move, ...], str]:
    """The fold that a reported number is, what leads there, and a note where it is none."""
    label, *span = epoch
    replicas = int(call.configuration.get("replicas") or 1)
    fold, moves, note = reported(stated, number, inside(run, call, label), replicas)
    if note:
        unreset = never_reset(run, call, span[1] - call.before, fold, number)
        of_one = _of_one_worker(run, call, (span[0], span[1]), fold, number)
        found = (unreset,) if unreset else of_one
        return (fold, found, "") if found else (fold, moves, note)
    return fold, moves, ""


def _of_one_worker(
    run: Run, call: Call, span: tuple[int, int], fold: Fold, number: float
) -> tuple[Move, ...]:
    """What leads from a mean of the first worker's own rows to that of all; nothing if none is."""
    for rank, path in workers_of(run.path).items():
        own = Fold(ledger_of(Run(path), call, span, fold.form), fold.form)
        if not near(own.value, number):
            return ()
        rows = [int(each.ledger["rows"].sum()) for each in (own, fold)]
        told = f"Worker {rank} reports the mean of its own {rows[0]:,} rows, of {rows[1]:,} in all."
        advice = "State the number from the entries of all workers, or average by rows."
        return (Move("replica_scaling", fold.value - number, told, advice),)
    return ()
