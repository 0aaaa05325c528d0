"""What trackers have, as their own readers say it: {name: [(step, value), ...]}."""

import json
import struct
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow as pa
from pyarrow import csv, parquet


def tensorboard(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """By the reader of TensorBoard, which checks every record; without TensorFlow."""
    sys.modules.setdefault("tensorboard.compat.notf", ModuleType("notf"))
    from tensorboard.backend.event_processing import event_accumulator

    found = {}
    for place in {path.parent for path in folder.rglob("*tfevents*")}:
        events = event_accumulator.EventAccumulator(str(place), size_guidance={"scalars": 0})
        events.Reload()
        for tag in events.Tags()["scalars"]:
            points = [(event.step, event.value) for event in events.Scalars(tag)]
            found.setdefault(tag, []).extend(points)
    return found


def mlflow(folder: Path, run: str = "") -> dict[str, list[tuple[int, float]]]:
    """By MLflow's client, from its SQLite store; of the run of this name only."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{folder.absolute() / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("lossledger").experiment_id
    found = {}
    for each in client.search_runs([experiment]):
        for name in each.data.metrics if run in ("", each.info.run_name) else ():
            history = client.get_metric_history(each.info.run_id, name)
            found[name] = sorted((m.step, m.timestamp, m.value) for m in history)
    return {name: [(step, value) for step, _, value in rows] for name, rows in found.items()}


def wandb(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """From the offline files, by W&B's own messages."""
    from wandb.proto import wandb_internal_pb2 as messages

    found, row = {}, -1
    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        for content in _wandb_records(path.read_bytes()):
            record = messages.Record()
            record.ParseFromString(content)
            if record.WhichOneof("record_type") != "history":
                continue
            items = {
                item.key or "/".join(item.nested_key): json.loads(item.value_json)
                for item in record.history.item
            }
            assert items["_step"] > row  # it refuses rows that go back
            row = items["_step"]
            for name, value in items.items():
                if not name.startswith("_") and name != "optimizer_step":
                    found.setdefault(name, []).append((items["optimizer_step"], float(value)))
    return found


def _wandb_records(data: bytes):
    """Records of a log in LevelDB's format, in blocks of 32 KiB, after 7 bytes of W&B's."""
    place, parts = 7, b""
    while place + 7 <= len(data):
        left = 32_768 - place % 32_768
        if left < 7:
            place += left
            continue
        _, size, kind = struct.unpack_from("<IHB", data, place)
        place += 7
        parts += data[place : place + size]
        place += size
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""


def tables(folder: Path) -> dict[str, pa.Table]:
    """Tables of `csv` or `parquet`, by name."""
    found = {}
    for path in sorted(folder.rglob("*.csv")):
        # Its default takes the text nan for no value.
        found[path.stem] = csv.read_csv(path, convert_options=csv.ConvertOptions(null_values=[""]))
    for path in sorted(folder.rglob("*.parquet")):
        found.setdefault(path.stem.rpartition("-")[0], []).append(parquet.read_table(path))
    return {
        name: pa.concat_tables(each, promote_options="default") if type(each) is list else each
        for name, each in found.items()
    }


def table_points(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """The same as the others, of tables of one model."""
    found = {}
    for table in tables(folder).values():
        steps = table.column("optimizer_step").to_pylist()
        for name in table.column_names:
            if "/" in name or name == "learning_rate":
                values = table.column(name).to_pylist()
                pairs = zip(steps, values, strict=True)
                kept = [(step, float(value)) for step, value in pairs if value is not None]
                if kept:
                    found.setdefault(name, []).extend(kept)
        if "value" in table.column_names:
            names, values = (table.column(n).to_pylist() for n in ("name", "value"))
            for step, name, value in zip(steps, names, values, strict=True):
                found.setdefault(f"reported/{name}", []).append((step, value))
    return found


READERS = {
    "tensorboard": tensorboard,
    "mlflow": mlflow,
    "wandb": wandb,
    "csv": table_points,
    "parquet": table_points,
}


def values(points: list[tuple[int, float]]) -> np.ndarray:
    return np.array([value for _, value in points])


def steps(points: list[tuple[int, float]]) -> list[int]:
    return [step for step, _ in points]
