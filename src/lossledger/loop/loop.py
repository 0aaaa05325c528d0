"""`Loop`: `fit`'s services and `train_on_batch`'s control, a step or an epoch at a time."""

from collections.abc import Iterator
from typing import Any

import keras
from keras.src.trainers.data_adapters import array_slicing

from lossledger.callback import Recorder
from lossledger.errors import LossLedgerError, count_of
from lossledger.keras import patches
from lossledger.keras.describe import replicas
from lossledger.loop import batches, data
from lossledger.loop.engine import Engine
from lossledger.loop.epoch import Epoch
from lossledger.loop.plan import Plan, wanted
from lossledger.loop.training import Training, warn_of_caps


class Loop:
    """Trains a model as `fit` does, and lets you in between any two steps.

    It takes `fit`'s arguments under `fit`'s names and does what `fit` does with them: the same
    `train_step`, batches, callbacks, validation and History. Iterate over it for the epochs; in
    each, iterate for its steps, or `run` what is left of it on the device. A loop trains once.

    Args:
        model: A compiled Keras model.
        x: As in `fit`; so are all that follow but the last two.
        plan: `"auto"`, or the form to train in: see `lossledger.loop.plan.FORMS`. The `plan` of
            another loop keeps to what that one has found.
        memory: Bytes of data that are on the device at once, about. Arrays that are larger, and
            streams, come in chunks.

    Example:

    ```python
    for epoch in lossledger.Loop(model, x, y, batch_size=32, epochs=10):
        for step in epoch:
            if step.loss > 10:
                break
        epoch.run()
    ```
    """

    def __init__(
        self,
        model: Any,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: str | int = "auto",
        callbacks: Any = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: bool | str = True,
        class_weight: dict[int, float] | None = None,
        sample_weight: Any = None,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
        validation_freq: int | list[int] = 1,
        *,
        plan: Plan | str = "auto",
        memory: int = data.MEMORY,
    ) -> None:
        arguments = dict(locals())
        for name in ("self", "model", "plan", "memory"):
            del arguments[name]
        _check_given(model, x)
        count_of("epochs", epochs, least=0)
        count_of("initial_epoch", initial_epoch, least=0)
        self.model = model
        self._arguments: dict[str, Any] | None = arguments
        self._wanted = wanted(plan)
        self._memory = count_of("memory", memory)
        self._training: Training | None = None
        self._epoch: Epoch | None = None
        self._next = initial_epoch
        self._over = self._ahead = False

    # What the user asks

    @property
    def history(self) -> Any:
        """The `keras.callbacks.History` of this training."""
        if self._training is None:
            return keras.callbacks.History()
        self._training.tell()
        return self.model.history

    @property
    def plan(self) -> Plan:
        """How it trains: the form it has settled on, and what each form took."""
        return Plan(self._wanted) if self._training is None else self._training.plan

    @property
    def stop(self) -> bool:
        """Whether training is to stop: after the step that is under way, as in `fit`."""
        return bool(self.model.stop_training)

    @stop.setter
    def stop(self, value: bool) -> None:
        self.model.stop_training = value

    def run(self) -> Any:
        """Train all that is left, on the device; returns the History."""
        if self._epoch is not None:
            self._epoch.run()
        if self._training is not None:
            self._training.engine.entered()
        self._ahead = True
        for epoch in self:
            epoch.run()
        return self.history

    def __repr__(self) -> str:
        return f"<{self._told()}>"

    def _told(self) -> str:
        state = "ended" if self._over else "under way" if self._training else "not begun"
        return f"Loop over {self.model.name}, {state}, plan {self.plan.form}"

    def _repr_html_(self) -> str:
        from lossledger.notebook import EPOCHS, number, table

        history = self.history.history if self._training is not None else {}
        names = [name for name, values in history.items() if values]
        epochs = self.history.epoch[-EPOCHS:] if names else []
        rows = [
            [str(epoch), *(number(float(history[name][place])) for name in names)]
            for place, epoch in enumerate(epochs, start=-len(epochs))
        ]
        what = self._told()
        if rows:
            what += f"; History of the last {len(rows)} epochs"
        return table(what, rows, ("epoch", *names) if rows else ())

    def __iter__(self) -> Iterator[Epoch]:
        try:
            while (epoch := self._advance()) is not None:
                yield epoch
        except GeneratorExit:
            # The user has left: after a whole epoch that is an end like any other.
            self._close(finished=self._epoch is None or self._epoch.ended)
            raise
        except BaseException as error:
            self._close(finished=False, failed=type(error).__name__)
            raise

    # How it goes on

    def _advance(self) -> Epoch | None:
        if self._over:
            return None
        if self._training is None:
            self._begin()
        assert self._training is not None
        if self._epoch is not None:
            self._epoch.finish()
            self._epoch = None
            if self.model.stop_training:
                self._next = self._training.epochs
        if self._next >= self._training.epochs:
            self._close(finished=True)
            return None
        self._training.ahead = self._ahead
        self._epoch = self._training.begin_epoch(self._next)
        self._next += 1
        return self._epoch

    def _begin(self) -> None:
        model, arguments = self.model, self._arguments
        assert arguments is not None
        self._arguments = None
        model._assert_compile_called("fit")
        _check_strategy(model)
        epochs = warn_of_caps(arguments["epochs"])
        model._eval_epoch_iterator = None
        (x, y, weight), validation = _split(arguments)
        order = {name: arguments[name] for name in ("shuffle", "steps_per_epoch")}
        iterator = batches.opened(
            model,
            x=x,
            y=y,
            sample_weight=weight,
            batch_size=arguments["batch_size"],
            class_weight=arguments["class_weight"],
            **order,
        )
        batches.build(model, iterator=iterator)
        for recorder in _recorders(arguments["callbacks"]):
            recorder.begin(model)
        listener = patches.listener()
        engine = _engine(model, full=listener is not None and listener.wants(model))
        source = data.source(model, engine, iterator, order, self._memory)
        callbacks = _callbacks(model, arguments, epochs, source.steps)
        model.stop_training = False
        self._training = Training(
            model, engine, source, callbacks, epochs, self._wanted, validation
        )
        self._training.arguments = arguments
        engine.open()
        self._training.record()
        callbacks.on_train_begin()
        self._next = getattr(model, "_initial_epoch", None) or self._next

    def _close(self, *, finished: bool, failed: str | None = None) -> None:
        """End the training, as `fit` does after its last epoch or where it is interrupted."""
        if self._over or self._training is None:
            return
        self._over = True
        training, model = self._training, self.model
        training.over = True
        training.tell()
        if finished or keras.backend.backend() == "jax":
            optimizer = model.optimizer
            if isinstance(optimizer, keras.optimizers.Optimizer) and training.epochs > 0:
                optimizer.finalize_variable_values(model.trainable_weights)
        if getattr(model, "_eval_epoch_iterator", None) is not None:
            del model._eval_epoch_iterator
        training.engine.close()
        training.source.close()
        if finished:
            training.callbacks.on_train_end(logs=training.logs)
        training.end_call(failed)


def _engine(model: Any, *, full: bool) -> Engine:
    backend = keras.backend.backend()
    if backend == "jax":
        from lossledger.loop.jax import JaxEngine as BackendEngine
    elif replicas(model) > 1:
        from lossledger.loop.tensorflow_replicas import ReplicasEngine as BackendEngine
    elif backend == "tensorflow":
        from lossledger.loop.tensorflow import TensorFlowEngine as BackendEngine
    else:
        from lossledger.loop.torch import TorchEngine as BackendEngine
    return BackendEngine.of(model, full)


def _recorders(callbacks: Any) -> list[Recorder]:
    """The recorders among the callbacks: they must begin before a step is compiled."""
    given = getattr(callbacks, "callbacks", callbacks)
    return [each for each in keras.tree.flatten(given) if isinstance(each, Recorder)]


def _split(arguments: dict[str, Any]) -> tuple[tuple[Any, Any, Any], dict[str, Any]]:
    """The training data, and what `evaluate` is to be called with; as `fit` splits them."""
    arrays = tuple(arguments[name] for name in ("x", "y", "sample_weight"))
    held = arguments["validation_data"]
    if arguments["validation_split"] and held is None:
        arrays, held = array_slicing.train_validation_split(
            arrays, validation_split=arguments["validation_split"]
        )
    if held is None:
        return arrays, {}
    x, y, weight = keras.utils.unpack_x_y_sample_weight(held)
    return arrays, {
        "freq": arguments["validation_freq"],
        "arguments": {
            "x": x,
            "y": y,
            "sample_weight": weight,
            "batch_size": arguments["validation_batch_size"] or arguments["batch_size"],
            "steps": arguments["validation_steps"],
        },
    }


def _callbacks(model: Any, arguments: dict[str, Any], epochs: int, steps: int | None) -> Any:
    callbacks = arguments["callbacks"]
    if isinstance(callbacks, keras.callbacks.CallbackList):
        return callbacks
    return keras.callbacks.CallbackList(
        callbacks,
        add_history=True,
        add_progbar=arguments["verbose"] != 0,
        verbose=arguments["verbose"],
        epochs=epochs,
        steps=steps,
        model=model,
    )


def _check_given(model: Any, x: Any) -> None:
    shapes = [getattr(leaf, "shape", ()) for leaf in keras.tree.flatten(x)]
    if not isinstance(model, keras.Model):
        what = f"A `Loop` trains a compiled keras.Model. Received: {type(model).__name__}"
    elif x is None:
        what = "A `Loop` needs data, as `fit` takes them. Received: x=None"
    elif any(len(shape) and shape[0] == 0 for shape in shapes):
        what = f"A `Loop` needs data. Received: no rows, x of shape {tuple(shapes[0])}"
    else:
        return
    raise LossLedgerError(f"{what}. Write `Loop(model, x, y, ...)`.", slug="nothing-to-train")


def _check_strategy(model: Any) -> None:
    if keras.backend.backend() == "tensorflow":
        from lossledger.loop import tensorflow_replicas

        tensorflow_replicas.check(model)
