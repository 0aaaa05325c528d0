"""`lossledger.record`: where a recording begins in a user's program."""

import os
from pathlib import Path
from typing import Any

from lossledger.errors import LossLedgerError
from lossledger.objects import is_uri
from lossledger.recorder.beside import Exports
from lossledger.recorder.recording import Recording


def record(
    directory: str | os.PathLike[str] = "runs",
    *,
    name: str | None = None,
    model: Any = None,
    export: Exports = (),
    resume: str | os.PathLike[str] | None = None,
) -> Recording:
    """Record every training inside a `with` block into a new run folder.

    Args:
        directory: Folder that holds the runs; created if it isn't there. Or its URI on an object
            store, `s3://bucket/runs`: the run is recorded on this machine, and a process beside
            uploads it as it grows.
        name: Name of the run; the script's by default.
        model: The only model to record; every model by default.
        export: Trackers that the run is exported to as it grows, by processes of their own:
            `["tensorboard", "mlflow"]`, into `exports/tensorboard` and so on; or
            `{"tensorboard": "logs"}`, which names the folders.
        resume: A run to go on in, instead of a new one: its folder, or a name in `directory`, as
            `lossledger.open` takes it. Steps go on counting; those that are trained again after a
            crash are marked, and statements count them once.

    Returns:
        A `Recording`, to be used in a `with` statement. Its `path` is the run folder.

    Raises:
        LossLedgerError: If `directory` is a file (slug `not-a-folder`) or `model` no model of Keras
            (`not-a-model`); if a tracker is unknown; if there is no run to resume (`no-run`),
            another process still records into it (`folder-in-use`), or several processes recorded
            it (`workers-apart`).

    Example:

    ```python
    with lossledger.record("runs", name="baseline") as run:
        model.fit(x, y, batch_size=32, epochs=10)
    lossledger.open(run.path).statistic("epoch_mean")
    ```
    """
    if not is_uri(directory) and Path(directory).is_file():
        raise LossLedgerError(
            f"`directory` must be a folder. Received: {directory}, which is a file. "
            "Give a folder that holds runs, for instance 'runs'.",
            slug="not-a-folder",
        )
    if isinstance(model, type) or not (model is None or hasattr(model, "train_on_batch")):
        raise LossLedgerError(
            f"`model` must be a model of Keras. Received: {model!r}. Give the model itself, or "
            "leave it out to record every model.",
            slug="not-a-model",
        )
    return Recording(directory, name=name, model=model, export=export, resume=resume)
