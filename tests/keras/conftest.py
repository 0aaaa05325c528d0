"""Real trainings, each run twice: as it is, and recorded. One backend a process."""

import functools
import gc
import os
import random
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "jax")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    # torch before TensorFlow, as Keras's own tests do: the other order may crash at load.
    try:
        import torch
    except ImportError:
        torch = None
    import keras

import numpy as np
import pytest

import lossledger

BACKEND = keras.backend.backend()
KERAS = tuple(int(part) for part in keras.__version__.split(".")[:2])

ONE_BACKEND = "what it tests knows no backend, only entries or Keras: run on JAX"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"one_backend: {ONE_BACKEND}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Third parties warn in their own ways; what we warn of is an error still."""
    # The oldest Keras is run on one backend only, and it isn't JAX.
    elsewhere = pytest.mark.skipif(BACKEND != "jax" and KERAS >= (3, 9), reason=ONE_BACKEND)
    for item in items:
        if item.get_closest_marker("one_backend"):
            item.add_marker(elsewhere)
        item.add_marker(pytest.mark.filterwarnings("default"))
        item.add_marker(pytest.mark.filterwarnings("error::lossledger.LossLedgerWarning"))


@dataclass
class Twins:
    """What a training left behind without and with a recording, and the recording's run."""

    plain: Any
    recorded: Any
    run: lossledger.Run

    def column(self, name: str, **where: int) -> np.ndarray:
        """A column of the run's entries, in order."""
        column = self.run.entries(**where)[name].combine_chunks()
        if column.null_count:
            return np.array(column.to_pylist(), dtype=object)
        return column.to_numpy(zero_copy_only=False)


def state_of(model: Any) -> list[np.ndarray]:
    """All that training may change in a model."""
    variables = [*model.variables, *getattr(getattr(model, "optimizer", None), "variables", ())]
    return [np.array(keras.ops.convert_to_numpy(v.value)) for v in variables]


def streams() -> list[Any]:
    """The next numbers of every random stream a training may use."""
    found = [random.random(), float(np.random.random()), keras.random.uniform((3,))]
    return [np.asarray(keras.ops.convert_to_numpy(each)) for each in found]


def once(train: Callable[[], tuple[Any, Any]]) -> dict[str, Any]:
    """Run a training from fixed seeds; returns all that can be compared of it."""
    keras.utils.clear_session(free_memory=False)  # `_kept` collects
    keras.utils.set_random_seed(7)
    model, outcome = train()
    models = model if isinstance(model, list) else [model]
    state = [array for each in models for array in state_of(each)]
    return {
        "state": state,
        "outcome": outcome,
        "streams": streams(),
        "names": [each.metrics_names for each in models],
    }


def assert_same(plain: dict[str, Any], recorded: dict[str, Any]) -> None:
    """Bit by bit."""
    assert plain["names"] == recorded["names"]
    assert len(plain["state"]) == len(recorded["state"])
    for a, b in zip(plain["state"], recorded["state"], strict=True):
        assert a.dtype == b.dtype
        assert a.tobytes() == b.tobytes()
    for a, b in zip(plain["streams"], recorded["streams"], strict=True):
        assert a.tobytes() == b.tobytes()
    assert repr(plain["outcome"]) == repr(recorded["outcome"])


@pytest.fixture
def twins(tmp_path):
    """Train twice, without and with a recording, and assert that nothing differs."""

    def run(train: Callable[[], tuple[Any, Any]]) -> Twins:
        plain = once(train)
        with lossledger.record(tmp_path / "runs", name="twin") as recording:
            recorded = once(train)
        assert_same(plain, recorded)
        assert recording.path is not None
        opened = lossledger.open(recording.path)
        assert opened.complete
        assert opened.info["warnings"] == []
        return Twins(plain["outcome"], recorded["outcome"], opened)

    return run


@pytest.fixture(scope="session", autouse=True)
def _warm():
    """The first training of a process imports modules that draw random numbers of their own."""

    def train():
        model = network()
        model.compile("sgd", "mse")
        return model, model.fit(X, Y, verbose=0).history

    once(train)


@pytest.fixture(autouse=True)
def _kept():
    """A collection would go through all that was imported, and that the backend keeps of tests."""
    gc.collect()
    gc.freeze()


RNG = np.random.default_rng(0)
X = RNG.random((70, 3)).astype("float32")
Y = RNG.random((70, 1)).astype("float32")


def network(units: int = 4, outputs: int = 1, cls: Any = None, **dense: Any) -> Any:
    """A small functional network on `X`."""
    inputs = keras.Input((3,))
    hidden = keras.layers.Dense(units, activation="relu", **dense)(inputs)
    return (cls or keras.Model)(inputs, keras.layers.Dense(outputs)(hidden))


def batches(size: int, rows: int = len(X)) -> list[slice]:
    """Slices of consecutive batches, the last one short."""
    return [slice(k, min(k + size, rows)) for k in range(0, rows, size)]


@functools.cache
def raw_losses(make: Callable[[], Any], size: int, epochs: int) -> np.ndarray:
    """Each step's loss by plain Keras, one batch at a time with the metrics reset."""
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(7)
    model = make()
    losses = []
    for _ in range(epochs):
        for rows in batches(size):
            model.reset_metrics()
            losses.append(model.train_on_batch(X[rows], Y[rows]))
    found = np.array([float(np.ravel(loss)[0]) for loss in losses])
    found.setflags(write=False)
    return found


FLAT = {"shuffle": False, "verbose": 0, "batch_size": 32}


def model_of(rate=0.1, loss="mse", make=network, **compile_arguments):
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(7)
    model = make(units=8)
    model.compile(keras.optimizers.SGD(rate), loss, **compile_arguments)
    return model


@pytest.fixture
def record(tmp_path):
    """Records what a function trains; gives the run's path and the model."""

    def recorded(train, model):
        with lossledger.record(tmp_path) as run:
            train(model)
        assert run.path is not None
        return run.path, model

    return recorded


@pytest.fixture
def fit(record):
    """Records a `fit` of a fresh model on X and Y; gives the run's path."""

    def fitted(x=X, y=Y, model=None, after=None, **arguments):
        def train(model):
            model.fit(x, y, **{**FLAT, **arguments})
            if after is not None:
                after(model)

        return record(train, model or model_of())[0]

    return fitted
