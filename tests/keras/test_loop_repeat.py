"""On PyTorch a loop repeats a step's operations: the same bits, and only where that may be."""

from typing import Any

import keras
import numpy as np
import pytest

import lossledger
from lossledger.loop import plan

from .conftest import BACKEND, assert_same, once
from .looping import layered

if BACKEND != "torch":
    pytest.skip("a form of PyTorch's", allow_module_level=True)

import torch

import lossledger.loop.torch as engine
from lossledger.loop.tape import SOON

ROWS = np.random.default_rng(5).random((230, 3)).astype("f4")
TARGETS = ROWS.mean(1, keepdims=True)
ARGUMENTS = {"batch_size": 10, "epochs": 4, "verbose": 0}
"""23 steps an epoch: most of them repeated."""


class Calls:
    """Counts how often a step's Python code runs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        own = keras.Model.zero_grad

        def counted(model: Any, *given: Any, **named: Any) -> None:
            self.count += 1
            own(model, *given, **named)

        # Code of the tests' would keep a step from being repeated; this is taken for Keras's.
        counted = type(counted)(
            counted.__code__.replace(co_filename=keras.__file__),
            {"__name__": "keras.counted"},
            closure=counted.__closure__,
        )
        monkeypatch.setattr(keras.Model, "zero_grad", counted)


@pytest.fixture(autouse=True)
def _no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine would make chunks too short to be repeated; nor wait until it pays."""
    monkeypatch.setattr(plan, "TARGET", 1e6)
    monkeypatch.setattr(engine, "SOON", 0)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    return Calls(monkeypatch)


def trained(make: Any, *, loop: bool, **arguments: Any) -> tuple[dict[str, Any], Any]:
    """A training from the same seeds, and the loop's plan."""
    plans = []

    def run() -> Any:
        model = make()
        given = {**ARGUMENTS, **{name: each() for name, each in arguments.items()}}
        if not loop:
            return model, model.fit(ROWS, TARGETS, **given).history
        made = lossledger.Loop(model, ROWS, TARGETS, **given)
        history = made.run().history
        plans.append(made.plan)
        return model, history

    return once(run), plans


def transformer() -> Any:
    layers = keras.layers
    inputs = keras.Input((3,))
    x = layers.Dense(8)(layers.Reshape((3, 1))(inputs))
    x = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 4, dropout=0.2)(x, x))
    model = keras.Model(inputs, layers.Dense(1)(layers.Flatten()(layers.LSTM(4)(x))))
    optimizer = keras.optimizers.AdamW(0.01, clipvalue=0.5)
    model.compile(optimizer, "mse", metrics=["mae"])
    return model


@pytest.mark.parametrize("make", [layered, transformer])
def test_what_is_repeated_is_what_fit_does(make: Any, calls: Calls) -> None:
    fit, _ = trained(make, loop=False)
    assert calls.count == 4 * 23
    calls.count = 0
    loop, (plan,) = trained(make, loop=True)
    assert plan.form == "repeat"
    assert 4 * 2 <= calls.count < 4 * 12
    assert_same(fit, loop)


class Changing(keras.callbacks.Callback):
    """Changes between epochs what a step's Python code reads."""

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        model = self.model
        model.optimizer.learning_rate = 0.01 / (epoch + 1)
        model.layers[2].rate = 0.2 * epoch
        model.layers[0].trainable = epoch != 2


def test_a_short_training_is_not_repeated(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    """To note two steps takes as long as some thirty do: a first epoch would take longer."""
    monkeypatch.setattr(engine, "SOON", SOON)
    trained(layered, loop=True, epochs=lambda: 1)
    assert calls.count == 23
    calls.count = 0
    trained(layered, loop=True)
    assert 46 < calls.count < 70


def test_what_callbacks_change_between_epochs_counts() -> None:
    given = {"callbacks": lambda: [Changing()]}
    fit, _ = trained(layered, loop=False, **given)
    loop, (plan,) = trained(layered, loop=True, **given)
    assert plan.form in ("repeat", "eager")
    assert_same(fit, loop)


class Counting(keras.layers.Layer):
    """Counts its calls in Python, and does something else from the fiftieth on."""

    count = 0

    def call(self, x: Any) -> Any:
        self.count += 1
        return x * 2 if self.count > 50 else x


class Scripted(torch.nn.Module):
    """As `Counting`, in TorchScript, whose code is no Python."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count += 1
        if self.count > 50:
            x = x * 2
        return x


def counting_in_a_module_named_like_pythons() -> Any:
    named = {"__name__": "code.layers", "keras": keras}
    source = """
class Counting(keras.layers.Layer):
    count = 0

    def call(self, x):
        self.count += 1
        return x * 2 if self.count > 50 else x
"""
    exec(compile(source, __file__, "exec"), named)
    return named["Counting"]()


def with_layer(layer: Any, **compiled: Any) -> Any:
    if isinstance(layer, torch.nn.Module) and not isinstance(layer, keras.layers.Layer):
        layer = keras.layers.TorchModuleWrapper(layer, output_shape=(None, 4))
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4), layer])
    model.add(keras.layers.Dense(1))
    # An optimizer that can be repeated; SGD reads the learning rate.
    model.compile("adam", **{"loss": "mse", **compiled})
    return model


def weighted_by_results() -> Any:
    """A loss that asks for the metrics' results, which an unread step leaves out of its logs."""
    model = with_layer(keras.layers.Activation("tanh"))

    def loss(y: Any, predicted: Any) -> Any:
        return keras.ops.mean((y - predicted) ** 2, -1) * (1 + model.get_metrics_result()["loss"])

    model.compile("adam", loss)
    return model


def with_a_result_of_its_own() -> Any:
    """A metric of Keras's whose result counts how often it is asked for."""
    metric = keras.metrics.MeanAbsoluteError(name="mae")
    own, seen = metric.result, []

    def result() -> Any:
        seen.append(1)
        return own() + len(seen)

    metric.result = result
    return with_layer(keras.layers.Activation("tanh"), metrics=[metric])


def read_by_python(x: Any) -> Any:
    return x * 2 if float(x.sum()) > 0 else x


@pytest.mark.parametrize(
    "make",
    [
        lambda: with_layer(Counting()),
        lambda: with_layer(torch.jit.script(Scripted())),
        lambda: with_layer(counting_in_a_module_named_like_pythons()),
        weighted_by_results,
        with_a_result_of_its_own,
        lambda: with_layer(keras.layers.Lambda(read_by_python)),
        lambda: with_layer(keras.layers.GaussianNoise(0.1)),
        lambda: layered(optimizer=keras.optimizers.SGD(0.1, gradient_accumulation_steps=3)),
    ],
    ids=["code", "script", "named", "results", "result", "read", "seeded", "condition"],
)
def test_what_may_not_be_repeated_is_not(make: Any) -> None:
    fit, _ = trained(make, loop=False)
    loop, (plan,) = trained(make, loop=True)
    assert plan.form == "eager"
    assert plan.candidates == ("eager",)
    assert_same(fit, loop)


def test_what_is_repeated_is_recorded(tmp_path: Any) -> None:
    def losses(loop: bool) -> Any:
        def run() -> Any:
            model = layered()
            with lossledger.record(tmp_path / str(loop)):
                if loop:
                    lossledger.Loop(model, ROWS, TARGETS, **ARGUMENTS, callbacks=[Changing()]).run()
                else:
                    model.fit(ROWS, TARGETS, **ARGUMENTS, callbacks=[Changing()])
            entries = lossledger.open(tmp_path / str(loop) / "latest").entries().to_pydict()
            return model, {
                name: list(column)
                for name, column in entries.items()
                if name not in ("time", "driver", "call")
            }

        return once(run)

    fit, loop = losses(False), losses(True)
    assert fit["outcome"].keys() == loop["outcome"].keys()
    for name, column in fit["outcome"].items():
        assert column == loop["outcome"][name], name


def test_a_gradient_can_be_read_after_an_epoch() -> None:
    torch.manual_seed(0)
    model = layered()
    for epoch in lossledger.Loop(model, ROWS, TARGETS, **ARGUMENTS):
        epoch.run()
        assert all(v.value.grad is not None for v in model.trainable_variables)
