"""MLflow: metrics of a run in a local SQLite store."""

import json
import os
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from typing import Any

import numpy as np

from lossledger.catalog import read_info
from lossledger.export.base import Column, Scalars, began, needed
from lossledger.export.progress import Progress, identity
from lossledger.growth import is_over
from lossledger.vectors import Integers

BATCH = 1000
"""Metrics that MLflow takes at once, at most."""
TAG_CHARACTERS = 5000
"""What is kept in one tag, at most; MLflow takes 8,000."""
_EXPERIMENT = "lossledger"
_KEY = "lossledger.key"
_PROGRESS = "lossledger.progress"


class MLflow(Scalars):
    """Metrics of an MLflow run, which is found again by a tag.

    The store is `mlflow.db` in `directory`. What was written after the last commit is written
    again, with the same steps and times, and MLflow keeps one of equal metrics. It keeps float64;
    NaN as NaN, and an infinity as the largest float64 of its sign.
    """

    name = "mlflow"
    chunk = 5_000

    def begin(self, *, force: bool) -> Progress:
        """See `Tracker`."""
        # Else it logs a line a table that it makes, and reports its use.
        os.environ.setdefault("MLFLOW_CONFIGURE_LOGGING", "false")
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        needed("sqlalchemy", "mlflow")
        needed("alembic", "mlflow")
        self._entities = needed("mlflow.entities", "mlflow")
        self._client: Any = needed("mlflow.tracking", "mlflow").MlflowClient(self._store())
        self._began = began(self.run.info.get("created"))
        self._waiting: list[Any] = []
        experiment = self._experiment()
        key = blake2b(self.run.id.encode(errors="replace"), digest_size=16).hexdigest()
        found = self._client.search_runs([experiment], f"tags.`{_KEY}` = '{key}'")
        if force:
            for run in found:
                self._client.delete_run(run.info.run_id)
        elif found:
            self._id = found[0].info.run_id
            return Progress.of(_kept(found[0].data.tags), self.run, self.where)
        progress = Progress(identity(self.run))
        tags = {_KEY: key, "lossledger.run": self.run.id, "lossledger.path": self.run.where}
        tags |= _tags(progress)
        start = int(self._began * 1000)
        created = self._client.create_run(experiment, start, tags, self.run.name[:250])
        self._id = created.info.run_id
        return progress

    def _store(self) -> str:
        self.directory.mkdir(parents=True, exist_ok=True)
        return f"sqlite:///{self.directory.absolute() / 'mlflow.db'}"

    def _experiment(self) -> str:
        found = self._client.get_experiment_by_name(_EXPERIMENT)
        if found is not None:
            return found.experiment_id
        artifacts = (self.directory.absolute() / "artifacts").as_uri()
        return self._client.create_experiment(_EXPERIMENT, artifacts)

    def write(self, step: Integers, time: Integers, columns: Mapping[str, Column]) -> None:
        """See `Scalars`."""
        metric = self._entities.Metric
        stamps = (self._began * 1000 + time / 1e6).astype(np.int64).tolist()
        steps = step.tolist()
        for name, (values, known) in columns.items():
            places = range(len(steps)) if known is None else np.flatnonzero(known).tolist()
            numbers = values.tolist()
            self._waiting += [metric(name, numbers[p], stamps[p], steps[p]) for p in places]
        while len(self._waiting) >= BATCH:
            self._send(BATCH)

    def _send(self, count: int, tags: Mapping[str, str] | None = None) -> None:
        batch, self._waiting = self._waiting[:count], self._waiting[count:]
        told = [self._entities.RunTag(*pair) for pair in (tags or {}).items()]
        if batch or told:
            # MLflow writes the metrics before the tags.
            self._client.log_batch(self._id, batch, (), told, synchronous=True)

    def commit(self, progress: Progress, *, last: bool) -> None:
        """See `Tracker`."""
        self._send(BATCH, _tags(progress))
        info = read_info(self.run.path) if last else {}
        if info.get("complete"):
            self._client.set_terminated(self._id, end_time=int(began(info.get("ended")) * 1000))
        elif last and is_over(self.run.path):
            self._client.set_terminated(self._id, status="KILLED")

    def close(self) -> None:
        """See `Tracker`."""
        self._waiting = []

    @property
    def where(self) -> str:
        """See `Tracker`."""
        return f"{self._store()}, run {self._id}"

    @property
    def next(self) -> str:
        """See `Tracker`."""
        return f"mlflow ui --backend-store-uri {self._store()}"


def _tags(progress: Progress) -> dict[str, str]:
    """How far it goes, in as many tags as it takes."""
    text = json.dumps(progress.to_object())
    parts = list(_cut(text))
    return {f"{_PROGRESS}.{place}": part for place, part in enumerate([*parts, "end"])}


def _cut(text: str) -> Iterator[str]:
    for begin in range(0, len(text), TAG_CHARACTERS):
        yield text[begin : begin + TAG_CHARACTERS]


def _kept(tags: Mapping[str, str]) -> dict[str, Any]:
    parts: list[str] = []
    while (part := tags[f"{_PROGRESS}.{len(parts)}"]) != "end":
        parts.append(part)
    return json.loads("".join(parts))
