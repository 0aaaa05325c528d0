"""Commands in this process, on runs that are written as a test says: no training, no start-up."""

import contextlib
import io
import json
import os
from datetime import datetime
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from command import Outcome, environment

from lossledger import cli
from lossledger.folder import append_line, create_folder, write_json
from lossledger.store import Writer

LOSSES = np.array([3.0, 2.0, 1.0, 0.5], "f4")


def record(directory: Path, name: str, second: int, losses: np.ndarray = LOSSES) -> Path:
    """Writes a complete run of one fit with one epoch; its batches have two rows each."""
    folder = create_folder(directory, name, datetime(2026, 11, 22, 18, 38, second))
    writer, size = Writer(folder), len(losses)
    writer.append(
        {
            "step": np.arange(size),
            "call": np.zeros(size, "i4"),
            "model": np.zeros(size, "i4"),
            "epoch": np.zeros(size, "i4"),
            "batch": np.arange(size, dtype="i4"),
            "loss": losses,
            "weight": np.full(size, 2.0),
            "rows": np.full(size, 2, "i4"),
            "time": np.arange(size),
            "updated": np.ones(size, bool),
        }
    )
    writer.close()
    append_line(folder / "calls.jsonl", {"call": 0, "model": 0, "driver": "fit"})
    about = {"format": 1, "id": folder.name, "name": name, "complete": True, "entries": size}
    created = f"2026-11-22T18:38:{second}+00:00"
    write_json(folder / "run.json", {**about, "created": created, "versions": {"keras": "3.15.1"}})
    return folder


def run(folder: Path, *arguments: str, **variables: str) -> Outcome:
    """What a command leaves, in this process: a new one imports for longer than all else takes."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in "oe"]
    with (
        contextlib.chdir(folder),
        mock.patch.dict(os.environ, environment(**variables), clear=True),
        contextlib.redirect_stdout(streams[0]),
        contextlib.redirect_stderr(streams[1]),
    ):
        try:
            status = cli.main([*arguments])
        except SystemExit as end:  # argparse's
            status = int(end.code or 0)
    return Outcome(status, *(stream.buffer.getvalue() for stream in streams))


def shown(folder: Path, *arguments: str, **variables: str) -> dict[str, Any]:
    outcome = run(folder, *arguments, "--json", **variables)
    assert (outcome.status, outcome.stderr) == (0, b"")
    return json.loads(outcome.stdout)
