"""How long all losses of a run of many steps take to be read, and how much they take on disk.

    python reading.py STEPS [NAME ...]

Writes the files first, each as its own tool lays them out, then times the reading, a process each.
"""

import importlib
import json
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from common import Found, say

BATCHES = 250
"""Steps of an epoch."""


def losses(steps: int) -> np.ndarray:
    """Raw losses that look like some, (steps,) in float32."""
    rng = np.random.default_rng(0)
    return (0.7 + 0.02 * rng.standard_normal(steps)).astype("float32")


def write_ours(folder: Path, values: np.ndarray) -> None:
    """A run, entry by entry as the recorder writes them."""
    from datetime import datetime

    from lossledger import folder as folders
    from lossledger import store

    path = folders.create_folder(folder, "run", datetime(2026, 1, 1))
    writer = store.Writer(path)
    steps, rng = np.arange(len(values)), np.random.default_rng(1)
    times = np.cumsum(rng.integers(150_000, 400_000, len(values)))
    batches = rng.integers(1, 2**63, BATCHES, dtype="u8")
    for at in range(0, len(values), 100_000):
        part = slice(at, at + 100_000)
        n = len(values[part])
        writer.append(
            {
                "step": steps[part],
                "call": np.zeros(n, "i4"),
                "model": np.zeros(n, "i4"),
                "epoch": (steps[part] // BATCHES).astype("i4"),
                "batch": (steps[part] % BATCHES).astype("i4"),
                "loss": values[part],
                "weight": np.full(n, 32.0),
                "rows": np.full(n, 32, "i4"),
                "time": times[part],
                "batch_id": batches[steps[part] % BATCHES],
                "updated": np.ones(n, bool),
            }
        )
        writer.flush()
    writer.close()
    folders.append_line(path / "calls.jsonl", {"call": 0, "driver": "fit", "weight_kind": "rows"})
    info = {"format": 1, "id": path.name, "name": "run", "complete": True, "entries": len(values)}
    folders.write_json(path / "run.json", {**info, "created": "2026-01-01T00:00:00+00:00"})


def read_ours(folder: Path) -> np.ndarray:
    """`lossledger.open(...).losses()`."""
    import lossledger

    return lossledger.open(folder / "latest").losses()


def write_tensorboard(folder: Path, values: np.ndarray) -> None:
    """An event file of scalars, record by record."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

    path = folder / "events.out.tfevents.1700000000.host.1.0"
    with open(path, "wb", 1 << 20) as file:
        for step, value in enumerate(values.tolist()):
            event = Event(wall_time=1.7e9 + step / 5000, step=step)
            event.summary.value.add(tag="loss", simple_value=value)
            data = event.SerializeToString()
            length = struct.pack("<Q", len(data))
            file.write(length + struct.pack("<I", masked_crc32c(length)))
            file.write(data + struct.pack("<I", masked_crc32c(data)))


def read_tensorboard(folder: Path) -> np.ndarray:
    """TensorBoard's EventAccumulator, nothing thinned out."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    read.Reload()
    return np.array([event.value for event in read.Scalars("loss")])


def mlflow_client(folder: Path):
    """A client of the store in a folder."""
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    return mlflow.MlflowClient()


def write_mlflow(folder: Path, values: np.ndarray) -> None:
    """A run in MLflow's SQLite store, whose rows of metrics are copied in at once."""
    import sqlite3

    client = mlflow_client(folder)
    run = client.create_run(client.create_experiment("peers")).info.run_id
    client.log_metric(run, "loss", float(values[0]), timestamp=0, step=0)
    (folder / "run.txt").write_text(run)
    with sqlite3.connect(folder / "mlflow.db") as base:
        rows = (("loss", v, k, run, k, 0) for k, v in enumerate(values.tolist()) if k)
        base.executemany(
            "INSERT INTO metrics (key, value, timestamp, run_uuid, step, is_nan) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            rows,
        )


def read_mlflow(folder: Path) -> np.ndarray:
    """`MlflowClient.get_metric_history`."""
    history = mlflow_client(folder).get_metric_history((folder / "run.txt").read_text(), "loss")
    return np.array([m.value for m in sorted(history, key=lambda m: m.step)])


LIMIT = 300
"""Seconds that a tool may read."""

TENSORBOARD = "tensorboard.backend.event_processing.event_accumulator"
TOOLS = {
    "lossledger, run.losses()": (write_ours, read_ours, "lossledger.run"),
    "TensorBoard, EventAccumulator": (write_tensorboard, read_tensorboard, TENSORBOARD),
    "MLflow, get_metric_history": (write_mlflow, read_mlflow, "mlflow.tracking"),
}
"""What writes, what reads, and what is imported before the clock starts."""


def timed(name: str, folder: Path) -> None:
    """In a process of its own."""
    _, read, module = TOOLS[name]
    importlib.import_module(module)
    began = time.perf_counter()
    values = read(folder)
    seconds = time.perf_counter() - began
    json.dump([seconds, float(values.astype("f8").sum()), len(values)], sys.stdout)


def main() -> None:
    """Writes and times all of them."""
    steps, names = int(sys.argv[1]), sys.argv[2:] or list(TOOLS)
    values = losses(steps)
    found = Found(f"{steps:,} steps").with_versions("pyarrow", "tensorboard", "mlflow")
    with tempfile.TemporaryDirectory() as top:
        for number, name in enumerate(names):
            print(f"   {name}", file=sys.stderr, flush=True)
            folder = Path(top) / str(number)
            folder.mkdir()
            try:
                TOOLS[name][0](folder, values)
                command = [sys.executable, __file__, "--timed", name, str(folder)]
                done = subprocess.run(
                    command, capture_output=True, text=True, check=True, timeout=LIMIT
                )
                seconds, total, count = json.loads(done.stdout)
            except subprocess.TimeoutExpired:
                found.left_out[name] = f"not through in {LIMIT // 60} minutes"
                continue
            except Exception as error:
                found.left_out[name] = repr(error)[:200]
                continue
            error = abs(total - float(values.astype("f8").sum())) / count
            size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) / steps
            found.rows.append(
                {"name": name, "seconds": seconds, "read": count, "error": error, "size": size}
            )
    say(found)


if __name__ == "__main__":
    if sys.argv[1] == "--timed":
        timed(sys.argv[2], Path(sys.argv[3]))
    else:
        main()
