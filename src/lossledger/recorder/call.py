"""One call as it is being recorded: a `fit`, a series of `train_on_batch`, a loop of the user's."""

import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from lossledger.entry import NO_EPOCH

if TYPE_CHECKING:
    from lossledger.keras.tap import Tap
    from lossledger.recorder.recording import Recording


class RecordedCall:
    """Where the recording is within one call; numbers its steps, keeps what was reported.

    Args:
        recording: The recording it belongs to.
        index: Its number in the run.
        model: Number of the model that it trains.
        driver: `"fit"`, `"train_on_batch"`, `"loop"` or `"custom"`.
    """

    def __init__(self, recording: "Recording", index: int, model: int, driver: str) -> None:
        self.recording = recording
        self.index = index
        self.model = model
        self.driver = driver
        self.epoch = NO_EPOCH
        self.batch = 0
        self.steps = 0
        self.open = True
        self._tap: weakref.ref[Tap] | None = None
        self._described = False

    @property
    def tap(self) -> "Tap | None":
        """The tap that this call's steps come from, while its model lives."""
        return None if self._tap is None else self._tap()

    @property
    def tapped(self) -> bool:
        """Whether it has had a tap, living or not."""
        return self._tap is not None

    @property
    def loss_name(self) -> str:
        """The name under which Keras reports the loss."""
        layout = None if self.tap is None else self.tap.layout
        return "loss" if layout is None else layout.loss_name

    def attach(self, tap: "Tap") -> None:
        """Let the tap's executions belong to this call."""
        self._tap = weakref.ref(tap)
        tap.attach(self)

    def write(self, **values: Any) -> None:
        """Add to what the run folder says of this call."""
        self.recording.output.call(self.index, values)

    def advance(self, tap: "Tap | None", steps: int) -> tuple[int, int, int, int, int, int]:
        """See `lossledger.keras.tap.Position`."""
        first, now = self.recording.count(tap, steps)
        batch, self.batch = self.batch, self.batch + steps
        self.steps += steps
        return self.index, self.model, self.epoch, batch, first, now

    def backlog(self) -> None:
        """See `lossledger.keras.tap.Position`."""
        self.recording.collect()

    def begins(self, tap: "Tap", arguments: tuple[Any, ...]) -> None:
        """See `lossledger.keras.tap.Position`; keeps the initial weights."""
        with self.recording.guarded("weights-not-read"):
            self.recording.output.weights(self.index, tap.weights(arguments))

    def begin_epoch(self, epoch: int) -> None:
        """The driver, or the user, begins an epoch."""
        self.epoch = epoch
        self.batch = 0

    def say_epoch(self, epoch: int) -> None:
        """The user begins an epoch of a driver that has none of its own."""
        self.begin_epoch(epoch)
        self.write(epochs_said=True)

    def end_epoch(self, epoch: int, logs: Mapping[str, Any]) -> None:
        """Keep the losses that Keras reports for an epoch."""
        with self.recording.guarded("reported-not-read"):
            self.write(reported=[_item(name, logs[name], epoch) for name in logs if "loss" in name])

    def hold(self) -> None:
        """A `train_on_batch` begins: what it returns belongs to its entry."""
        tap = self.tap
        if tap is not None:
            tap.held = True

    def returned(self, result: Any) -> None:
        """What a `train_on_batch` of this series has returned; `None` where it failed."""
        tap = self.tap
        if tap is not None:
            tap.release(loss_of(result, self.loss_name))

    def describe(self) -> None:
        """Write how the entries are to be read, once the first step has shown it."""
        tap = self.tap
        if self._described or tap is None or tap.layout is None:
            return
        self._described = True
        layout = tap.layout
        self.write(
            loss_name=layout.loss_name,
            weight_kind=layout.weight_kind,
            history_is=layout.history_is,
            output_weights=dict(layout.output_weights),
        )

    def finish(self, failed: str | None = None) -> None:
        """End the call: all its entries are on disk afterwards."""
        if self.open:
            self.open = False
            self.recording.finish(self, failed)


def _item(name: str, value: Any, epoch: int) -> dict[str, Any]:
    place = "validation" if name.startswith("val_") else "history"
    return {"place": place, "name": name, "epoch": epoch, "value": number(value)}


def loss_of(result: Any, name: str) -> float:
    """The loss in what `train_on_batch` or `evaluate` returned; NaN where there is none."""
    if isinstance(result, Mapping):
        result = result.get(name)
    elif isinstance(result, list | tuple):
        result = result[0] if result else None
    return number(result)


def number(value: Any) -> float:
    """`value`, a number or an array of one, as a float; NaN for anything else."""
    if isinstance(value, float):
        return value
    try:
        value = value.detach().cpu() if hasattr(value, "detach") else value
        return float(np.ravel(np.asarray(value))[0])
    except (TypeError, ValueError, IndexError, RuntimeError):
        return float("nan")
