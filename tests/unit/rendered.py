"""Runs to render, and how a table is read back."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lossledger import run as runs
from lossledger.folder import append_line, write_json
from lossledger.render.base import Options
from lossledger.render.show import TerminalShow
from lossledger.store import Writer

VERSIONS = {"python": "3.13.1", "keras": "3.15.1", "backend": "jax", "numpy": "2.4.6"}


@dataclass
class Trained:
    """A call: a list of losses an epoch."""

    losses: Sequence[Sequence[float]]
    model: int = 0
    driver: str = "fit"
    reports: bool = True
    info: dict[str, Any] = field(default_factory=dict)


def rows_of(losses: Sequence[float]) -> np.ndarray:
    """Full batches of 4 rows, the last one of 2."""
    rows = np.full(len(losses), 4, "i4")
    rows[-1:] = 2
    return rows


def mean_of(losses: Sequence[float]) -> float:
    return float(np.average(np.float64(np.float32(losses)), weights=rows_of(losses)))


def write(folder: Path, *calls: Trained, complete: bool = True, **info: Any) -> runs.Run:
    folder = folder / "2026-11-22_18-38-54-train"
    folder.mkdir(parents=True)
    writer, step = Writer(folder), 0
    for number, call in enumerate(calls):
        said = {"model": call.model, "model_name": f"net_{call.model}", "driver": call.driver}
        append_line(folder / "calls.jsonl", {"call": number, **said, **call.info})
        for epoch, losses in enumerate(call.losses):
            size, rows = len(losses), rows_of(losses)
            writer.append(
                {
                    "step": np.arange(step, step + size),
                    "call": np.full(size, number, "i4"),
                    "model": np.full(size, call.model, "i4"),
                    "epoch": np.full(size, -1 if call.driver != "fit" else epoch, "i4"),
                    "batch": np.arange(size, dtype="i4"),
                    "loss": np.array(losses, "f4"),
                    "weight": rows.astype("f8"),
                    "rows": rows,
                    "time": np.arange(step, step + size),
                    "updated": np.ones(size, bool),
                }
            )
            step += size
            if call.reports:
                value = float(np.float32(mean_of(losses)))
                item = {"place": "history", "name": "loss", "epoch": epoch, "value": value}
                append_line(folder / "calls.jsonl", {"call": number, "reported": [item]})
    writer.close() if complete else writer.flush()
    about = {"format": 1, "name": "train", "complete": complete, "versions": VERSIONS, **info}
    write_json(folder / "run.json", about)
    run = runs.open(folder)
    run.__dict__["writer"] = writer  # a writer that is collected would seal the crashed run
    return run


def show(run: runs.Run, **options: Any) -> str:
    return TerminalShow(Options(**options)).render(run)


def row(text: str, first: str) -> list[str]:
    """The cells of the table's row that begins so."""
    found = [line.split() for line in text.splitlines() if line.split()[:1] == [first]]
    assert len(found) == 1, text
    return found[0]


LOSSES = ([3.0, 2.0, 2.5, 1.0], [2.0, 1.5, 0.5, 0.25], [1.0, 0.75, 0.5, 0.125])
