"""The methods of Keras that are replaced while a recording is on, and how they are put back.

All of them belong to Keras's own classes, but for functions of its losses and its saving: a model,
its copies and its saved files never hold anything of ours but the compiled train function.
"""

import contextlib
import functools
import inspect
import threading
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any, Protocol

import keras
from keras.callbacks import CallbackList

from lossledger.keras import trace
from lossledger.keras.tap import Tap


class Listener(Protocol):
    """A recording, as the patched methods see it."""

    def warn(self, slug: str, message: str) -> None:
        """Say, once, what could not be recorded."""
        ...

    def wants(self, model: Any) -> bool:
        """Whether the model's train function is to be tapped."""
        ...

    def tapped(self, model: Any, tap: Tap[Any]) -> None:
        """A train function was compiled with a tap in it."""
        ...

    def begin_fit(self, model: Any, arguments: dict[str, Any]) -> Any:
        """A `fit` begins; returns its call."""
        ...

    def begin_loop(self, model: Any, arguments: dict[str, Any], tap: Tap[Any]) -> Any:
        """A `Loop` begins, or goes on after its model was trained otherwise; returns its call."""
        ...

    def fit_call(self, model: Any) -> Any:
        """The call of the `fit` or `Loop` that is on, of `model` or, if it is `None`, of any."""
        ...

    def begin_batch(self, model: Any, signature: inspect.Signature, args: Any, kwargs: Any) -> Any:
        """A `train_on_batch` begins; returns its call, to be told what it returns."""
        ...

    def call_of(self, model: Any) -> Any:
        """The call of a model that is on."""
        ...

    def evaluated(self, model: Any, result: Any, arguments: dict[str, Any]) -> None:
        """`evaluate` returned, of these arguments by name."""
        ...

    def tested(
        self, model: Any, result: Any, arguments: Callable[[], dict[str, Any] | None]
    ) -> None:
        """`test_on_batch` returned, of these arguments by name."""
        ...

    def saving(self, model: Any) -> None:
        """The program is about to save `model`, or its weights."""
        ...

    def applied(self, optimizer: Any) -> None:
        """An optimizer was applied outside any tapped step."""
        ...


_SAVES = (("saving.saving_lib", "save_model"), ("saving.saving_lib", "save_weights_only"))
_SAVES += (("legacy.saving.legacy_h5_format", "save_model_to_hdf5"),)
"""What every way to save a model or its weights comes to in Keras, by module."""

_listeners: list[Listener] = []
_originals: list[tuple[Any, str, Any]] = []
_needs: list[object] = []
_making = threading.local()


def listener() -> Listener | None:
    """The innermost recording."""
    return _listeners[-1] if _listeners else None


def add(new: Listener) -> None:
    """Start telling `new` of trainings; the first one replaces Keras's methods."""
    _need(new)
    _listeners.append(new)


def remove(old: Listener) -> None:
    """Stop telling `old`; the last one puts Keras's methods back."""
    if old in _listeners:
        _listeners.remove(old)
        _need_no_more(old)


@contextlib.contextmanager
def noting() -> Iterator[None]:
    """Replace Keras's methods for a while, recording or not: a step traced within can be noted."""
    need = object()
    _need(need)
    try:
        yield
    finally:
        _need_no_more(need)


def _need(by: object) -> None:
    if not _needs:
        _install()
    _needs.append(by)


def _need_no_more(by: object) -> None:
    _needs.remove(by)
    if not _needs:
        _uninstall()


def _replace(owner: Any, name: str, wrap: Callable[[Any], Any]) -> None:
    original = owner.__dict__[name]
    _originals.append((owner, name, original))
    setattr(owner, name, functools.wraps(original)(wrap(original)))


def _uninstall() -> None:
    while _originals:
        owner, name, original = _originals.pop()
        setattr(owner, name, original)


def _install() -> None:
    backend = keras.backend.backend()
    trainer, tap_of = _trainer(backend)
    _replace(keras.metrics.Mean, "update_state", trace.noting_update)
    _replace(
        _class("keras.src.trainers.compile_utils", "CompileLoss"), "call", trace.noting_data_loss
    )
    losses = import_module("keras.src.losses.loss")
    _replace(losses, "reduce_weighted_values", trace.noting_reduction)
    _replace(_class("keras.src.optimizers.base_optimizer", "BaseOptimizer"), "apply", _apply)
    _replace(trainer, "make_train_function", functools.partial(_make_train_function, tap_of=tap_of))
    _replace(trainer, "fit", _fit)
    _replace(trainer, "train_on_batch", _train_on_batch)
    _replace(trainer, "evaluate", _evaluate)
    _replace(trainer, "test_on_batch", _test_on_batch)
    _replace(keras.layers.Layer, "set_weights", _loading)
    _replace(keras.Model, "load_weights", _loading)
    for name, function in _SAVES:
        _replace(import_module(f"keras.src.{name}"), function, _saving)
    _replace(CallbackList, "on_epoch_begin", _epoch_begin)
    _replace(CallbackList, "on_epoch_end", _epoch_end)
    if backend == "jax":
        from lossledger.keras import jax

        _replace(trainer, "_make_function", _make_function)
        _replace(trainer, "train_step", jax.noting_standard_step)
        _replace(trainer, "compute_loss_and_updates", jax.carrying_loss)


def _class(module: str, name: str) -> Any:
    return getattr(__import__(module, fromlist=[name]), name)


def _trainer(backend: str) -> tuple[type, Callable[[Any], Tap[Any]]]:
    if backend == "tensorflow":
        from lossledger.keras.tensorflow_ring import tap_of

        name = "TensorFlowTrainer"
    elif backend == "jax":
        from lossledger.keras.jax import JaxTap as tap_of

        name = "JAXTrainer"
    else:
        from lossledger.keras.torch import TorchTap as tap_of

        name = "TorchTrainer"
    return _class(f"keras.src.backend.{backend}.trainer", name), tap_of


def _make_train_function(original: Any, tap_of: Callable[[Any], Tap[Any]]) -> Any:
    def make_train_function(self: Any, force: bool = False) -> Any:
        active = listener()
        made = self.train_function is not None and not force
        if active is None or made or not active.wants(self):
            return original(self, force=force)
        try:
            new = tap_of(self)
        except Exception as error:
            active.warn("not-tapped", f"{type(error).__name__}: {error}")
            return original(self, force=force)
        with _stepping_through(self, new):
            result = original(self, force=force)
        self.train_function = new.wrap_function(self.train_function)
        self.train_function.lossledger = new
        active.tapped(self, new)
        return result

    return make_train_function


@contextlib.contextmanager
def _stepping_through(model: Any, tap: Tap[Any]) -> Iterator[None]:
    """Keras looks `train_step` up on the instance while it builds the train function."""
    mine = model.__dict__.get("train_step")
    _making.tap = tap
    model.__dict__["train_step"] = tap.wrap_step(model.train_step)
    try:
        yield
    finally:
        _making.tap = None
        del model.__dict__["train_step"]
        if mine is not None:
            model.__dict__["train_step"] = mine


def _make_function(original: Any) -> Any:
    """`JAXTrainer._make_function`: the jitted step passes through it."""

    def make_function(self: Any, step_function: Any, *args: Any, **kwargs: Any) -> Any:
        tap = getattr(_making, "tap", None)
        if tap is not None:
            step_function = tap.wrap_jitted(step_function)
        return original(self, step_function, *args, **kwargs)

    return make_function


def _apply(original: Any) -> Any:
    def apply(self: Any, *args: Any, **kwargs: Any) -> Any:
        noting = trace.current()
        if noting is not None:
            noting.optimizers.append(self)
        else:
            active = listener()
            if active is not None:
                active.applied(self)
        return original(self, *args, **kwargs)

    return apply


def bound_arguments(
    signature: inspect.Signature, *args: Any, **kwargs: Any
) -> dict[str, Any] | None:
    """The arguments by name, without `self`; `None` where the call itself is wrong."""
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError:
        return None
    return {name: value for name, value in bound.arguments.items() if name != "self"}


def _fit(original: Any) -> Any:
    signature = inspect.signature(original)

    def fit(self: Any, *args: Any, **kwargs: Any) -> Any:
        active = listener()
        arguments = None if active is None else bound_arguments(signature, self, *args, **kwargs)
        call = None
        if active is not None and arguments is not None:
            call = active.begin_fit(self, arguments)
        if call is None:
            return original(self, *args, **kwargs)
        try:
            result = original(self, *args, **kwargs)
        except BaseException as error:
            call.finish(failed=type(error).__name__)
            raise
        call.finish()
        return result

    return fit


def _epoch_begin(original: Any) -> Any:
    """`CallbackList.on_epoch_begin`: a callback of ours could change how Keras calls the user's."""

    def on_epoch_begin(self: Any, epoch: int, *args: Any, **kwargs: Any) -> Any:
        call = _fit_call(self)
        if call is not None:
            call.begin_epoch(epoch)
        return original(self, epoch, *args, **kwargs)

    return on_epoch_begin


def _epoch_end(original: Any) -> Any:
    def on_epoch_end(self: Any, epoch: int, logs: Any = None) -> Any:
        call = _fit_call(self)
        if call is not None:
            call.end_epoch(epoch, logs or {})
        return original(self, epoch, logs)

    return on_epoch_end


def _fit_call(callbacks: CallbackList) -> Any:
    active = listener()
    # `callbacks.model` would fetch the state of a JAX model.
    return None if active is None else active.fit_call(callbacks._model)


def _train_on_batch(original: Any) -> Any:
    signature = inspect.signature(original)

    def train_on_batch(self: Any, *args: Any, **kwargs: Any) -> Any:
        active = listener()
        if active is None:
            return original(self, *args, **kwargs)
        # Most find their series here: what is called at each step costs it microseconds.
        tap = getattr(self.train_function, "lossledger", None)
        call = None if tap is None else tap.position
        if call is None or call.recording is not active or call.driver == "loop":
            call = active.begin_batch(self, signature, args, kwargs)
        result = None
        try:
            result = original(self, *args, **kwargs)
        finally:
            if call is not None and not call.open:  # compiled anew: this is another series
                call = active.call_of(self)
            if call is not None:
                call.returned(result)
        return result

    return train_on_batch


def _test_on_batch(original: Any) -> Any:
    signature = inspect.signature(original)

    def test_on_batch(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        active = listener()
        if active is not None:
            given = functools.partial(bound_arguments, signature, self, *args, **kwargs)
            active.tested(self, result, given)
        return result

    return test_on_batch


def _loading(original: Any) -> Any:
    def loading(self: Any, *args: Any, **kwargs: Any) -> Any:
        active = listener()
        call = None if active is None else active.call_of(self)
        if call is not None:
            call.loading()
        return original(self, *args, **kwargs)

    return loading


def _saving(original: Any) -> Any:
    def saving(model: Any, *args: Any, **kwargs: Any) -> Any:
        active = listener()
        if active is not None:
            active.saving(model)
        return original(model, *args, **kwargs)

    return saving


def _evaluate(original: Any) -> Any:
    signature = inspect.signature(original)

    def evaluate(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        active = listener()
        # fit reports its own validation itself, and marks it so.
        if active is not None and not kwargs.get("_use_cached_eval_dataset"):
            arguments = bound_arguments(signature, self, *args, **kwargs)
            active.evaluated(self, result, arguments or {})
        return result

    return evaluate
