"""Trainings of one model in many variants, without building or compiling it anew for each.

A model is made once for each optimizer, dtype, compilation and dropout; between trainings its
weights, its optimizer's variables, its metrics and its seeds are put back. What was compiled stays.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

from lossledger.errors import LossLedgerError
from lossledger.loop.loop import Loop
from lossledger.replay.description import is_seed

_NOISY = ("dropout", "recurrent_dropout", "_dropout")


class Workshop:
    """Trains what descriptions say.

    Args:
        build: Makes the compiled model, with new weights each time.
        x: Arrays of equal length, nested as the model takes them.
        y: The targets.
    """

    def __init__(self, build: Callable[[], Any], x: Any, y: Any) -> None:
        self._build = build
        self._x, self._y = x, y
        self._models: dict[Any, tuple[Any, list[np.ndarray]]] = {}
        self._weights: dict[int, list[np.ndarray]] = {}
        lengths = {len(leaf) for leaf in keras.tree.flatten((x, y))}
        if len(lengths) != 1:
            raise LossLedgerError(
                f"`data` must be (x, y), arrays of equal length. Received: lengths "
                f"{sorted(lengths)}. Pass numpy arrays, a row an example.",
                slug="replay-data",
                exit_code=2,
            )
        self.rows = lengths.pop()

    def train(self, state: Mapping[str, Any]) -> None:
        """Trains one variant from its beginning.

        Args:
            state: A full description, with seeds as numbers, and `trained`: how many rows.
        """
        model, optimizer = self._model(state)
        model.set_weights(self.weights(state["initial_weights"]))
        for variable, value in zip(model.optimizer.variables, optimizer, strict=True):
            variable.assign(value)
        if state["learning_rate"] is not None:
            model.optimizer.learning_rate = state["learning_rate"]
        model.reset_metrics()
        _seed_layers(model, state["seed"])
        keras.utils.set_random_seed(state["seed"])
        x, y = _rows((self._x, self._y), slice(state["trained"]))
        DRIVERS[state["driver"]](model, x, y, state)

    def weights(self, initial: Any) -> list[np.ndarray]:
        """Initial weights: arrays as they are, or those that a seed gives."""
        if not is_seed(initial):
            return list(initial)
        if initial not in self._weights:
            self._weights[initial] = self._made(initial).get_weights()
        return self._weights[initial]

    def _made(self, seed: int) -> Any:
        keras.utils.set_random_seed(seed)
        model = self._build()
        if getattr(model, "optimizer", None) is None or not getattr(model, "compiled", True):
            raise LossLedgerError(
                f"`build` must return a compiled model. Received: {model!r}. Call "
                "model.compile(optimizer, loss) in it; the descriptions then change what they say.",
                slug="replay-build",
                exit_code=2,
            )
        if not model.built:
            model(_rows(self._x, slice(1)))
        return model

    def _model(self, state: Mapping[str, Any]) -> tuple[Any, list[np.ndarray]]:
        """The model for a variant, and its optimizer's first variables."""
        key = (state["dtype"], state["jit_compile"], state["dropout"], id(state["optimizer"]))
        if key not in self._models:
            model = self._under_policy(state["dtype"])
            if state["optimizer"] is not None:
                model.optimizer = _optimizer(state["optimizer"], like=model.optimizer)
            if state["jit_compile"] is not None:
                model.jit_compile = state["jit_compile"]
            if not state["dropout"]:
                _still(model)
            model.train_function = None
            model.optimizer.build(model.trainable_variables)
            first = [_numbers(variable) for variable in model.optimizer.variables]
            self._models[key] = model, first
        return self._models[key]

    def _under_policy(self, policy: Any) -> Any:
        if policy is None:
            return self._made(0)
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy(policy)
        try:
            return self._made(0)
        finally:
            keras.config.set_dtype_policy(before)


def _rows(data: Any, chosen: Any) -> Any:
    return keras.tree.map_structure(lambda leaf: leaf[chosen], data)


def _order(state: Mapping[str, Any], epoch: int) -> np.ndarray:
    """The rows of an epoch in their order, the same for every driver and backend.

    Keras's own draws depend on the backend, and on whether the model was trained before.
    """
    return np.random.default_rng((state["seed"], epoch)).permutation(state["trained"])


def _fit(model: Any, x: Any, y: Any, state: Mapping[str, Any]) -> None:
    """What `fit` does, done by a `Loop`: it trains the same, in a part of the time."""
    # One form for all trainings: to time them all costs more than it saves, and XLA rounds anew.
    how = {"batch_size": state["batch_size"], "shuffle": False, "verbose": 0, "plan": "loop"}
    if not state["shuffle"]:
        Loop(model, x, y, epochs=state["epochs"], **how).run()
        return
    with _going_on(model.optimizer):
        for epoch in range(state["epochs"]):
            Loop(model, *_rows((x, y), _order(state, epoch)), **how).run()


@contextmanager
def _going_on(optimizer: Any) -> Iterator[None]:
    """Let no end of a loop put averaged weights in (`use_ema`): one training is several loops."""
    optimizer.finalize_variable_values = lambda _: None
    try:
        yield
    finally:
        del optimizer.finalize_variable_values


def _train_on_batch(model: Any, x: Any, y: Any, state: Mapping[str, Any]) -> None:
    size, rows = state["batch_size"], state["trained"]
    for epoch in range(state["epochs"]):
        data = _rows((x, y), _order(state, epoch)) if state["shuffle"] else (x, y)
        for begin in range(0, rows, size):
            model.train_on_batch(*_rows(data, slice(begin, min(begin + size, rows))))


DRIVERS: Mapping[str, Callable[[Any, Any, Any, Mapping[str, Any]], None]] = {
    "fit": _fit,
    "train_on_batch": _train_on_batch,
}
"""What trains a prepared model on rows; to train otherwise, swap the function here."""


def _optimizer(said: Any, like: Any) -> Any:
    """A new optimizer from a name, a configuration, an optimizer or a function.

    Losses are scaled where the compiled optimizer `like` scales them.
    """
    if isinstance(said, keras.optimizers.Optimizer):
        new = type(said).from_config(said.get_config())
    elif callable(said):
        new = said()
    else:
        new = keras.optimizers.get(dict(said) if isinstance(said, Mapping) else said)
    scaled = keras.optimizers.LossScaleOptimizer
    return scaled(new) if isinstance(like, scaled) and not isinstance(new, scaled) else new


def _still(model: Any) -> None:
    """Switch off what draws random numbers in training."""
    for layer in model._flatten_layers():
        kind = type(layer).__name__
        if "Dropout" in kind and hasattr(layer, "rate"):
            layer.rate = 0.0
        if kind == "GaussianNoise":
            layer.stddev = 0.0
        for name in _NOISY:
            if isinstance(getattr(layer, name, None), float):
                setattr(layer, name, 0.0)


def _seed_layers(model: Any, seed: int) -> None:
    """Put every random stream of the model's layers to its beginning under a seed."""
    place = 0
    for layer in model._flatten_layers():
        for generator in getattr(layer, "_seed_generators", ()):
            first = _numbers(generator.state)
            first[:] = ((seed * 7919 + place) % 2**31, 0)
            generator.state.assign(first)
            place += 1


def _numbers(variable: Any) -> np.ndarray:
    return np.array(keras.ops.convert_to_numpy(variable.value))
