"""One call as it is being recorded: a `fit`, a series of `train_on_batch`, a loop of the user's."""

import contextlib
import math
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from lossledger.entry import NO_EPOCH, OF_EPOCHS, number

if TYPE_CHECKING:
    from lossledger.keras.buffer import Buffer
    from lossledger.keras.given import Trained
    from lossledger.keras.tap import Tap
    from lossledger.recorder.recording import Recording


LOADS = 64
"""Places in a call at which its program set the weights, that are kept; its first ones."""
SAVES = 10_000
"""Of how many saves of a call the weights are told; its first ones."""
TESTS = 64
"""Results of `test_on_batch` that are kept of a call, between epochs: the first ones."""
_HASHED, _HASHED_OF_BATCHES = 2**26, 2**22
"""Bytes of weights above which an `evaluate`, a `test_on_batch` keeps no fingerprint of them."""


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
        self.open = True
        self.of_arrays = False
        self._tested: tuple[int, float] | None = None
        self._tests = 0
        self.buffer: Buffer | None = None
        self._tap: weakref.ref[Tap[Any]] | None = None
        self._model: weakref.ref[Any] | None = None
        self._described = False
        self._trained: Trained | None = None
        self._size: int | None = None
        self._validation: Mapping[str, Any] = {}
        self._reported: deque[dict[str, Any]] = deque()
        self._loads: list[int] = []
        self._saves = 0

    @property
    def tap(self) -> "Tap[Any] | None":
        """The tap that this call's steps come from, while its model lives."""
        return None if self._tap is None else self._tap()

    @property
    def gone(self) -> bool:
        """Whether its model has been let go of; a model compiled anew lets go of its tap only."""
        return self._model is not None and self._model() is None

    @property
    def reached(self) -> int:
        """The batch of its epoch that comes next."""
        if self.buffer is None or not self.recording.here:
            return self.batch
        self.recording.collector.collect()
        return self.buffer.batch

    @property
    def loss_name(self) -> str:
        """The name under which Keras reports the loss."""
        layout = None if self.buffer is None else self.buffer.layout
        return "loss" if layout is None else layout.loss_name

    @property
    def _hidden(self) -> bool:
        """Whether what Keras reports under the loss's name is a metric."""
        layout = None if self.buffer is None else self.buffer.layout
        return layout is not None and layout.hidden_by is not None

    def attach(self, tap: "Tap[Any]") -> None:
        """Let the tap's executions belong to this call."""
        reached = self.reached
        buffer: Buffer = tap.buffer
        buffer.attach(self.recording.numbers, returning=self.driver == "train_on_batch")
        buffer.mark(self.index, self.model, self.epoch, reached)
        self._tap, self._model, self.buffer = weakref.ref(tap), weakref.ref(tap.model), buffer
        tap.attach(self)

    def write(self, **values: Any) -> None:
        """Add to what the run folder says of this call."""
        if self.recording.here:
            self.recording.output.call(self.index, values)

    def advance(self) -> tuple[int, int, int, int, int, int]:
        """Count one step that no tap sees; returns call, model, epoch, batch, step and time."""
        batch, self.batch = self.batch, self.batch + 1
        number = next(self.recording.numbers)
        return self.index, self.model, self.epoch, batch, number, perf_counter_ns()

    def backlog(self) -> None:
        """See `lossledger.keras.tap.Position`."""
        if self.recording.here:
            self.recording.collector.collect()
        else:
            self.finish()

    def take(self, arguments: Mapping[str, Any]) -> None:
        """Keep what tells the data that its driver was given from others."""
        from lossledger.keras import given

        if self.driver in OF_EPOCHS:
            self._trained = given.Trained(arguments)
            self.of_arrays = self.driver == "fit" and self._trained.of_arrays
        elif self.driver == "train_on_batch":
            self._size = given.rows_of(arguments.get("x"))
            self._trained = given.Trained(arguments, whole=True)
        if validation := given.validated(arguments, self._trained):
            self._validation = validation
            self.write(validation=validation)

    def begins(self, tap: "Tap[Any]", arguments: tuple[Any, ...]) -> None:
        """See `lossledger.keras.tap.Position`; keeps what training begins from."""
        if self.recording.here:
            self._keep(tap, arguments, "initial")

    @property
    def _steps(self) -> int:
        """Steps so far."""
        return 0 if self.buffer is None else self.buffer.steps

    def loading(self) -> None:
        """The program is about to set the model's weights."""
        tap, steps = self.tap, self._steps
        if tap is None or not steps or steps in self._loads[-1:] or not self.recording.here:
            return
        if len(self._loads) < LOADS:
            if self.driver == "train_on_batch":
                self.ends(tap)
            self.write(loads=[*self._loads, steps])
        self._loads.append(steps)

    def saving(self) -> None:
        """The program is about to save the model: where its training goes on from these weights.

        The recording writes this, and what they have learnt from, before they are saved. So no
        training that is killed goes on from weights of which the ledger knows nothing.
        """
        tap = self.tap
        if tap is None or self._saves == SAVES or not self._steps:
            return
        self._saves += 1
        with self.recording.guarded("weights-not-read"):
            from lossledger.keras import describe

            held = tap.weights(())
            if held is not None:
                self.write(saved=[[self._steps, describe.weights_fingerprint(held.read())]])

    def ends(self, tap: "Tap[Any]") -> None:
        """Keep what training came to: of a series, before its program set the weights after it."""
        if self.driver != "train_on_batch" or self._steps not in self._loads[-1:]:
            self._keep(tap, (), "final")
        elif len(self._loads) > LOADS:
            self.recording.collector.later(partial(self.write, final_weights=None), 0)

    def _keep(self, tap: "Tap[Any]", arguments: tuple[Any, ...], when: str) -> None:
        """Copy weights and optimizers' state; their fingerprints are nothing to wait for."""
        recording, index = self.recording, self.index
        with recording.guarded("weights-not-read"):
            weights = tap.weights(arguments)
            states = tap.states(arguments)
            held = [each.held for each in states.values()] + ([weights] if weights else [])

            def kept() -> None:
                recording.output.weights(index, weights and weights.read(), when)
                told = {name: each.told() for name, each in states.items()}
                recording.output.call(index, {f"{when}_optimizers": told})

            recording.collector.later(kept, sum(each.nbytes for each in held))

    def begin_epoch(self, epoch: int, batch: int = 0) -> None:
        """The driver, or the user, begins an epoch, or goes on in it at a batch."""
        self.epoch = epoch
        self.batch = batch
        self._tested = None
        if self.buffer is not None:
            self.buffer.mark(self.index, self.model, epoch, batch)

    def say_epoch(self, epoch: int) -> None:
        """The user begins an epoch of a driver that has none of its own."""
        self.begin_epoch(epoch)
        self.write(epochs_said=True)

    def end_epoch(self, epoch: int, logs: Mapping[str, Any]) -> None:
        """Keep the losses that Keras reports for an epoch."""
        with self.recording.guarded("reported-not-read"):
            names = [name for name in logs if "loss" in name]
            if self._hidden:
                names = [n for n in names if n.removeprefix("val_") != self.loss_name]
            items = [_item(name, logs[name], epoch) for name in names]
            if self._tested is not None:
                batch, value = self._tested
                where = {"epoch": epoch, "batch": batch, "value": value}
                items.append({"place": "tested", "name": self.loss_name, **where})
            self._reported.extend(items)  # a line for many epochs, where those are short
            if not self._validation and any(name.startswith("val_") for name in names):
                self._validation = self._counted()
                self.write(validation=self._validation)

    def returned(self, result: Any) -> None:
        """What a `train_on_batch` of this series has returned; `None` where it failed."""
        buffer = self.buffer
        if buffer is None:
            return
        layout = buffer.layout
        if layout is not None and layout.hidden_by is not None:
            value = math.nan
        else:
            try:
                value = result if type(result) is float else loss_of(result, self.loss_name)
            except RuntimeError:
                value = math.nan
        buffer.returns(value)

    @property
    def _inside(self) -> bool:
        """Whether its driver is at an epoch now, whose mean a measurement would reset."""
        return self.open and self.driver in OF_EPOCHS

    def evaluated(self, result: Any, arguments: Mapping[str, Any]) -> None:
        """What an `evaluate` of its model has returned."""
        self._measured("evaluate", result, arguments, _HASHED)

    def _measured(self, place: str, result: Any, arguments: Mapping[str, Any], most: int) -> None:
        """Keep what a measurement returned, and where the training was."""
        where = {"epoch": self.epoch, "batch": self.reached} if self._inside else {"epoch": None}
        with self.recording.guarded("reported-not-read"):
            name = self.loss_name
            if self._hidden or (isinstance(result, Mapping) and name not in result):
                return
            item: dict[str, Any] = {"place": place, "name": name}
            item |= {"value": loss_of(result, name), **where}
            if not self._inside:
                item |= self._measured_at(most)
            with self.recording.guarded("configuration-not-read"):
                from lossledger.keras import given

                data = given.evaluated(arguments, self._trained, self._size)
                item["data"] = data if "rows" in data else {**data, **self._counted()}
            self.write(reported=[item])

    def _counted(self) -> dict[str, Any]:
        """What is known of data that were measured and are no arrays."""
        from lossledger.keras import given

        model = None if self._model is None else self._model()
        return {} if model is None else given.measured_rows(model)

    def _measured_at(self, most: int) -> dict[str, Any]:
        """The fingerprint of the weights as they are now, where they have so many bytes at most."""
        from lossledger.keras import describe
        from lossledger.keras.held import Held

        tap, model = self.tap, None if self._model is None else self._model()
        if model is None or describe.size_of(model.weights) > most:
            return {}
        with self.recording.guarded("weights-not-read"):
            held = Held(model.get_weights()) if tap is None else tap.copies(model.weights, ())
            return {"weights": describe.weights_fingerprint(held.read())}
        return {}

    @property
    def tests_enough(self) -> bool:
        """Whether what further ones of `test_on_batch` return isn't kept."""
        return self._tests >= TESTS

    def tested(self, result: Any, arguments: Callable[[], Mapping[str, Any] | None]) -> None:
        """What a `test_on_batch` of its model has returned, and where the training was."""
        if self._inside:
            if not self._hidden:
                with self.recording.guarded("reported-not-read"):
                    self._tested = (self.reached, loss_of(result, self.loss_name))
        elif not self.tests_enough and (found := arguments()) is not None:
            from lossledger.keras import given

            self._tests += 1
            batch = {**found, "batch_size": given.rows_of(found.get("x"))}
            self._measured("tested", result, batch, _HASHED_OF_BATCHES)

    def say(self) -> None:
        """Write what is known by now: what Keras reported, and how the entries are to be read."""
        self._describe()
        items: list[dict[str, Any]] = []
        with contextlib.suppress(IndexError):
            while True:
                items.append(self._reported.popleft())
        if items:
            self.write(reported=items)

    def _describe(self) -> None:
        """Once the first step has shown it, write how the entries are to be read."""
        layout = None if self.buffer is None else self.buffer.layout
        if self._described or layout is None:
            return
        self._described = True
        self.write(
            loss_name=layout.loss_name,
            weight_kind=layout.weight_kind,
            history_is=layout.history_is,
            output_weights=dict(layout.output_weights),
        )
        if layout.losses_per_row is not None:
            self.write(losses_per_row=layout.losses_per_row)
        if layout.hidden_by is not None:
            what = f"The metric {layout.hidden_by} is named {layout.loss_name!r}, as the loss is"
            what = f"{what}: Keras reports the metric in its place, and no loss; entries have it"
            self.recording.warn("reported-not-read", f"{what}. Give the metric another name")

    def check(self, tap: "Tap[Any]") -> None:
        """Say what of the call the tap did not see."""
        recording, buffer = self.recording, tap.buffer
        error, tap.failure = tap.failure, None
        if error is not None:
            recording.warn("tap-failed", f"{type(error).__name__}: {error}")
        elif buffer.seen and buffer.layout is None:
            what = f"the train_step of model {self.model} shows no loss: it updates no loss metric"
            what = f"{what} and returns none; its steps were not recorded."
            recording.warn("no-loss-found", what)
        elif buffer.lost:
            what = f"{buffer.lost} of {buffer.seen} steps of call {self.index} have no entry."
            recording.warn("entries-lost", what)

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
