"""The recorder: takes entries from the taps, numbers them, and keeps them in a run folder."""

import os
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lossledger.entry import MEASURES, NO_EPOCH, OF_EPOCHS
from lossledger.objects import kept_at, remote_of
from lossledger.recorder.before import found, likeness_of
from lossledger.recorder.beside import Beside, Exports
from lossledger.recorder.call import RecordedCall
from lossledger.recorder.collector import Collector
from lossledger.recorder.custom import CustomSteps, whole
from lossledger.recorder.hook import AfterImport
from lossledger.recorder.measuring import Untrained, described
from lossledger.recorder.models import Models
from lossledger.recorder.output import Output
from lossledger.recorder.trouble import Trouble
from lossledger.words import command_line, counted

if TYPE_CHECKING:
    import inspect

    from lossledger.keras.tap import Tap


class Recording:
    """A run that is being recorded. `lossledger.record` makes one; use it in a `with` block.

    Every `fit` and `train_on_batch` inside the block is recorded, of every model. Trouble in
    recording is one warning, never an exception in the training.

    Args:
        directory: Folder that holds the runs. The run's own folder is created in it when the first
            training begins. Or its URI; see `record`.
        name: Name of the run.
        script: The script that trains, if it was started by `lossledger run`.
        command: Its command line.
        steps_per_epoch: Length of an epoch in series of `train_on_batch`.
        model: The only model to record; all models by default.
        export: Trackers that the run is exported to as it grows; see `record`.
        resume: A run to go on in, instead of a new one: its folder or name.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str] = "runs",
        name: str | None = None,
        script: Path | None = None,
        command: Sequence[str] = (),
        steps_per_epoch: int | None = None,
        model: Any = None,
        export: Exports = (),
        resume: str | os.PathLike[str] | None = None,
    ) -> None:
        name = name or Path(sys.argv[0] or "run").stem or "run"
        self.trouble = Trouble()
        self._remote = remote_of(directory)
        directory = directory if self._remote is None else kept_at(self._remote, "recorded")
        before = None if resume is None else found(resume, directory)
        mark = "" if self._remote is None else f"-{os.urandom(3).hex()}"
        about = Path(directory), name, script, command or sys.argv
        self.output = Output(*about, self.trouble, before, mark)
        self._beside = Beside(export, self.trouble, self._remote)
        self.numbers = count()
        self.inner: list[Recording] = []
        self._steps_per_epoch = steps_per_epoch
        self._only = None if model is None else weakref.ref(model)
        self._epoch = NO_EPOCH
        self._calls = self._first_call = 0
        self.models = Models()
        # Two threads may each begin to train a model, and there is one folder for both.
        self.beginning = threading.RLock()
        self._custom = CustomSteps(self)
        self._untrained = Untrained(self)
        self.collector = Collector(self.models, self._custom, self.output, self.trouble)
        self._hook = AfterImport("keras", self._attach)
        self._pid = os.getpid()

    @property
    def path(self) -> Path | None:
        """The run folder; `None` until a training has begun."""
        return self.output.path

    @property
    def here(self) -> bool:
        """Whether this process records: no child that it forks does, and none when it has ended."""
        return self._pid == os.getpid()

    def __repr__(self) -> str:
        return f"<Recording in {self.path or 'no folder yet'}>"

    # Life

    def __enter__(self) -> "Recording":
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def start(self) -> None:
        """Begin: trainings from here on are recorded. Imports nothing; Keras may come later."""
        self.stop()
        self._pid = os.getpid()
        self._hook.install()

    def only(self, model: Any) -> None:
        """Record this model and no other."""
        self._only = weakref.ref(model)

    def _attach(self) -> None:
        with self.guarded("keras-not-tapped"):
            from lossledger.keras import patches, supported

            supported.check()
            outer = patches.listener()
            if isinstance(outer, Recording):
                outer.inner.append(self)
            patches.add(self)

    def stop(self) -> None:
        """End: everything recorded is on disk and sealed afterwards. Never raises."""
        self._hook.remove()
        patches = sys.modules.get("lossledger.keras.patches")
        if patches is not None:
            patches.remove(self)
        if not self.here:
            return
        for call in self.models.open:
            call.finish()
        self._untrained.write()
        self.collector.stop()
        self.trouble.tell_unseen()
        self._beside.check()
        self.output.close()
        self._beside.wait()
        self._pid = 0  # nobody's: it has ended

    def summary(self, shown: Path | None = None) -> str:
        """One line on what was recorded, where (`shown`), and the command to look at it."""
        path = shown or self.path
        if self._remote is not None and path is not None:
            path = self._remote / path.name
        inner = [each for each in self.inner if each.path is not None]
        if path is None and inner:
            own = "lossledger: the script's own recording: "
            return inner[-1].summary().replace("lossledger: ", own)
        if path is None:
            return f"lossledger: nothing recorded: {self.trouble.why_nothing}"
        calls = counted(self._calls - self._first_call, "call")
        steps = counted(self.collector.steps, "step")
        said = f" ({'; '.join(self.trouble.told)})" if self.trouble.told else ""
        return f"lossledger: {steps} in {calls} -> {path}{said}  next: {command_line('show', path)}"

    # For a loop of the user's

    def step(self, loss: Any, rows: int | None = None, **values: Any) -> None:
        """Add an entry for one step of a loop that Keras doesn't run.

        Args:
            loss: The step's loss: a number, or a device scalar (TensorFlow, JAX, PyTorch), which is
                not waited for. Outside compiled code: what the compiled step returned.
            rows: Rows of the batch; the entry's weight. Without it every step weighs one.
            **values: `weight` (what a mean should weigh this loss by), `learning_rate`, `penalty`,
                `model` (a name, where several models train), or the losses of named outputs.

        Raises:
            LossLedgerError: If `loss` is no scalar, or has no value yet because it is inside
                compiled code.

        Example:

        ```python
        with lossledger.record("runs") as run:
            for x, y in batches:
                run.step(train_step(x, y), rows=len(x))
        ```
        """
        if self.here:
            self._custom.add(loss, rows, values)
        else:
            self.trouble.not_taken(ended=not self._pid)

    def epoch(self, epoch: int | None = None) -> None:
        """Begin an epoch of a loop: `train_on_batch` and `step` have none of their own.

        Args:
            epoch: Its number, from 0; the next one by default.

        Raises:
            LossLedgerError: It is no such number.
        """
        if not self.here:
            return
        self._epoch = self._epoch + 1 if epoch is None else whole("epoch", epoch)
        self._custom.begin_epoch(self._epoch)
        for call in self.models.open:
            if call.driver not in OF_EPOCHS:
                call.say_epoch(self._epoch)

    # What the patched methods of Keras tell (lossledger.keras.patches.Listener)

    def wants(self, model: Any) -> bool:
        """See `lossledger.keras.patches.Listener`."""
        if not self._records(model):
            return False
        with self.guarded("not-tapped"):
            from lossledger.keras import supported

            why = supported.why_not(model)
            if why is not None:
                self.warn("not-tapped", why)
            return why is None
        return False

    def tapped(self, model: Any, tap: "Tap[Any]") -> None:
        """See `lossledger.keras.patches.Listener`."""
        call = self.models.call(model)
        if call is not None and call.buffer is not None and call.driver == "train_on_batch":
            # The model was compiled anew: what follows is another training.
            call = self._begin(model, call.driver, {})
        if call is not None:
            call.attach(tap)

    def begin_fit(self, model: Any, arguments: dict[str, Any]) -> RecordedCall | None:
        """See `lossledger.keras.patches.Listener`."""
        return self._begin(model, "fit", arguments)

    def begin_loop(
        self, model: Any, arguments: dict[str, Any], tap: "Tap[Any]"
    ) -> RecordedCall | None:
        """See `lossledger.keras.patches.Listener`."""
        return self._begin(model, "loop", arguments, tap)

    def fit_call(self, model: Any) -> RecordedCall | None:
        """See `lossledger.keras.patches.Listener`."""
        return self.models.of_epochs(model)

    def begin_batch(
        self, model: Any, signature: "inspect.Signature", args: Any, kwargs: Any
    ) -> RecordedCall | None:
        """See `lossledger.keras.patches.Listener`."""
        call = self.models.call(model)
        # A batch between two steps of a `Loop` breaks its series; the next one is another call.
        if call is not None and call.driver != "loop":
            return call
        # A series whose beginning could not be kept isn't taken up later, as if it began there.
        if not self._records(model) or self.output.failed:
            return None
        from lossledger.keras.patches import bound_arguments

        arguments = bound_arguments(signature, model, *args, **kwargs)
        return None if arguments is None else self._begin(model, "train_on_batch", arguments)

    def call_of(self, model: Any) -> RecordedCall | None:
        """See `lossledger.keras.patches.Listener`."""
        return self.models.call(model)

    def evaluated(self, model: Any, result: Any, arguments: dict[str, Any]) -> None:
        """See `lossledger.keras.patches.Listener`."""
        if (call := self.models.last(model) or self._untrained.call(model)) is not None:
            call.evaluated(result, arguments)

    def tested(
        self, model: Any, result: Any, arguments: Callable[[], dict[str, Any] | None]
    ) -> None:
        """See `lossledger.keras.patches.Listener`."""
        if (call := self.models.last(model) or self._untrained.call(model)) is not None:
            call.tested(result, arguments)

    def saving(self, model: Any) -> None:
        """See `lossledger.keras.patches.Listener`."""
        if not self.here:
            return
        if (call := self.models.call(model)) is not None:
            call.saving()
        self.collector.collect()

    def applied(self, optimizer: Any) -> None:
        """See `lossledger.keras.patches.Listener`."""
        # Where one model was chosen, nothing is missing of another's training.
        held = getattr(self._only and self._only(), "__dict__", {}).values()
        if self._only is None or any(each is optimizer for each in held):
            self.trouble.applied_unseen(optimizer)

    def warn(self, slug: str, message: str) -> None:
        """See `lossledger.keras.patches.Listener`."""
        self.trouble.warn(slug, message)

    def guarded(self, slug: str) -> AbstractContextManager[None]:
        """Let nothing that goes wrong in recording reach the training."""
        return self.trouble.guarded(slug)

    # Calls

    def _begin(
        self, model: Any, driver: str, arguments: dict[str, Any], tap: "Tap[Any] | None" = None
    ) -> RecordedCall | None:
        if (before := self.models.call(model)) is not None:
            before.finish()
        if not self._records(model):
            return None
        with self.guarded("call-not-recorded"):
            from lossledger.keras import describe

            call = self.new_call(driver, lambda: self.number(model))
            with self.guarded("configuration-not-read"):
                call.write(**described(model), arguments=describe.fit_arguments(arguments))
                call.take(arguments)
            self.models.begin(model, call)
            own = getattr(getattr(model, "train_function", None), "lossledger", None)
            if tap is not None:
                call.attach(tap)
            elif own is not None and own.position is None:
                call.attach(own)
            elif getattr(model, "train_function", None) is not None:
                model.train_function = None
            return call
        return None

    def number(self, model: Any) -> int:
        """The number of a model in the run."""
        like = None
        if self.output.attempt:
            with self.guarded("configuration-not-read"):
                like = likeness_of(model)
        return self.models.number(model, like)

    def _records(self, model: Any) -> bool:
        """Whether it is this recording's to record the model."""
        if not self.here:
            self.trouble.not_taken(ended=not self._pid)
        return self.here and self.takes(model)

    def takes(self, model: Any) -> bool:
        """Whether the model is the one that was chosen, if one was."""
        return self._only is None or self._only() is model

    def new_call(self, driver: str, numbered: Callable[[], int]) -> RecordedCall:
        """Number a call and write its beginning.

        Args:
            driver: Who turns the crank.
            numbered: Gives the number of its model; of a resumed run, once that is known.
        """
        with self.beginning:
            if not self.output.open:
                self._open()
            model = numbered()
            call = RecordedCall(self, self._calls, model, driver)
            self._calls += 1
        attempt = {"attempt": self.output.attempt} if self.output.attempt else {}
        call.write(driver=driver, model=model, began=self.output.now(), **attempt)
        if driver not in (*OF_EPOCHS, MEASURES):
            if self._steps_per_epoch is not None:
                call.write(steps_per_epoch=self._steps_per_epoch)
            if self._epoch != NO_EPOCH:
                call.say_epoch(self._epoch)
        return call

    def _open(self) -> None:
        if (before := self.output.begin()) is not None:
            self.numbers = count(before.step)
            self._calls = self._first_call = before.call
            self.models.go_on(before.models)
        if self.output.path is not None and self.output.own is not None:
            self._beside.start(self.output.path if self.output.leads else None, self.output.own)
        self.collector.start()

    def finish(self, call: RecordedCall, failed: str | None) -> None:
        """End a call: fetch and write what is left of it; in a forked child only let go of it."""
        tap = call.tap
        if not self.here:
            self.models.end(call)
            if tap is not None:
                tap.attach(None)
            return
        self.collector.collect()
        self.models.end(call)
        call.say()
        call.write(ended=self.output.now(), **({} if failed is None else {"failed": failed}))
        if tap is not None:
            if failed is None:
                call.ends(tap)
            with self.guarded("tap-failed"):
                call.check(tap)
                tap.attach(None)
        self.collector.collect()  # what was said of the call
