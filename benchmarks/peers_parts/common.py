"""What the parts share: the data, the turns, and what is said of a way to record."""

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

import numpy as np

SIZE = 32
ROWS = 8000 - 16  # 250 batches, the last of 16 rows
FEATURES = 10


@dataclass
class Way:
    """A way to train, with what it records.

    Args:
        name: As the table has it.
        train: Trains `epochs` epochs; called again and again.
        values: Reads what the first training recorded: loss by step, from 0.
        folder: Where it writes; None where it keeps its numbers in memory.
        note: What else to know.
    """

    name: str
    train: Callable[[int], None]
    values: Callable[[], dict[int, float]] | None = None
    folder: Path | None = None
    note: str = ""


@dataclass
class Row:
    """What was measured of a way."""

    name: str
    step: float  # microseconds
    ratio: float
    low: float
    high: float
    missed: int | None = None
    error: float | None = None
    size: float | None = None  # bytes a step
    note: str = ""


@dataclass
class Found:
    """What a part prints: rows, and the ways left out with their reasons."""

    title: str
    rows: list[dict] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    def with_versions(self, *names: str) -> "Found":
        """Says which version of each package is at work."""
        self.versions = {name: version(name) for name in names}
        return self


def data() -> tuple[np.ndarray, np.ndarray]:
    """Features of shape (7984, 10), and targets of shape (7984, 1); float32."""
    rng = np.random.default_rng(0)
    x = rng.random((ROWS, FEATURES), dtype="float32")
    return x, (x.sum(1, keepdims=True) > FEATURES / 2).astype("float32")


def parts() -> list[slice]:
    """The batches of an epoch."""
    return [slice(at, min(at + SIZE, ROWS)) for at in range(0, ROWS, SIZE)]


def measure(found: Found, ways: Sequence[Way], truth: np.ndarray, rounds: int, epochs: int) -> None:
    """Trains each way once to see what it records, then all by turns to see what it costs.

    Args:
        found: Takes the rows.
        ways: The first is the plain one, which records nothing.
        truth: The raw losses of two epochs from the first weights, (steps,) in float64.
        rounds: How often each is timed.
        epochs: How many a timed training has.
    """
    rows: dict[str, Row] = {}
    kept: list[Way] = []
    for way in ways:
        print(f"   {way.name}", file=sys.stderr, flush=True)
        try:
            way.train(2)
            rows[way.name] = recorded(way, truth)
            way.train(1)
            kept.append(way)
        except Exception as error:
            found.left_out[way.name] = f"{type(error).__name__}: {str(error)[:200]}"
    times = np.array([turn(kept, number, epochs) for number in range(rounds)])
    ratios = times / times[:, :1]
    steps = epochs * len(parts())
    for k, way in enumerate(kept):
        row = rows[way.name]
        row.step = float(np.median(times[:, k])) / steps * 1e6
        row.low, row.ratio, row.high = map(float, np.percentile(ratios[:, k], [25, 50, 75]))
        found.rows.append(asdict(row))


def turn(ways: Sequence[Way], number: int, epochs: int) -> list[float]:
    """Seconds of each, in another order each time, so that a busy moment meets them all."""
    seconds = [0.0] * len(ways)
    for k in np.roll(np.arange(len(ways)), number):
        began = time.perf_counter()
        ways[k].train(epochs)
        seconds[k] = time.perf_counter() - began
    return seconds


def recorded(way: Way, truth: np.ndarray) -> Row:
    """What the first training left behind."""
    row = Row(way.name, 0, 0, 0, 0, note=way.note)
    if way.values is not None:
        values = way.values()
        there = [step for step in range(len(truth)) if step in values]
        row.missed = len(truth) - len(there)
        errors = [abs(values[step] - truth[step]) for step in there]
        row.error = float(max(errors)) if errors else None
        if way.folder is not None:
            row.size = sum(p.stat().st_size for p in way.folder.rglob("*") if p.is_file()) / len(
                truth
            )
    return row


def say(found: Found) -> None:
    """Hands the result to whoever started the part."""
    print()
    json.dump(asdict(found), sys.stdout)
