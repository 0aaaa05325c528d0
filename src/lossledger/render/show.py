"""`show`: one run, a section a call, a line an epoch, and what the reported numbers are."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lossledger.call import entries_of
from lossledger.entry import MEASURED
from lossledger.growth import condition
from lossledger.render import shares
from lossledger.render.base import Options, Renderer
from lossledger.render.choice import chosen_calls, chosen_epochs, labels, statistic
from lossledger.render.figures import Format, difference, shorten
from lossledger.render.notes import EPOCHS_FROM, NOTES, notes
from lossledger.render.sketch import Sketch
from lossledger.render.story import again, story
from lossledger.render.terminal import Column, Page
from lossledger.run import Call, EpochStatement, Reported, Run
from lossledger.statistics import STATISTICS, named
from lossledger.words import argument, counted, when
from lossledger.workers import is_shared

CALLS = 12
EPOCHS = 24
EPOCHS_OF_MANY = 6
STEPS = 40
BARS = 12


class TerminalShow(Renderer[Run]):
    """A run as tables for a person."""

    def render(self, content: Run) -> str:
        """Gives the tables and notes."""
        return _Show(content, self.options).text()


class _Show:
    def __init__(self, run: Run, options: Options) -> None:
        self.run = run
        self.options = options
        self.page = Page(options)
        self.hidden: list[str] = []

    def text(self) -> str:
        self.head()
        calls = chosen_calls(self.run, self.options)
        places, left_out = shorten(len(calls), CALLS)
        shown = [calls[place] for place in places]
        rows = EPOCHS if len(shown) <= 4 else EPOCHS_OF_MANY
        self.reported = self.run.reported(shown)
        stated = chosen_epochs(self.run, shown, self.options)
        self.pictures = _Pictures(self.run, stated, rows, self.options.blocks)
        for place, (call, epochs) in enumerate(stated):
            if left_out and place == CALLS // 2:
                self.page.title(f"{counted(left_out, 'call')} left out here: --call N shows one")
            self.call(call, epochs, rows)
        if not calls:
            self.page.title("Nothing was trained: the run has no calls.")
        self.statistics()
        self.foot()
        return self.page.text()

    def head(self) -> None:
        run, page = self.run, self.page
        state = condition(run.path, run.complete)
        parts = (run.name, when(run.info.get("created")), state)
        page.fact("run", ", ".join(part for part in parts if part))
        page.line("folder", run.where)
        command = run.info.get("command")
        if command:
            page.line("command", shlex.join(str(part) for part in command))
        if run.info.get("git"):
            page.fact("commit", str(run.info["git"]))
        page.fact("versions", _versions(run.info.get("versions", {}), run.info.get("device")))
        if run.info.get("workers"):
            self.workers()
        for sentence in story(run):
            page.fact("resumed", sentence)
        warnings = run.info.get("warnings", [])
        for warning in warnings[:NOTES]:
            page.fact("warning", f"[{warning.get('slug')}] {warning.get('message')}", "yellow")
        if len(warnings) > NOTES:
            page.fact("", f"and {counted(len(warnings) - NOTES, 'warning')} more, in run.json")
        for unseen in run.info.get("unseen", [])[:NOTES]:
            page.fact("unseen", f"{unseen.get('what')}, {unseen.get('where')}", "yellow")

    def workers(self) -> None:
        run, page = self.run, self.page
        page.line("workers", f"{run.info['workers']}; a step is the fold of what they recorded")
        missing = run.missing
        for each in missing[:NOTES]:
            page.fact("missing", each.told, "red")
        if len(missing) > NOTES:
            page.fact("", f"and {counted(len(missing) - NOTES, 'more share')}")

    def call(self, call: Call, epochs: Sequence[EpochStatement], limit: int) -> None:
        page = self.page
        model = call.info.get("model_name")
        trained = f"model {call.model}{f' ({model})' if model else ''}"
        if call.measures:
            self.evaluations(call, trained)
            return
        steps = f"{counted(call.steps, 'step')} weighted by {call.weight_kind}"
        page.title(f"call {call.number}: {call.driver}, {trained}, {steps}")
        if call.arguments:
            page.fact("arguments", _arguments(call.arguments))
        if call.epochs_from in EPOCHS_FROM:
            page.fact("epochs", EPOCHS_FROM[call.epochs_from])
        if call.configuration.get("replicas", 1) > 1 and is_shared(self.run.path):
            many = call.configuration["replicas"]
            page.fact("replicas", f"{many}; a step is the fold of theirs, which --epoch E shows")
        if not call.mean_of_rows:
            page.fact("loss", "no mean of row losses: a mean that weights it by rows says little")
        if again(call):
            page.fact("again", again(call))
        if call.info.get("failed"):
            page.fact("failed", str(call.info["failed"]), "red")
        if epochs:
            known = {None, *(each.epoch for each in epochs)}
            reported = [
                item for item in self.reported if item.call == call.number and item.epoch in known
            ]
            self.epochs(call, epochs, reported, limit)
            bad = self.pictures.bad.get(call.number)
            if bad or reported:
                page.space()
            if bad:
                page.fact("losses", f"the first that is not finite is {bad}", "red")
            for note in notes(reported, self.run.info.get("versions", {}).get("keras")):
                page.fact("reported", note)
            if self.options.epoch is not None:
                for epoch in epochs:
                    self.steps(call, epoch)
        elif call.whole.steps == 0:
            page.fact("steps", "none was recorded")

    def evaluations(self, call: Call, trained: str) -> None:
        """What `evaluate` returned for a model before a training of it."""
        found = [item for item in call.reported if item.get("place") in MEASURED]
        many = counted(len(found), "evaluation")
        self.page.title(f"call {call.number}: {call.driver}, {trained}, {many}, no training")
        places, left_out = shorten(len(found), EPOCHS)
        data = [found[place].get("data") or {} for place in places]
        by = [str(item["place"]) for item in found]
        form = Format.of(float(found[place]["value"]) for place in places)
        columns = [
            Column("by", [by[place] for place in places], left=True),
            Column("n", [str(by[:place].count(by[place])) for place in places]),
            Column("loss", [form.text(float(found[place]["value"])) for place in places]),
        ]
        for name in ("rows", "batch_size", "steps"):
            if any(name in each for each in data):
                columns.append(Column(name, [str(each.get(name, "")) for each in data]))
        self.page.table(columns, len(places) // 2 - 1 if left_out else None)
        self._left_out(left_out, "evaluation")

    def epochs(
        self,
        call: Call,
        epochs: Sequence[EpochStatement],
        reported: Sequence[Reported],
        limit: int,
    ) -> None:
        places, left_out = shorten(len(epochs), limit)
        shown = [epochs[place] for place in places]
        gaps = {
            item.epoch: item.difference
            for item in reported
            if item.place == "history" and item.name in ("loss", call.loss_name)
        }
        sketches = [self.pictures.lines[call.line, each.epoch] for each in shown]
        columns = _columns(shown, sketches, gaps)
        self.hidden = self.page.table(columns, len(shown) // 2 - 1 if left_out else None)
        if left_out:
            first, last = epochs[limit // 2].epoch, epochs[-limit // 2 - 1].epoch
            self.page.fact(
                "...",
                f"{counted(left_out, 'epoch')} left out, {first} to {last}: --epoch E shows one",
            )

    def steps(self, call: Call, epoch: EpochStatement) -> None:
        """The raw losses of one epoch, step by step."""
        chosen: dict[str, Any] = {"call": call.number, "epoch": epoch.epoch}
        losses = self.run.losses(**chosen)
        running = self.run.statistic("running_mean", **chosen)
        places, left_out = shorten(len(losses), STEPS)
        form = Format.of([*losses.tolist(), *running.tolist()])
        columns = [
            Column("batch", [str(place) for place in places]),
            Column("loss", [form.text(losses[place]) for place in places]),
            Column("running_mean", [form.text(running[place]) for place in places]),
        ]
        parts = shares.columns(self.run, call.number, epoch.epoch, places)
        with_them = ", and the loss (and the rows) of each share" if parts else ""
        self.page.title(f"epoch {epoch.epoch} of call {call.number}, step by step{with_them}")
        columns += parts
        self.hidden += self.page.table(columns, STEPS // 2 - 1 if left_out else None)
        self._left_out(left_out, "step")

    def _left_out(self, number: int, noun: str) -> None:
        if number:
            self.page.fact("...", f"{counted(number, noun)} left out; --json has them all")

    def statistics(self) -> None:
        for per in ("epoch", "step"):
            requests = [
                request
                for request in self.options.statistics
                if (named(request.name).per if request.name != "evaluate" else "epoch") == per
            ]
            for request in requests:
                values = statistic(self.run, request, self.options).tolist()
                places, left_out = shorten(len(values), STEPS)
                form = Format.of(values)
                meaning = STATISTICS.get(request.name)
                self.page.title(f"{request.text}: {meaning.meaning if meaning else 'as measured'}")
                self.page.table(
                    [
                        *(
                            Column(name, cells)
                            for name, cells in labels(
                                self.run, request, self.options, places
                            ).items()
                        ),
                        Column(request.text, [form.text(values[place]) for place in places]),
                    ],
                    STEPS // 2 - 1 if left_out else None,
                )
                self._left_out(left_out, "number")

    def foot(self) -> None:
        if self.hidden:
            self.page.space()
            self.page.fact("more", f"in a wider terminal: {', '.join(self.hidden)}")


def _versions(versions: Mapping[str, Any], device: Any) -> str:
    named_backend = str(versions.get("backend", "backend"))
    known = {
        "Keras": versions.get("keras"),
        named_backend: versions.get("backend_version"),
        "numpy": versions.get("numpy"),
        "Python": versions.get("python"),
        "lossledger": versions.get("lossledger"),
    }
    text = ", ".join(f"{name} {version}" for name, version in known.items() if version)
    return f"{text or 'not known'}{f', on {device}' if device else ''}"


def _arguments(arguments: Mapping[str, Any]) -> str:
    parts = [f"{name}={argument(value)}" for name, value in arguments.items() if value is not None]
    return ", ".join(part if len(part) <= 60 else f"{part[:57]}..." for part in parts) or "defaults"


class _Pictures:
    """What one more pass over the entries shows: the epochs as bars, and where a loss went bad.

    Args:
        run: The run.
        stated: The calls that will be shown, with their epochs.
        limit: Epochs of a call that will be shown, at most.
        blocks: As in `Options`.
    """

    def __init__(
        self,
        run: Run,
        stated: Sequence[tuple[Call, list[EpochStatement]]],
        limit: int,
        blocks: bool,
    ) -> None:
        sketches = {
            (call.line, epochs[place].epoch): Sketch(epochs[place].steps, BARS)
            for call, epochs in stated
            for place in shorten(len(epochs), limit)[0]
        }
        self.bad: dict[int, str] = {}
        calls = [call for call, _ in stated]
        for call, block in entries_of(run.path, calls, ["step", "epoch", "loss"]):
            # Without the counts NumPy imports its masked arrays first, for 8 ms.
            for epoch in np.unique(block["epoch"], return_counts=True)[0].tolist():
                if (call.line, epoch) in sketches:
                    sketches[call.line, epoch].add(block["loss"][block["epoch"] == epoch])
            bad = np.flatnonzero(~np.isfinite(block["loss"]))
            if len(bad) and call.number not in self.bad:
                epoch, step, loss = (block[name][bad[0]] for name in ("epoch", "step", "loss"))
                self.bad[call.number] = f"{loss} in epoch {epoch}, at step {step:,} of the run"
        self.lines = {key: sketch.text(blocks) for key, sketch in sketches.items()}


def _columns(
    shown: Sequence[EpochStatement],
    sketches: Sequence[str],
    gaps: Mapping[int | None, float | None],
) -> list[Column]:
    losses = ("min", "max", "first", "last", "epoch_mean", "batch_mean", "reported")
    form = Format.of(getattr(each, name) for each in shown for name in losses)
    spread = Format.of(value for each in shown for value in (each.std, each.running_std))

    def loss(name: str, rank: int) -> Column:
        return Column(name, [form.text(getattr(each, name)) for each in shown], rank)

    columns = [
        Column("epoch", [str(each.epoch) for each in shown]),
        Column("steps", [f"{each.steps:,}" for each in shown], 1),
        Column("rows", [f"{each.rows:,}" for each in shown], 10),
        Column("raw losses", sketches, 4, left=True),
        loss("min", 5),
        loss("max", 5),
        loss("first", 11),
        loss("last", 9),
        Column("std", [spread.text(each.std) for each in shown], 7),
        Column("running_std", [spread.text(each.running_std) for each in shown], 7),
        loss("batch_mean", 3),
        loss("epoch_mean", 0),
    ]
    if any(each.reported is not None for each in shown):
        columns.append(loss("reported", 2))
        columns.append(Column("difference", [difference(gaps.get(e.epoch)) for e in shown], 6))
    if any(each.nonfinite for each in shown):
        columns.append(Column("finite", [_finite(each) for each in shown], 0))
    return columns


def _finite(epoch: EpochStatement) -> str:
    if not epoch.nonfinite:
        return "all"
    return f"{epoch.steps - epoch.nonfinite:,} of {epoch.steps:,} finite"
