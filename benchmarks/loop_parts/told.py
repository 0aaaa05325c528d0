"""What was measured of a backend, as its section of the page says it."""

import statistics
from dataclasses import dataclass

import section

PEERS = ("Orbit", "PyTorch Lightning")
LOOP, STEPPING, ON_BATCH = "`Loop`", "`Loop`, a step at a time", "`train_on_batch`"


@dataclass(frozen=True)
class Measured:
    """A model.

    Args:
        steps: Microseconds a step, by way, a number a round.
        first: Seconds of the first epoch, by way, a number a process.
        left_out: Ways that couldn't run, with their reasons.
    """

    steps: dict[str, list[float]]
    first: dict[str, list[float]]
    left_out: dict[str, str]

    def median(self, way: str) -> float:
        return statistics.median(self.steps[way])

    def first_median(self, way: str) -> float:
        return statistics.median(self.first[way])

    def best(self, *begins: str) -> float | None:
        """The least median of the ways that begin so; None where there is none."""
        found = [self.median(way) for way in self.steps if way.startswith(begins)]
        return min(found, default=None)


RATIOS = {
    "than `fit`": lambda m: m.median("`fit`") / m.median(LOOP),
    "than `train_on_batch`": lambda m: m.median(ON_BATCH) / m.median(LOOP),
    "than the best of Keras's own": lambda m: m.best("`fit`", ON_BATCH) / m.median(LOOP),
    "than the best by hand": lambda m: m.best("by hand") / m.median(LOOP),
    "than Orbit, Lightning": lambda m: best / m.median(LOOP) if (best := m.best(*PEERS)) else None,
    "a step at a time, than `train_on_batch`": lambda m: m.median(ON_BATCH) / m.median(STEPPING),
    "in its first epoch, than `fit`": lambda m: m.first_median("`fit`") / m.first_median(LOOP),
}


def tell(backend: str, found: dict[str, Measured], counts: str, *, whole: bool) -> None:
    """Writes the section of a backend.

    Args:
        backend: Its name.
        found: What was measured, by model.
        counts: How often, in words.
        whole: Whether that is all models.
    """
    packages = {
        "tensorflow": ("tensorflow-cpu", "tf-models-official"),
        "torch": ("torch", "lightning"),
    }
    versions = section.versions("keras", *packages.get(backend, (backend,)))
    head = section.head(f"Loop on {backend}, medians of {counts}", versions)
    ways = list(dict.fromkeys(way for model in found.values() for way in model.steps))
    names = [
        backend,
        *(c for n in found for c in (f"{n}, µs/step", "least to most", "first epoch, s")),
    ]
    table = section.table(names, [(way, *cells(way, found)) for way in ways])
    ratios = [
        (name, *("" if (by := ratio(model)) is None else f"{by:.2f}" for model in found.values()))
        for name, ratio in RATIOS.items()
    ]
    ratios = [row for row in ratios if any(row[1:])]
    faster = section.table(("`Loop` is faster by", *found), ratios)
    left_out = [
        f"- {way} is left out of the {name}: {why}."
        for name, model in found.items()
        for way, why in model.left_out.items()
    ]
    section.write(
        f"loop {backend}", head, table, faster, ahead(found), "\n".join(left_out), whole=whole
    )


def cells(way: str, found: dict[str, Measured]) -> list[str]:
    """The figures of a way."""
    told: list[str] = []
    for model in found.values():
        if way not in model.steps:
            told += ["", "", ""]
            continue
        first = f"{model.first_median(way):.2f}" if way in model.first else ""
        spread = f"{min(model.steps[way]):,.1f} to {max(model.steps[way]):,.1f}"
        told += [f"{model.median(way):,.1f}", spread, first]
    return told


def ahead(found: dict[str, Measured]) -> str:
    """The ways that are faster than the loop."""
    faster = [
        f"{name}, {way} ({model.median(way) / model.median(LOOP):.2f} of its time)"
        for name, model in found.items()
        for way in model.steps
        if "Loop" not in way and model.median(way) < model.median(LOOP)
    ]
    return f"Faster than `Loop`: {'; '.join(faster) or 'none'}."
