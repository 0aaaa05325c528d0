"""The tables of a page, a function a section; each gives HTML for its place in the page."""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any

from lossledger.page.content import Content, Line
from lossledger.page.notable import HIGH, NONFINITE, SPIKES, Notable, NotableStep
from lossledger.reconciliation.result import Reconciliation
from lossledger.render.figures import Format, difference
from lossledger.render.markup import Column, Html, element, joined, table
from lossledger.render.notes import EPOCHS_FROM, notes
from lossledger.render.waterfall import waterfall
from lossledger.reported import Reported
from lossledger.run import Call, EpochStatement
from lossledger.statistics import STATISTICS
from lossledger.words import argument, counted

_CALLS = 40
"""Calls whose notes are written out, at most."""


def reconciliation(content: Content) -> Html:
    """The gap of two runs: its picture, and each cause with its evidence."""
    if content.refusal:
        return _paragraphs("The two could not be reconciled.", content.refusal)
    result = content.reconciliation
    if result is None:
        return Html("")
    sides = zip((result.a, result.b), content.names, strict=True)
    a, b = (side.words(name) for side, name in sides)
    form = Format.of([result.a.value, result.b.value, result.gap])
    head = element(
        "dl",
        *_pair("a", f"{form.text(result.a.value)}, {a}"),
        *_pair("b", f"{form.text(result.b.value)}, {b}"),
        *_pair("gap, b - a", difference(result.gap)),
        class_="facts",
    )
    parts: list[str] = [element("p", result.verdict, class_="verdict"), head]
    if not result.comparable:
        parts += [element("p", reason, class_="warning") for reason in result.reasons]
    parts.append(element("div", waterfall(result), class_="wide"))
    if result.causes:
        parts.append(_causes(result))
    parted = result.divergence
    if parted is not None:
        where = f"The trainings part {parted.where}: {parted.cause}. {parted.evidence}"
        parts.append(element("p", where))
    return joined(parts)


def _causes(result: Reconciliation) -> Html:
    causes = result.causes
    columns = [
        Column("cause", [each.cause for each in causes], number=False),
        Column("amount", [difference(each.amount) for each in causes]),
        Column("known", [each.known for each in causes], number=False),
        Column("evidence", [each.evidence for each in causes], number=False),
        Column("what would remove it", [each.advice for each in causes], number=False),
    ]
    return table(columns, "Causes of the gap")


def steps(content: Content) -> Html:
    """Spikes, and losses that are not finite: which steps, which batches, which rows."""
    found = [(whose(content, line), line.track) for line in content.lines]
    spikes = [(name, each) for name, track in found for each in track.notable.spikes]
    bad = [(name, each) for name, track in found for each in track.notable.bad]
    lost = sum(track.notable.nonfinite for _, track in found)
    notable = found[0][1].notable if found else Notable("ema")
    spikes = sorted(spikes, key=lambda each: -each[1].score)
    what = (
        f"A spike is a raw loss more than {HIGH:g} standard deviations (std of its epoch's raw "
        f"losses) above {notable.statistic} before it; at most {SPIKES} of a model are kept. "
    )
    many = "There is none." if not spikes else f"There are {len(spikes)}, the highest first:"
    many = "There is one:" if len(spikes) == 1 else many
    parts: list[str] = [element("p", what, many, class_="note")]
    if spikes:
        parts.append(_steps(spikes, "Spikes, the highest first"))
    if lost:
        told = "1 loss is not finite" if lost == 1 else f"{lost:,} losses are not finite"
        more = f", of each model the first {NONFINITE}" if lost > len(bad) else ""
        parts += [
            element("h3", "Not finite"),
            element("p", f"{told}{more}:", class_="note"),
            _steps(bad, "Losses that are not finite"),
        ]
    return joined(parts)


def whose(content: Content, line: Line) -> str:
    """Which run and model a line is of, as far as there are several."""
    models = sum(each.run == line.run for each in content.lines)
    parts = [
        content.names[line.run] if len(content.runs) > 1 else "",
        f"model {line.track.model}" if models > 1 else "",
    ]
    return ", ".join(part for part in parts if part)


def _steps(found: Sequence[tuple[str, NotableStep]], caption: str) -> Html:
    named = [name for name, _ in found]
    items = [each for _, each in found]
    form = Format.of(value for each in items for value in (each.loss, each.before))
    seen: dict[int, int] = {}
    again: list[str] = []
    for each in sorted(items, key=lambda each: each.step):
        if each.batch_id and each.batch_id in seen:
            again.append("")
        seen.setdefault(each.batch_id, each.step)
    columns = [Column("where", named, number=False)] if any(named) else []
    columns += [
        Column("step", [f"{each.step:,}" for each in items]),
        Column("call", [str(each.call) for each in items]),
        Column("epoch", [str(each.epoch) for each in items]),
        Column("batch", [str(each.batch) for each in items], title="from 0, within the epoch"),
        Column("rows", [_rows(each) for each in items], title="counted through the epoch, from 0"),
        Column("raw", [form.text(each.loss) for each in items]),
        Column("ema before", [form.text(each.before) for each in items]),
        Column("std above", ["" if e.score != e.score else f"{e.score:.1f}" for e in items]),
        Column("batch_id", [f"{e.batch_id:016x}" if e.batch_id else "" for e in items]),
    ]
    if again:
        first = [seen[e.batch_id] for e in items]
        told = [
            f"as step {at:,}" if e.batch_id and at != e.step else ""
            for e, at in zip(items, first, strict=True)
        ]
        columns.append(Column("same batch", told, number=False))
    return table(columns, caption)


def _rows(each: NotableStep) -> str:
    first, after = each.rows
    return f"{first:,} to {after - 1:,}" if after > first else ""


def statements(content: Content) -> Html:
    """What is stated of each epoch from its entries, and what was reported for it."""
    rows = [
        (content.names[line.run], call, each)
        for line in content.lines
        for call, each in line.track.stated.epochs
    ]
    if len(content.runs) > 1:  # epochs to be compared stand side by side
        rows.sort(key=lambda row: (row[1].number, row[2].epoch))
    if not rows:
        return _paragraphs("No step was recorded, so there is nothing to state.")
    how: dict[str, dict[str, None]] = {}
    for name, call, _ in rows:
        if call.epochs_from in EPOCHS_FROM:
            how.setdefault(call.epochs_from, {})[name] = None
    told: list[Html] = []
    for known, names in how.items():
        of = f" of {' and '.join(names)}" if len(content.runs) > 1 else ""
        told.append(element("p", f"Epochs{of} are {EPOCHS_FROM[known]}.", class_="note"))
    return joined([*told, _statements(content, rows)])


def _statements(content: Content, rows: Sequence[tuple[str, Call, EpochStatement]]) -> Html:
    stated = [each for _, _, each in rows]
    names = ("epoch_mean", "batch_mean", "first", "last", "min", "max", "reported")
    form = Format.of(getattr(each, name) for each in stated for name in names)
    spread = Format.of(value for each in stated for value in (each.std, each.running_std))

    def losses(name: str, form: Format = form) -> Column:
        known = STATISTICS.get(name)
        title = f"{known.meaning} {known.formula}" if known else ""
        return Column(name, [form.text(getattr(each, name)) for each in stated], title=title)

    columns = [Column("epoch", [str(each.epoch) for each in stated])]
    if len(content.runs) > 1:
        columns.append(Column("run", [name for name, _, _ in rows], number=False))
    if len({call.number for _, call, _ in rows}) > 1:
        columns.append(Column("call", [str(call.number) for _, call, _ in rows]))
    if len({call.model for _, call, _ in rows}) > 1:
        columns.append(Column("model", [str(call.model) for _, call, _ in rows]))
    columns += [
        Column("steps", [f"{each.steps:,}" for each in stated]),
        Column("rows", [f"{each.rows:,}" for each in stated]),
        *(losses(name) for name in ("epoch_mean", "batch_mean")),
    ]
    if any(each.reported is not None for each in stated):
        columns.append(losses("reported"))
    columns += [losses(name) for name in ("first", "last", "min", "max")]
    columns += [losses(name, spread) for name in ("std", "running_std")]
    if any(each.nonfinite for each in stated):
        columns.append(Column("not finite", [f"{each.nonfinite:,}" for each in stated]))
    return table(columns, "What the entries say of each epoch")


def reported(content: Content) -> Html:
    """What was reported, beside what the entries say of it."""
    items = [
        (name, each)
        for name, found in zip(content.names, content.reported, strict=True)
        for each in found
    ]
    if not items:
        return _paragraphs("Nothing was reported: no History, no returned value, no evaluate.")
    told = [element("p", note, class_="note") for note in _notes(content)]
    form = Format.of(value for _, each in items for value in (each.value, each.stated))
    columns = [
        Column("place", [each.place for _, each in items], number=False),
        Column("name", [each.name for _, each in items], number=False),
        *([Column("run", [n for n, _ in items], number=False)] if len(content.runs) > 1 else []),
        Column("call", [str(each.call) for _, each in items]),
        Column("epoch", ["" if e.epoch is None else str(e.epoch) for _, e in items]),
        Column("reported", [form.text(each.value) for _, each in items]),
        Column("statistic", [each.statistic or "" for _, each in items], number=False),
        Column("stated", [form.text(each.stated) for _, each in items]),
        Column("difference", [difference(each.difference) for _, each in items]),
        Column("why", [each.why for _, each in items], number=False),
    ]
    whole = table(columns, "Reported beside stated")
    label = element("summary", f"All of it, in {counted(len(items), 'row')}")
    return joined([*told, element("details", label, whole)])


def _notes(content: Content) -> list[str]:
    found: list[str] = []
    for run, name, items in zip(content.runs, content.names, content.reported, strict=True):
        keras = run.info.get("versions", {}).get("keras")
        of_call: dict[int, list[Reported]] = {}
        for each in items:
            of_call.setdefault(each.call, []).append(each)
        for call, mine in of_call.items():
            parts = [name] * (len(content.runs) > 1) + [f"call {call}"] * (len(run.calls) > 1)
            of = f"{', '.join(parts)}: " if parts else ""
            found += [f"{of}{note}.".replace("..", ".") for note in notes(mine, keras)]
    rest = len(found) - _CALLS
    return found if rest <= 0 else [*found[:_CALLS], f"and {rest} more"]


def configuration(content: Content) -> Html:
    """Configuration and versions; of several only what differs."""
    known = content.facts()
    subjects = known.subjects
    parts: list[str] = []
    names = list(known.differing)
    if len(subjects) > 1:
        what = "What is not the same:" if names else "All of it is the same."
        parts.append(element("p", what, class_="note"))
    if names:
        parts.append(_facts(names, subjects, lambda name, place: known.differing[name][place]))
    if known.left_out:
        parts.append(element("p", f"{counted(known.left_out, 'call')} more are left out."))
    if known.same:
        inner = _facts(list(known.same), ["all"], lambda name, place: known.same[name])
        label = element("summary", f"{counted(len(known.same), 'name')} that say the same in all")
        parts.append(element("details", label, inner))
    return joined(parts)


def _facts(names: Sequence[str], subjects: Sequence[str], value: Callable[[str, int], Any]) -> Html:
    columns = [Column("", names, number=False)]
    columns += [
        Column(subject, [_value(value(name, place)) for name in names], number=False)
        for place, subject in enumerate(subjects)
    ]
    return table(columns, "Configuration and versions")


def _value(value: Any) -> str:
    if value is None:
        return "not said"
    if isinstance(value, dict | list):
        text = argument(value)
    else:
        text = f"{value:.9g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 200 else f"{text[:197]}..."


def _pair(name: str, value: str) -> Iterator[Html]:
    return chain([element("dt", name)], [element("dd", value)])


def _paragraphs(*texts: str) -> Html:
    return joined(element("p", each) for each in texts)
