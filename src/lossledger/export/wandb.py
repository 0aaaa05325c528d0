"""Weights & Biases: an offline run, which `wandb sync` sends."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lossledger.export.base import Column, InFolder, Scalars, needed
from lossledger.export.progress import Progress
from lossledger.vectors import Integers

X = "optimizer_step"


class WandB(InFolder, Scalars):
    """The history of a W&B run, offline, in `directory`.

    Its x axis is the metric `optimizer_step`; W&B's own step counts the rows, over all exports of
    a run. An export that is cut off leaves a folder that the next one deletes and writes again.
    Numbers are float64; NaN and infinity are the texts that W&B has for them.
    """

    name = "wandb"

    def begin(self, *, force: bool) -> Progress:
        """See `Tracker`."""
        self._wandb = needed("wandb", "wandb")
        progress = self.place(force=force)
        self._offline: Any = None
        kept = self.files.kept
        drop = [*kept.get("folders", []), kept.get("open")] if force else [kept.get("open")]
        for name in filter(None, drop):
            shutil.rmtree(self._folder(name), ignore_errors=True)
        if force or not kept:
            self.files.keep(folders=[], rows=0)
        self.files.keep(open=None)
        self._row = int(self.files.kept["rows"])
        return progress

    def _folder(self, name: str) -> Path:
        """A folder of ours, by a name from a file: never any other."""
        folder = Path(name).name
        return self.directory / "wandb" / (folder if folder.startswith("offline-run-") else "none")

    def _begun(self) -> Any:
        if self._offline is None:
            settings = self._wandb.Settings(
                mode="offline",
                root_dir=str(self.directory.absolute()),
                console="off",
                silent=True,
                disable_git=True,
                disable_code=True,
                save_code=False,
                x_disable_stats=True,
                x_disable_meta=True,
                x_disable_machine_info=True,
            )
            self._offline = self._wandb.init(
                id=_key(self.run.id),
                name=self.run.name,
                project="lossledger",
                config={"lossledger": {"run": self.run.id, **self.run.info.get("versions", {})}},
                settings=settings,
            )
            self.files.keep(open=Path(self._offline.settings.sync_dir).name)
            self._offline.define_metric(X, hidden=True)
            self._offline.define_metric("*", step_metric=X)
        return self._offline

    def write(self, step: Integers, time: Integers, columns: Mapping[str, Column]) -> None:
        """See `Scalars`."""
        offline = self._begun()
        names = list(columns)
        numbers = [values.tolist() for values, _ in columns.values()]
        everywhere = all(known is None for _, known in columns.values())
        for place, row in enumerate(zip(*numbers, strict=True)):
            entry = dict(zip(names, row, strict=True))
            if not everywhere:
                known = {name: of is None or bool(of[place]) for name, (_, of) in columns.items()}
                entry = {name: value for name, value in entry.items() if known[name]}
            offline.log({X: int(step[place]), **entry}, step=self._row)
            self._row += 1

    def commit(self, progress: Progress, *, last: bool) -> None:
        """See `Tracker`."""
        if not last:
            return  # what it has on disk can't be told before its end
        if self._offline is not None:
            name = Path(self._offline.settings.sync_dir).name
            self._offline.finish()
            self._offline = None
            self.files.kept |= {
                "folders": [*self.files.kept["folders"], name],
                "rows": self._row,
                "open": None,
            }
        super().commit(progress, last=last)

    def close(self) -> None:
        """See `Tracker`."""
        if getattr(self, "_offline", None) is not None:
            self._offline.finish(exit_code=1)
        super().close()

    @property
    def where(self) -> str:
        """See `Tracker`."""
        return str(self.directory / "wandb")

    @property
    def next(self) -> str | None:
        """See `Tracker`."""
        folders = self.files.kept["folders"]
        return f"wandb sync {self._folder(folders[-1])}" if folders else None


def _key(name: str) -> str:
    """A run's name as an identifier that W&B takes."""
    from hashlib import blake2b

    return blake2b(name.encode(errors="replace"), digest_size=8).hexdigest()
