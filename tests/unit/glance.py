"""What the pages say of `docs/benchmarks.md` at a glance, made of its tables."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs/benchmarks.md"
BACKENDS = ("tensorflow", "jax", "torch")
OURS, PEERS = "lossledger", "Orbit, Lightning"
OTHERS = {
    "TensorBoard": "TensorBoard",
    "MLflow": "MLflow",
    "W&B": "W&B",
    "a callback": "a callback that de-averages logs",
}
"""The ways that are compared on each backend, by what their rows begin with."""

LEFT_OUT = "-"
"""Of a peer that couldn't run."""

Row = dict[str, str]


def table(header: str, rows: Iterator[tuple[str, ...]]) -> str:
    """A table of Markdown."""
    columns = header.split(" | ")
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def tables(mark: str) -> list[list[Row]]:
    """The tables of a measured section; of each its rows, by the names of the columns."""
    section = PAGE.read_text().partition(f"<!-- measured: {mark} -->")[2]
    found = re.findall(r"(?:^\|.*\n)+", section.partition("<!-- end measured -->")[0], re.M)
    lines = [[[c.strip() for c in t.split("|")[1:-1]] for t in each.splitlines()] for each in found]
    return [[dict(zip(rows[0], row, strict=True)) for row in rows[2:]] for rows in lines]


def by_way(mark: str, column: str) -> Row:
    """A column of a section's first table, by its first one."""
    rows = tables(mark)[0]
    return {next(iter(row.values())): row[column] for row in rows if row[column]}


def speed() -> str:
    """The figures that tell ways of training apart."""
    ways = ("`fit`", "`train_on_batch`", "by hand, a call a step", "`Loop`")
    ways = (*ways, "`Loop`, a step at a time")
    names = {"by hand, a call a step": "a loop of your own"}

    def rows() -> Iterator[tuple[str, ...]]:
        for model, backend in (("toy", "tensorflow"), ("toy", "jax"), ("convnet", "jax")):
            found = by_way(f"loop {backend}", f"{model}, µs/step")
            what = {"toy": "a small model", "convnet": "a convnet"}[model]
            yield f"{what} on {backend}", *(f"{_number(found[way]):,.0f}" for way in ways)

    return table(" | ".join(["µs a step", *(names.get(way, way) for way in ways)]), rows())


def glance() -> str:
    """What a reader asks first, of all tables, and where others are ahead."""
    told = "\n".join(f"- {line}" for line in behind()) or "- nothing"
    shown = table("what | lossledger | others", _glance())
    return f"{shown}\n\nNot ahead, or above what we aim at:\n\n{told}"


def behind() -> Iterator[str]:
    """Each section's line of what is faster than we are, or above our aim, where there is any."""
    page = PAGE.read_text()
    for mark, text in re.findall(r"<!-- measured: (.+?) -->\n(.*?)<!-- end", page, re.S):
        for found in re.findall(
            r"^(?:Faster than|Above what we aim at).*: (?!none)(.+)$", text, re.M
        ):
            yield f"{mark.replace('keras-', '`fit` on ')}: {found}"


def _glance() -> Iterator[tuple[str, ...]]:
    yield "a recorded step, times a plain one", _each(_steps), ""
    slower = {b: by_way(f"keras-{b}", "slower by (quartiles)") for b in BACKENDS}
    yield (
        "a recorded `fit` of 500 steps, begin and end included, times a plain one",
        _each(lambda b: _of(slower[b], OURS)),
        "; ".join(
            f"{name} {', '.join(_of(slower[b], way) for b in BACKENDS)}"
            for name, way in OTHERS.items()
        ),
    )
    errors = {b: by_way(f"keras-{b}", "largest error") for b in BACKENDS}
    yield (
        "largest error of a recorded loss",
        _largest(errors, OURS),
        "; ".join(f"{name} {_largest(errors, way)}" for name, way in OTHERS.items()),
    )
    yield (
        "`Loop` of a small model, times as fast as `fit`, as `train_on_batch`",
        _each(lambda b: " and ".join(_faster(b, f"`{w}`") for w in ("fit", "train_on_batch"))),
        f"as the best by hand {', '.join(_faster(b, 'the best by hand') for b in BACKENDS)}; "
        f"as Orbit {_faster('tensorflow', PEERS)}, as Lightning {_faster('torch', PEERS)}",
    )
    yield "the same, recorded", _each(_recorded), ""
    for steps in (10**6, 10**7):
        seconds = by_way(f"reading {steps}", "seconds")
        rest = (f"{n.partition(',')[0]} {t} s" for n, t in seconds.items() if OURS not in n)
        power = len(str(steps)) - 1
        yield f"reading the losses of 10^{power} steps", f"{_of(seconds, OURS)} s", "; ".join(rest)
    painted = by_way("page", "painted, s")
    yield "a page of 10^6 steps, painted", f"{painted['1,000,000']} s", ""


def _each(figure: Callable[[str], str]) -> str:
    return ", ".join(f"{figure(backend)} on {backend}" for backend in BACKENDS)


def _steps(backend: str) -> str:
    """The ratios of all models, of steps alone."""
    rows = tables(f"recording {backend}")[0]
    ratios = sorted(float(row["ratio"]) for row in rows if "call" not in row["driver"])
    return f"{ratios[0]:.2f} to {ratios[-1]:.2f}"


def _faster(backend: str, way: str) -> str:
    """How many times as fast `Loop` is, of the small model."""
    toy = {row["`Loop` is faster by"]: row["toy"] for row in tables(f"loop {backend}")[1]}
    by = toy.get(f"than {way}")
    return f"{float(by):.3g}" if by else LEFT_OUT


def _recorded(backend: str) -> str:
    """How many times as fast a recorded `Loop` is, of the small model."""
    took = by_way(f"loop {backend}", "toy, µs/step")
    ours = _number(took["`Loop`, recorded"])
    times = (_number(took[way]) / ours for way in ("`fit`", "`train_on_batch`"))
    return " and ".join(f"{each:.3g}" for each in times)


def _number(text: str) -> float:
    return float(text.replace(",", ""))


def _of(column: Row, way: str) -> str:
    """A way's figure, without its quartiles."""
    found = (text.partition(" ")[0] for name, text in column.items() if name.startswith(way))
    return next(found, LEFT_OUT)


def _largest(columns: dict[str, Row], way: str) -> str:
    found = [figure for each in columns.values() if (figure := _of(each, way)) != LEFT_OUT]
    return f"{max(map(float, found)):.1g}" if found else LEFT_OUT
