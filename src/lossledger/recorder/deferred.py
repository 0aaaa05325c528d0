"""A recording that begins when Keras is imported: a script sees nothing of it before."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from lossledger.backends import why_no_keras
from lossledger.recorder.hook import AfterImport

if TYPE_CHECKING:
    from lossledger.recorder.recording import Recording


class DeferredRecording:
    """Becomes a `Recording` when the script imports Keras; imports nothing until then.

    Args:
        directory: Folder that holds the runs, or its URI.
        name: Name of the run.
        script: The script that trains, if it is a file.
        command: Its command line.
        steps_per_epoch: Length of an epoch in series of `train_on_batch`.
        export: By name of a tracker the folder that the run is exported to as it grows.
        resume: The folder of a run to go on in.
    """

    def __init__(
        self,
        directory: Path | str,
        name: str,
        script: Path | None,
        command: Sequence[str],
        *,
        steps_per_epoch: int | None = None,
        export: Mapping[str, Path] = MappingProxyType({}),
        resume: Path | None = None,
    ) -> None:
        # Paths are the caller's: a script may change the working directory.
        self._directory = directory.absolute() if isinstance(directory, Path) else directory
        self._shown = directory
        self._name = name
        self._script = None if script is None else script.absolute()
        self._command = list(command)
        self._steps_per_epoch = steps_per_epoch
        self._export = {name: path.absolute() for name, path in export.items()}
        self._resume = None if resume is None else resume.absolute()
        self._recording: Recording | None = None
        self._hooks = [AfterImport("keras", self._begin), AfterImport("tf_keras", self._legacy)]
        self._legacy_seen = False

    def start(self) -> None:
        """Wait for Keras to be imported."""
        for hook in self._hooks:
            hook.install()

    def _begin(self) -> None:
        from lossledger.recorder.recording import Recording

        self._recording = Recording(
            self._directory,
            self._name,
            self._script,
            self._command,
            steps_per_epoch=self._steps_per_epoch,
            export=self._export,
            resume=self._resume,
        )
        self._recording.start()

    def _legacy(self) -> None:
        self._legacy_seen = True

    def stop(self) -> None:
        """End the recording, if one began."""
        for hook in self._hooks:
            hook.remove()
        if self._recording is not None:
            self._recording.stop()

    def summary(self) -> str:
        """One line on what was recorded, where, and the command to look at it."""
        recording = self._recording
        if recording is not None and recording.path is not None and isinstance(self._shown, Path):
            return recording.summary(self._shown / recording.path.name)
        if self._legacy_seen:
            what = "tf_keras (Keras 2) is not recorded, Keras 3.8 or newer is"
            return f"lossledger: nothing recorded: {what}"
        if recording is not None:
            return recording.summary()
        why = why_no_keras() if self._hooks[0].failed else "no Keras training was seen"
        return f"lossledger: nothing recorded: {why}"
