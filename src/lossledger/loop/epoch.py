"""An epoch of a loop, and its steps, as the user meets them."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from lossledger.errors import LossLedgerError, count_of
from lossledger.loop.chunk import Window
from lossledger.statistics import Mean

if TYPE_CHECKING:
    from lossledger.loop.training import Training


class Step:
    """A training step that has been made. Nothing of it is fetched from the device unless asked.

    Args:
        epoch: Its epoch.
        number: Its number in the epoch, from 0.
        rows: Rows of its batch.
        logs: What `train_step` returned, on the device.
    """

    __slots__ = ("_epoch", "_logs", "number", "rows")

    def __init__(self, epoch: "Epoch", number: int, rows: int, logs: Any) -> None:
        self._epoch = epoch
        self.number = number
        self.rows = rows
        self._logs = logs

    @property
    def loss(self) -> float:
        """The raw loss of this step's batch: no mean with the steps before."""
        return float(self._epoch.column("loss", self.number)[0])

    @property
    def logs(self) -> dict[str, float]:
        """What `fit` hands to `on_train_batch_end`: running means over the epoch so far."""
        return {name: scalar(value) for name, value in (self._logs or {}).items()}

    def __repr__(self) -> str:
        return f"<step {self.number} of epoch {self._epoch.number}, {self.rows} rows>"


class Epoch:
    """One epoch: iterate over it to train a step at a time, or `run` what is left of it.

    Args:
        number: Its number, from 0.
        training: The training it is part of.
    """

    def __init__(self, number: int, training: "Training") -> None:
        self.number = number
        self.ended = False
        self.taken = 0
        self.windows: list[Window] = []
        self.last: Any = None
        self._training = training
        self._reported: dict[str, Any] | None = None
        self._fetched: dict[int, tuple[int, np.ndarray]] = {}

    def __iter__(self) -> Iterator[Step]:
        return self

    def __next__(self) -> Step:
        rows = self._advance(1)
        if not rows:
            raise StopIteration
        return Step(self, self.taken - 1, rows, self.last)

    def run(self, steps: int | None = None) -> "Epoch":
        """Train on what is left of the epoch, or on the next `steps` batches, on the device.

        Args:
            steps: How many steps; all that are left by default.

        Returns:
            The epoch itself.
        """
        end = None if steps is None else self.taken + count_of("steps", steps)
        self._training.enter()
        while end is None or self.taken < end:
            if not self._advance(None if end is None else end - self.taken):
                break
        return self

    def step(self, x: Any, y: Any = None, sample_weight: Any = None) -> Step:
        """Train one step on a batch of your own; the epoch's next batch stays the next.

        Args:
            x: Inputs, as `train_on_batch` takes them.
            y: Targets.
            sample_weight: Weights of the rows.
        """
        self._training.check_going()
        if self.ended:
            raise LossLedgerError(
                "This epoch has ended: its validation, callbacks and History have been. "
                f"Received: a batch for epoch {self.number}. Train on it before the epoch's own "
                "batches are used up, or by `model.train_on_batch`.",
                slug="epoch-over",
            )
        rows = self._training.on_batch(self, x, y, sample_weight)
        return Step(self, self.taken - 1, rows, self.last)

    def skip(self, steps: int = 1) -> int:
        """Leave out the next batches; returns how many there were."""
        steps = count_of("steps", steps)
        return 0 if self.ended else self._training.skip(steps)

    def _advance(self, most: int | None) -> int:
        """Train `most` steps or fewer; returns the rows of a batch, 0 at the epoch's end."""
        if not self.ended:
            self._training.check_going()
        stopped = self._training.model.stop_training and self.taken > 0
        rows = 0 if self.ended or stopped else self._training.advance(self, most)
        if not rows:
            self.finish()
        return rows

    def finish(self) -> None:
        """End the epoch here, as `fit` does: validation, callbacks, History."""
        if not self.ended:
            self.ended = True
            self._reported = self._training.end_epoch(self)

    @property
    def steps(self) -> int | None:
        """How many batches the epoch has, if that is known."""
        return self._training.source.steps

    @property
    def losses(self) -> np.ndarray:
        """The raw loss of each step so far, float64 of shape `(steps,)`."""
        return self.column("loss")

    @property
    def mean(self) -> float:
        """Mean of the losses so far, each weighted as Keras weights it: by its batch's rows."""
        return Mean.of(self.column("loss"), self.column("weight")).result

    @property
    def logs(self) -> dict[str, float]:
        """The epoch's logs as History gets them; while it runs, the last step's."""
        logs = self._reported if self._reported is not None else self.last or {}
        return {name: scalar(value) for name, value in logs.items()}

    def column(self, name: str, step: int | None = None) -> np.ndarray:
        """A column of the steps' rows, float64; of one step, or of all.

        Args:
            name: `"loss"` or `"weight"`.
            step: The number of the step.
        """
        engine = self._training.engine
        if step is not None:
            place = step // engine.capacity
            row = self._rows(place)[step % engine.capacity :][:1]
            return engine.column(row, name)
        parts = [engine.column(self._rows(place), name) for place in range(len(self.windows))]
        return np.concatenate([np.zeros(0), *parts])

    def _rows(self, place: int) -> np.ndarray:
        window = self.windows[place]
        filled, rows = self._fetched.get(place, (0, None))
        if rows is None or filled != window.filled:
            rows = self._training.engine.array(window)
            self._fetched[place] = (window.filled, rows)
        return rows

    def __repr__(self) -> str:
        of = "" if self.steps is None else f" of {self.steps}"
        return f"<epoch {self.number}: {self.taken}{of} steps{', ended' if self.ended else ''}>"


class Where:
    """Lets an error say in which batches of an epoch it came up.

    A class of its own: `contextlib.contextmanager` takes a step several times as long.

    Args:
        epoch: The epoch that trains.
    """

    __slots__ = ("_epoch", "last")

    def __init__(self, epoch: Epoch) -> None:
        self._epoch = epoch
        self.last = epoch.taken

    def trains(self, count: int) -> None:
        """So many batches are trained on next."""
        self.last = self._epoch.taken + count - 1

    def __enter__(self) -> "Where":
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, Exception):
            # A step may have been trained before it, and a callback fail after it.
            first = min(self._epoch.taken, self.last)
            what = f"batch {first}" if first == self.last else f"batches {first} to {self.last}"
            error.add_note(f"lossledger.Loop was in epoch {self._epoch.number}, {what}.")


def scalar(value: Any) -> float:
    """A number, or an array of one on any backend's device, as a float."""
    value = value.detach().cpu() if hasattr(value, "detach") else value
    return float(np.asarray(value))
