"""TensorBoard: an event file a run, written without TensorBoard."""

import time
from collections.abc import Mapping

import numpy as np

from lossledger.explain.events import first_event, packed
from lossledger.explain.records import framed
from lossledger.export.base import Column, InFolder, Scalars, began
from lossledger.export.progress import Progress
from lossledger.vectors import Integers


class TensorBoard(InFolder, Scalars):
    """Scalars in an event file, in a folder named like the run; `directory` is the log folder.

    A number is a float32, as TensorBoard has it: losses are kept exactly, means rounded to it. The
    numbers of an entry share an event. NaN and infinity are written as they are.
    """

    name = "tensorboard"

    def begin(self, *, force: bool) -> Progress:
        """See `Tracker`."""
        progress = self.place(force=force)
        self._began = began(self.run.info.get("created"))
        self._file = next(iter(self.files.sizes), "")
        if not self._file:
            self._file = f"events.out.tfevents.{int(time.time())}.lossledger"
        if not self.files.sizes.get(self._file):
            first = first_event("brain.Event:2", "lossledger", self._began)
            self.files.append(self._file, framed(np.frombuffer(first, np.uint8)[None]))
        return progress

    def write(self, step: Integers, time: Integers, columns: Mapping[str, Column]) -> None:
        """See `Scalars`."""
        seconds = self._began + time / 1e9
        everywhere = {tag: values for tag, (values, known) in columns.items() if known is None}
        groups: list[tuple[dict[str, np.ndarray], np.ndarray | None]] = [(everywhere, None)]
        groups += [
            ({tag: values}, known) for tag, (values, known) in columns.items() if known is not None
        ]
        for group, known in groups:
            if not group:
                continue
            with np.errstate(over="ignore"):
                values = np.stack(list(group.values()), axis=1).astype(np.float32)
            chosen = slice(None) if known is None else known
            for rows in packed(step[chosen], seconds[chosen], list(group), values[chosen]):
                self.files.append(self._file, framed(rows))

    @property
    def next(self) -> str:
        """See `Tracker`."""
        return f"tensorboard --logdir {self.directory}"
