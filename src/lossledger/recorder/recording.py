"""The recorder: takes entries from the taps, numbers them, and keeps them in a run folder."""

import hashlib
import os
import subprocess
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lossledger.entry import FORMAT, NO_EPOCH
from lossledger.errors import LossLedgerError, LossLedgerWarning
from lossledger.folder import append_line, create_folder, write_json
from lossledger.recorder.call import RecordedCall, loss_of
from lossledger.recorder.custom import Steps
from lossledger.recorder.hook import AfterImport

if TYPE_CHECKING:
    import inspect

    from lossledger.keras.tap import Tap
    from lossledger.store import Writer

WEIGHTS_LIMIT = 2**20
"""Bytes of initial weights up to which a call keeps a copy of them."""

FLUSH_SECONDS = 0.25
"""How often entries are fetched and written, in seconds."""


class Recording:
    """A run that is being recorded. `lossledger.record` makes one; use it in a `with` block.

    Every `fit` and `train_on_batch` inside the block is recorded, of every model. Trouble in
    recording is one warning, never an exception in the training.

    Args:
        directory: Folder that holds the runs. The run's own folder is created in it when the first
            training begins.
        name: Name of the run.
        script: The script that trains, if it was started by `lossledger run`.
        command: Its command line.
        steps_per_epoch: Length of an epoch in series of `train_on_batch`.
        model: The only model to record; all models by default.

    Example:

    ```python
    with lossledger.record("runs", name="baseline") as run:
        model.fit(x, y, epochs=10)
    lossledger.open(run.path).statistic("epoch_mean")
    ```
    """

    def __init__(
        self,
        directory: str | os.PathLike[str] = "runs",
        name: str | None = None,
        script: Path | None = None,
        command: Sequence[str] = (),
        steps_per_epoch: int | None = None,
        model: Any = None,
    ) -> None:
        self.directory = Path(directory)
        self.name = name or Path(sys.argv[0] or "run").stem or "run"
        self.path: Path | None = None
        self.steps = 0
        self._script = script
        self._command = list(command) or sys.argv
        self._steps_per_epoch = steps_per_epoch
        self._only = None if model is None else weakref.ref(model)
        self._epoch = NO_EPOCH
        self._began = time.perf_counter_ns()
        self._writer: Writer | None = None
        self._calls = self._entries = 0
        self._open: dict[int, RecordedCall] = {}
        self._last: dict[int, int] = {}
        self._models: dict[int, tuple[weakref.ref[Any], int]] = {}
        self._dirty: dict[int, Tap] = {}
        self._custom = Steps(self)
        self._told: dict[str, str] = {}
        self._unseen: dict[str, str] = {}
        self._counting = threading.Lock()
        self._collecting = threading.RLock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._hook = AfterImport("keras", self._attach)
        self._pid = os.getpid()

    # Life

    def __enter__(self) -> "Recording":
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def start(self) -> None:
        """Begin: trainings from here on are recorded. Imports nothing; Keras may come later."""
        self.stop()
        self._hook.install()

    def only(self, model: Any) -> None:
        """Record this model and no other."""
        self._only = weakref.ref(model)

    def _attach(self) -> None:
        with self.guarded("keras-not-tapped"):
            from lossledger.keras import patches, supported

            supported.check()
            patches.add(self)

    def stop(self) -> None:
        """End: everything recorded is on disk and sealed afterwards. Never raises."""
        self._hook.remove()
        patches = sys.modules.get("lossledger.keras.patches")
        if patches is not None:
            patches.remove(self)
        if self._pid != os.getpid():
            return
        for call in list(self._open.values()):
            call.finish()
        if self._thread is not None:
            self._wake.set()
            self._thread.join()
            self._thread = None
        self.collect()
        self._say_unseen()
        if self._writer is not None:
            with self.guarded("cannot-write"):
                self._writer.close()
                self._write_run(complete=True)
                self._writer = None

    def summary(self, shown: Path | None = None) -> str:
        """One line on what was recorded, where (`shown`), and the command to look at it."""
        path = shown or self.path
        if path is None:
            why = "; ".join(self._unseen.values()) or "no Keras training was seen"
            return f"lossledger: nothing recorded: {why}"
        steps, calls = _counted(self.steps, "step"), _counted(self._calls, "call")
        said = f" ({'; '.join(self._told)})" if self._told else ""
        return f"lossledger: {steps} in {calls} -> {path}{said}  next: lossledger show {path}"

    # For a loop of the user's

    def step(self, loss: Any, rows: int | None = None, **values: Any) -> None:
        """Add an entry for one step of a loop that Keras doesn't run.

        Args:
            loss: The step's loss: a number, or a device scalar (TensorFlow, JAX, PyTorch), which is
                not waited for. Outside compiled code: what the compiled step returned.
            rows: Rows of the batch; the entry's weight. Without it every step weighs one.
            **values: `weight` (what a mean should weigh this loss by), `learning_rate`, `model` (a
                name, where several models train), or the losses of named outputs.

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
        self._custom.add(loss, rows, values)

    def epoch(self, epoch: int | None = None) -> None:
        """Begin an epoch of a loop: `train_on_batch` and `step` have none of their own.

        Args:
            epoch: Its number, from 0; the next one by default.
        """
        self._epoch = self._epoch + 1 if epoch is None else epoch
        self._custom.begin_epoch(self._epoch)
        for call in self._open.values():
            if call.driver != "fit":
                call.say_epoch(self._epoch)

    # What the patched methods of Keras tell (lossledger.keras.patches.Listener)

    def wants(self, model: Any) -> bool:
        """See `lossledger.keras.patches.Listener`."""
        if self._only is not None and self._only() is not model:
            return False
        with self.guarded("not-tapped"):
            from lossledger.keras import supported

            why = supported.why_not(model)
            if why is not None:
                self.warn("not-tapped", why)
            return why is None
        return False

    def tapped(self, model: Any, tap: "Tap") -> None:
        """See `lossledger.keras.patches.Listener`."""
        call = self._open_call(model)
        if call is None:
            return
        if call.tapped and call.driver == "train_on_batch":
            # The model was compiled anew: what follows is another training.
            if call.tap is not None:
                call.tap.held = False
            call.finish()
            call = self._begin(model, call.driver, {})
        if call is not None:
            call.attach(tap)
            tap.held = call.driver == "train_on_batch"

    def begin_fit(self, model: Any, arguments: dict[str, Any]) -> RecordedCall | None:
        """See `lossledger.keras.patches.Listener`."""
        call = self._open_call(model)
        if call is not None:
            call.finish()
        return self._begin(model, "fit", arguments)

    def fit_call(self, model: Any) -> RecordedCall | None:
        """See `lossledger.keras.patches.Listener`."""
        if model is not None:
            call = self._open_call(model)
            return call if call is not None and call.driver == "fit" else None
        fits = [call for call in self._open.values() if call.driver == "fit"]
        return fits[-1] if fits else None

    def begin_batch(
        self, model: Any, signature: "inspect.Signature", args: Any, kwargs: Any
    ) -> None:
        """See `lossledger.keras.patches.Listener`."""
        call = self._open_call(model)
        if call is None:
            from lossledger.keras.patches import bound_arguments

            arguments = bound_arguments(signature, model, *args, **kwargs)
            call = None if arguments is None else self._begin(model, "train_on_batch", arguments)
        if call is not None:
            call.hold()

    def end_batch(self, model: Any, result: Any) -> None:
        """See `lossledger.keras.patches.Listener`."""
        call = self._open_call(model)
        if call is not None:
            with self.guarded("reported-not-read"):
                call.returned(result)

    def evaluated(self, model: Any, result: Any) -> None:
        """See `lossledger.keras.patches.Listener`."""
        call = self._open_call(model)
        if (call is not None and call.driver == "fit") or id(model) not in self._last:
            return
        with self.guarded("reported-not-read"):
            value = loss_of(result, "loss")
            item = {"place": "evaluate", "name": "loss", "epoch": None, "value": value}
            self.write_call(self._last[id(model)], {"reported": [item]})

    def applied(self, optimizer: Any) -> None:
        """See `lossledger.keras.patches.Listener`."""
        if self._told.keys() & {"not-tapped", "call-not-recorded", "keras-not-tapped"}:
            return
        where = _outside()
        what = f"{type(optimizer).__name__} was applied at {where}, outside fit and train_on_batch"
        self._unseen.setdefault(where, f"{what}; lossledger.record(...).step(loss) records such a loop")

    # Calls

    def _begin(self, model: Any, driver: str, arguments: dict[str, Any]) -> RecordedCall | None:
        if (self._only is not None and self._only() is not model) or self._pid != os.getpid():
            return None
        with self.guarded("call-not-recorded"):
            from lossledger.keras import describe

            call = self.new_call(driver, self._model_number(model))
            with self.guarded("configuration-not-read"):
                call.write(
                    model_name=str(getattr(model, "name", "model")),
                    arguments=describe.fit_arguments(arguments),
                    configuration=describe.configuration(model),
                    mean_of_rows=describe.mean_of_rows(model),
                )
            self._open[id(model)] = call
            self._last[id(model)] = call.index
            tap: Tap | None = getattr(getattr(model, "train_function", None), "lossledger", None)
            if tap is not None and tap.position is None:
                call.attach(tap)
            elif getattr(model, "train_function", None) is not None:
                model.train_function = None
            return call
        return None

    def new_call(self, driver: str, model: int) -> RecordedCall:
        """Number a call and write its beginning."""
        self._ensure_folder()
        call = RecordedCall(self, self._calls, model, driver)
        self._calls += 1
        call.write(driver=driver, model=model, began=time.perf_counter_ns() - self._began)
        if driver != "fit" and self._steps_per_epoch is not None:
            call.write(steps_per_epoch=self._steps_per_epoch)
        if driver != "fit" and self._epoch != NO_EPOCH:
            call.say_epoch(self._epoch)
        return call

    def _open_call(self, model: Any) -> RecordedCall | None:
        """The call that is on of this very model: an `id` may be that of a model long gone."""
        known = self._models.get(id(model))
        return self._open.get(id(model)) if known is not None and known[0]() is model else None

    def _model_number(self, model: Any) -> int:
        known = self._models.get(id(model))
        if known is None or known[0]() is not model:
            known = (weakref.ref(model), self.new_model())
            self._models[id(model)] = known
            self._open.pop(id(model), None)
        return known[1]

    def new_model(self) -> int:
        """The number of a model not seen before."""
        with self._counting:
            self._model_count = getattr(self, "_model_count", 0) + 1
            return self._model_count - 1

    def count(self, tap: "Tap | None", steps: int) -> tuple[int, int]:
        """Number the next `steps` steps of the run; returns the first one and the time in ns."""
        now = time.perf_counter_ns() - self._began
        with self._counting:
            first, self.steps = self.steps, self.steps + steps
            if tap is not None:
                self._dirty[id(tap)] = tap
        return first, now

    def finish(self, call: RecordedCall, failed: str | None) -> None:
        """End a call: fetch and write what is left of it."""
        tap = call.tap
        for key, open_call in list(self._open.items()):
            if open_call is call:
                del self._open[key]
        self.collect()
        call.describe()
        with self.guarded("weights-not-read"):
            values: dict[str, Any] = {"ended": time.perf_counter_ns() - self._began}
            if failed is not None:
                values["failed"] = failed
            if tap is not None and failed is None:
                from lossledger.keras import describe

                values["final_weights"] = describe.weights_fingerprint(tap.weights(()))
            call.write(**values)
        if tap is not None:
            self._check(call, tap)
            tap.attach(None)

    def _check(self, call: RecordedCall, tap: "Tap") -> None:
        error, tap.failure = tap.failure, None
        lost, tap.lost = tap.lost, 0
        if error is not None:
            self.warn("tap-failed", f"{type(error).__name__}: {error}")
        elif call.steps and tap.layout is None:
            what = f"the train_step of model {call.model} shows no loss: it updates no loss metric"
            self.warn("no-loss-found", f"{what} and returns none; its steps were not recorded.")
        elif lost:
            what = f"{lost} of {call.steps} steps of call {call.index} have no entry."
            self.warn("entries-lost", what)

    def keep_weights(self, call: RecordedCall, weights: list[Any]) -> None:
        """Keep the fingerprint of a call's initial weights, and a copy where they are few."""
        from lossledger.keras import describe

        call.write(initial_weights=describe.weights_fingerprint(weights))
        if self.path is not None and sum(weight.nbytes for weight in weights) <= WEIGHTS_LIMIT:
            import numpy as np

            (self.path / "weights").mkdir(exist_ok=True)
            file = f"weights/{call.index:06d}.npz"
            np.savez(self.path / file, *weights)
            call.write(weights_file=file)

    # The folder

    def _ensure_folder(self) -> None:
        if self._writer is not None:
            return
        from lossledger.store import Writer

        if self.path is None:
            created = datetime.now(UTC).astimezone()
            self.path = create_folder(self.directory, self.name, created)
            self._created = created.isoformat(timespec="seconds")
        self._writer = Writer(self.path)
        self._write_run(complete=False)
        self._wake.clear()
        self._thread = threading.Thread(target=self._flush_often, name="lossledger", daemon=True)
        self._thread.start()

    def _write_run(self, *, complete: bool) -> None:
        assert self.path is not None
        from lossledger.keras import describe

        write_json(
            self.path / "run.json",
            {
                "format": FORMAT,
                "id": self.path.name,
                "name": self.name,
                "created": self._created,
                "ended": datetime.now(UTC).astimezone().isoformat(timespec="seconds")
                if complete
                else None,
                "complete": complete,
                "entries": self._entries,
                "command": self._command,
                "script": _script(self._script),
                "git": _git_commit(self._script),
                "versions": describe.versions(),
                "device": describe.device(),
                "pid": os.getpid(),
                "environment": describe.environment(),
                "warnings": [{"slug": s, "message": m} for s, m in self._told.items()],
                "unseen": [{"where": w, "what": m} for w, m in self._unseen.items()],
            },
        )

    def write_call(self, index: int, values: dict[str, Any]) -> None:
        """Append what is known of a call to the run folder."""
        if self.path is not None:
            with self.guarded("cannot-write"):
                append_line(self.path / "calls.jsonl", {"call": index, **values})

    def _flush_often(self) -> None:
        while not self._wake.wait(FLUSH_SECONDS):
            self.collect()

    def collect(self) -> None:
        """Fetch the entries that the taps hold and write them out."""
        with self._collecting, self.guarded("cannot-write"):
            with self._counting:
                dirty, self._dirty = self._dirty, {}
            for call in list(self._open.values()):
                call.describe()
            blocks = [entries for tap in dirty.values() for entries in tap.collect()]
            blocks += self._custom.collect()
            if self._writer is not None and blocks:
                for entries in blocks:
                    self._writer.append(entries)
                    self._entries += len(entries["step"])
                self._writer.flush()
            for tap in dirty.values():
                if tap.executions or tap.ready:
                    with self._counting:
                        self._dirty[id(tap)] = tap

    # Trouble

    @contextmanager
    def guarded(self, slug: str) -> Iterator[None]:
        """Let nothing that goes wrong in recording reach the training."""
        try:
            yield
        except Exception as error:
            self.warn(slug, f"{type(error).__name__}: {error}")

    def warn(self, slug: str, message: str) -> None:
        """Warn once under `slug`, whatever the warning filters make of it."""
        if slug in self._told:
            return
        self._told[slug] = message
        text = f"[{slug}] {message} Training goes on."
        try:
            warnings.warn(LossLedgerWarning(text), stacklevel=2)
        except LossLedgerWarning:
            print(f"lossledger: {text}", file=sys.stderr)

    def _say_unseen(self) -> None:
        if self._unseen and not self._custom.used:
            self.warn("unseen-training", "; ".join(self._unseen.values()) + ".")


def record(
    directory: str | os.PathLike[str] = "runs", *, name: str | None = None, model: Any = None
) -> Recording:
    """Record every training inside a `with` block into a new run folder.

    Args:
        directory: Folder that holds the runs; created if it isn't there.
        name: Name of the run; the script's by default.
        model: The only model to record; every model by default.

    Returns:
        A `Recording`, to be used in a `with` statement. Its `path` is the run folder.

    Raises:
        LossLedgerError: If `directory` is a file.

    Example:

    ```python
    with lossledger.record("runs", name="baseline") as run:
        model.fit(x, y, batch_size=32, epochs=10)
    ```
    """
    if Path(directory).is_file():
        raise LossLedgerError(
            f"`directory` must be a folder. Received: {directory}, which is a file. "
            "Give a folder that holds runs, for instance 'runs'.",
            slug="not-a-folder",
        )
    return Recording(directory, name=name, model=model)


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _outside() -> str:
    """File and line of the innermost frame that is neither Keras's, its backend's, nor ours."""
    frame = sys._getframe(1)
    libraries = ("keras", "tensorflow", "jax", "torch", "lossledger", "contextlib", "functools")
    while frame.f_back is not None:
        module = str(frame.f_globals.get("__name__", "")).split(".")[0]
        generated = "__autograph_generated" in frame.f_code.co_filename
        if module not in libraries and not generated:
            break
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def _script(path: Path | None) -> dict[str, str] | None:
    if path is None or not path.is_file():
        return None
    return {"path": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def _git_commit(script: Path | None) -> str | None:
    folder = script.parent if script is not None else Path.cwd()
    command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=2, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip() or None
