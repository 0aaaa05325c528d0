"""What a resumed recording goes on from: the run as its last writer left it."""

import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lossledger import catalog
from lossledger.errors import LossLedgerError
from lossledger.lock import Lock
from lossledger.objects import kept_at, remote_of
from lossledger.records import call_lines

_LAST = ("step", "call", "epoch", "batch")


@dataclass(frozen=True)
class Before:
    """A run's folder before it is resumed.

    Args:
        path: The folder.
        info: Its `run.json`.
        entries: Entries there are.
        step: The number of the step that comes next.
        call: The number of the call that comes next.
        time: When its last step was, ns since the run began.
        last: Where that was: `step`, `call`, `epoch`, `batch`; empty without any.
        models: What tells each of its models again, by number: see `likeness`.
    """

    path: Path
    info: Mapping[str, Any]
    entries: int
    step: int
    call: int
    time: int
    last: Mapping[str, int]
    models: Mapping[int, Any]

    @classmethod
    def of(cls, path: Path) -> "Before":
        """Looks at a run in whose folder nobody writes.

        Raises:
            LossLedgerError: It is damaged, or a newer version recorded it.
        """
        from lossledger import shares

        entries, call, time = 0, 0, 0
        last: dict[str, int] = {}
        for block in shares.scan(path, ["step", "call", "epoch", "batch", "time"]):
            entries += len(block["step"])
            call = max(call, 1 + int(block["call"].max()))
            time = max(time, int(block["time"].max()))
            place = int(block["step"].argmax())
            if int(block["step"][place]) > last.get("step", -1):
                last = {name: int(block[name][place]) for name in _LAST}
        models: dict[int, Any] = {}
        of: dict[int, int] = {}
        for line in call_lines(path):
            call = max(call, 1 + line["call"])
            if "model" in line:
                models.setdefault(line["model"], None)
                of[line["call"]] = line["model"]
            number = of.get(line["call"])
            if number is not None and "model_name" in line and models[number] is None:
                models[number] = likeness(line["model_name"], line.get("configuration"))
        step = last.get("step", -1) + 1
        return cls(path, catalog.read_info(path), entries, step, call, time, last, models)

    @property
    def elapsed(self) -> int:
        """Nanoseconds since the run began, by the calendar, but never before its last step."""
        try:
            began = datetime.fromisoformat(str(self.info.get("created")))
            seconds = (datetime.now(UTC) - began.astimezone(UTC)).total_seconds()
        except ValueError:
            seconds = 0.0
        return max(int(seconds * 1e9), self.time + 1)

    @property
    def attempts(self) -> list[Any]:
        """How the run was resumed before, in order."""
        return list(self.info.get("resumed") or ())

    def resumed(self, command: Sequence[str], **more: Any) -> dict[str, Any]:
        """What `run.json` says of this resume, which begins now."""
        return {
            "created": datetime.now(UTC).astimezone().isoformat(timespec="seconds"),
            "call": self.call,
            "step": self.step,
            "entries": self.entries,
            "complete": bool(self.info.get("complete")),
            "last": dict(self.last),
            "command": list(command),
            **more,
        }


def likeness(name: Any, configuration: Any) -> Any:
    """What two processes say alike of one model: its layers; its name, where it has none."""
    layers = configuration.get("layers") if isinstance(configuration, Mapping) else None
    return layers or str(name)


def likeness_of(model: Any) -> Any:
    """What tells a model of Keras again."""
    from lossledger.keras import describe

    return likeness(getattr(model, "name", "model"), {"layers": describe.layers(model)})


def found(run: str | os.PathLike[str], directory: str | os.PathLike[str]) -> Path:
    """The folder of the run that is to be resumed.

    Raises:
        LossLedgerError: There is no such run (slug `no-run`), another process records into it
            (`folder-in-use`), a newer version recorded it (`format-newer`), or several processes
            did (`workers-apart`).
    """
    remote = remote_of(run)
    if remote is not None:  # what this machine has recorded of it, not a copy to be read
        run, directory = remote.name, kept_at(remote.parent, "recorded")
    path = catalog.find(os.fspath(run), os.fspath(directory)).absolute()
    if catalog.read_info(path).get("workers"):
        raise LossLedgerError(
            "A run of processes that trained together can't be resumed. "
            f"Received: {path}. Record a new run, and compare both with `lossledger reconcile`.",
            slug="workers-apart",
        )
    with contextlib.suppress(OSError):  # a disk that refuses is told of when it is written to
        Lock(path).release()
    return path
