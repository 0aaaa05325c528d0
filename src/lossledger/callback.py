"""The recorder as a Keras callback."""

import os
from pathlib import Path
from typing import Any

from keras.callbacks import Callback

from lossledger.recorder.beside import Exports
from lossledger.recorder.recording import Recording


class Recorder(Callback):
    """Records the `fit` calls that it is given to, all into one run.

    Args:
        directory: Folder that holds the runs, or its URI on an object store; see
            `lossledger.record`.
        name: Name of the run; the script's by default.
        export: Trackers that the run is exported to as it grows; see `lossledger.record`.
        resume: A run to go on in, instead of a new one: see `lossledger.record`.

    Example:

    ```python
    model.fit(x, y, epochs=10, callbacks=[lossledger.Recorder("runs", export=["tensorboard"])])
    ```
    """

    # It needs no batch's logs: `fit` need not wait for them.
    async_safe = True

    def __init__(
        self,
        directory: str | os.PathLike[str] = "runs",
        name: str | None = None,
        *,
        export: Exports = (),
        resume: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__()
        self._recording = Recording(directory, name=name, export=export, resume=resume)

    @property
    def path(self) -> Path | None:
        """The run folder; `None` until a training has begun."""
        return self._recording.path

    def on_train_begin(self, logs: Any = None) -> None:
        """Begin to record; the step that Keras has just compiled is compiled anew with a tap."""
        # `self.model` would fetch the state of a JAX model.
        model = self._model
        if self._recording.fit_call(model) is None:
            self.begin(model)
            self._recording.begin_fit(model, dict(self.params))
            model.make_train_function()

    def begin(self, model: Any) -> None:
        """Begin to record this model's trainings."""
        self._recording.only(model)
        self._recording.start()

    def on_train_end(self, logs: Any = None) -> None:
        """Write what is left; the next `fit` goes on in the same run."""
        self._recording.stop()
