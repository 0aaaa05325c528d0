"""The head of a page: what was run, and the numbers that a reader looks for first."""

import math
from collections.abc import Iterator

from lossledger.growth import condition
from lossledger.page.content import Content, Line
from lossledger.render.figures import Format
from lossledger.render.markup import Column, Html, element, joined, table
from lossledger.run import Call, EpochStatement, Run
from lossledger.words import counted, when

WARNINGS = 8


def title(content: Content) -> str:
    """The page's title: the names of the runs."""
    names = [run.name for run in content.runs]
    return " and ".join(names) if len(names) < 3 else f"{names[0]} and {len(names) - 1} more runs"


def head(content: Content) -> Html:
    """State, place and versions; the figures of one run as cards, of several as a table."""
    if len(content.runs) > 1:
        return joined([_table(content), *_warnings(content)])
    run = content.runs[0]
    return joined([_about(run, content), _cards(content), *_warnings(content)])


def _about(run: Run, content: Content) -> Html:
    versions = run.info.get("versions") or {}
    keras = f"Keras {versions['keras']}" if versions.get("keras") else ""
    backend = f"{versions.get('backend', '')} {versions.get('backend_version', '')}".strip()
    parts = [
        when(run.info.get("created"))[:16],
        _drivers(content.lines),
        " on ".join(part for part in (keras, backend) if part),
        str(run.info.get("device") or ""),
        counted(run.info["workers"], "worker") if run.info.get("workers") else "",
    ]
    kind = "complete" if run.complete else "incomplete"
    mark = element("span", condition(run.path, run.complete), class_=f"state {kind}")
    return element("p", mark, *(element("span", part) for part in parts if part), class_="about")


def _drivers(lines: list[Line]) -> str:
    drivers = [call.driver for line in lines for call in line.calls]
    if not drivers:
        return "no calls"
    names = " and ".join(dict.fromkeys(drivers))
    models = f", {counted(len(lines), 'model')}" if len(lines) > 1 else ""
    return f"{names}{'' if len(drivers) == 1 else f', {len(drivers)} calls'}{models}"


def _cards(content: Content) -> Html:
    return element("dl", *(_card(*each) for each in _figures(content, 0)), class_="cards")


def _card(name: str, value: str, about: str) -> Html:
    parts = [element("dt", name), element("dd", value, class_="value")]
    return element("div", *parts, element("dd", about, class_="about"))


def _figures(content: Content, run: int) -> Iterator[tuple[str, str, str]]:
    """Name, value and what it is of the figures of a run's last model that trained."""
    lines = [line for line in content.lines if line.run == run]
    entries = sum(line.track.entries for line in lines)
    rows = sum(int(line.track.stated.rows[-1]) for line in lines)
    trained = [line for line in lines if line.track.stated.epochs]
    if trained:
        line = max(trained, key=lambda line: line.calls[-1].number)
        yield from _losses(line, f"model {line.track.model}, " if len(lines) > 1 else "")
    yield "steps", f"{entries:,}", f"{rows:,} rows"
    lost = sum(line.track.notable.nonfinite for line in lines)
    yield "not finite", f"{lost:,}", f"of {entries:,} raw losses"


def _losses(line: Line, whose: str) -> Iterator[tuple[str, str, str]]:
    epochs = [each for _, each in line.track.stated.epochs]
    last = epochs[-1]
    about = f"{whose}epoch {last.epoch}, the last"
    yield "epoch_mean", _text(last.epoch_mean), about
    best = _best(epochs)
    if best is not None and best is not last:
        yield "epoch_mean", _text(best.epoch_mean), f"{whose}epoch {best.epoch}, the smallest"
    for name in dict.fromkeys(each.name for each in line.measured):
        mine = [each for each in line.measured if each.name == name]
        what = "of weights held fixed" if name == "evaluate" else "evaluate of validation data"
        yield name, _text(mine[-1].value), f"{whose}{what}, the last"
    raw = next((each.last for each in reversed(epochs) if math.isfinite(each.last)), last.last)
    yield "raw", _text(raw), f"{whose}the last finite step"


def _text(value: float) -> str:
    return Format.of([value]).text(value)


def _best(epochs: list[EpochStatement]) -> EpochStatement | None:
    finite = [each for each in epochs if math.isfinite(each.epoch_mean)]
    return min(finite, key=lambda each: each.epoch_mean) if finite else None


def _table(content: Content) -> Html:
    figures = [
        {name: value for name, value, about in _figures(content, place) if "small" not in about}
        for place in _places(content)
    ]
    names = list(dict.fromkeys(name for each in figures for name in each))
    heads = {"epoch_mean": "epoch_mean, last", "raw": "raw, last", "evaluate": "evaluate, last"}
    columns = [
        Column("run", content.names, number=False),
        Column("state", [_short_state(run) for run in content.runs], number=False),
        Column("driver", [_drivers(_lines(content, i)) for i in _places(content)], number=False),
        *(
            Column(
                heads.get(name, f"{name}, last" if name.startswith("val_") else name),
                [each.get(name, "") for each in figures],
            )
            for name in names
        ),
    ]
    return table(columns, "The runs")


def _places(content: Content) -> range:
    return range(len(content.runs))


def _lines(content: Content, run: int) -> list[Line]:
    return [line for line in content.lines if line.run == run]


def _short_state(run: Run) -> str:
    return "complete" if run.complete else "incomplete"


def _warnings(content: Content) -> Iterator[Html]:
    for run, name in zip(content.runs, content.names, strict=True):
        whose = f"{name}: " if len(content.runs) > 1 else ""
        warnings = run.info.get("warnings") or []
        told = [f"[{each.get('slug')}] {each.get('message')}" for each in warnings]
        unseen = run.info.get("unseen") or []
        told += [f"not recorded: {each.get('what')}, {each.get('where')}" for each in unseen]
        told += [f"call {c.number} failed: {c.info['failed']}" for c in _failed(run)]
        told += [f"missing: {each.told}" for each in run.missing]
        yield from (element("p", f"{whose}{each}", class_="warning") for each in told[:WARNINGS])
        if len(told) > WARNINGS:
            yield element("p", f"{whose}and {len(told) - WARNINGS} more, in run.json")


def _failed(run: Run) -> list[Call]:
    return [call for call in run.calls if call.info.get("failed")]


def summary(content: Content) -> str:
    """The chart of losses in words."""
    parts: list[str] = []
    for line in content.lines[:6]:
        epochs = [each for _, each in line.track.stated.epochs]
        whose = content.names[line.run]
        if len(_lines(content, line.run)) > 1:
            whose = f"{whose}, model {line.track.model}"
        if not epochs:
            continue
        form = Format.of(value for each in epochs for value in (each.min, each.max))
        low = min((e.min for e in epochs if math.isfinite(e.min)), default=math.nan)
        high = max((e.max for e in epochs if math.isfinite(e.max)), default=math.nan)
        first, last = epochs[0], epochs[-1]
        parts.append(
            f"{whose}: raw losses of {counted(line.track.entries, 'step')} from "
            f"{form.text(low)} to {form.text(high)}, the first {form.text(first.first)}, the last "
            f"{form.text(last.last)}; {counted(len(epochs), 'epoch')}, epoch_mean from "
            f"{form.text(first.epoch_mean)} to {form.text(last.epoch_mean)}."
        )
    more = len(content.lines) - 6
    parts += [f"And {counted(more, 'model')} more."] if more > 0 else []
    return " ".join(parts) or "No step was recorded: there is nothing to draw."


def remarks(content: Content) -> str:
    """What the chart can't show, in words."""
    found = [
        f"{content.names[line.run]}: {line.unplaced} losses of evaluate have no known place among "
        "the steps; the table of what was reported has them."
        for line in content.lines
        if line.unplaced
    ]
    return " ".join(found[:3])
