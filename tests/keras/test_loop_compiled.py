"""A `Loop` on a model that is compiled, frozen or trained otherwise before, within or after it."""

from typing import Any

import keras
import numpy as np
import pytest

import lossledger

from .conftest import BACKEND, X, Y, assert_same, network, once
from .looping import layered


def test_fit_afterwards_is_as_ever() -> None:
    def train(first: bool) -> Any:
        def run() -> Any:
            model = layered()
            model.fit(X, Y, verbose=0)
            function = model.train_function
            if first:
                lossledger.Loop(model, X, Y, verbose=0).run()
            else:
                model.fit(X, Y, verbose=0)
            assert model.train_function is function
            return model, model.fit(X, Y, verbose=0).history

        return once(run)

    assert_same(train(False), train(True))


def test_compiling_anew_begins_anew() -> None:
    model = network()
    model.compile(keras.optimizers.SGD(0.1), "mse")
    for epoch in lossledger.Loop(model, X, Y, 16, epochs=2, verbose=0):
        epoch.run(2)
        if epoch.number == 0:
            model.compile(keras.optimizers.SGD(0.0), "mse")
            before = model.get_weights()
            epoch.run()
            for a, b in zip(before, model.get_weights(), strict=True):
                np.testing.assert_array_equal(a, b)


class _AsBefore(keras.Sequential):
    """What Keras to 3.11 does on JAX: `fit` notes where the state lies, each step asks for it."""

    _lies: Any = None

    def _record_training_state_sharding_spec(self) -> None:
        getattr(super(), "_record_training_state_sharding_spec", lambda: None)()
        self._lies = [variable.value.sharding for variable in self.trainable_variables]

    def train_step(self, state: Any, data: Any) -> Any:
        assert self._lies is not None
        return super().train_step(state, data)

    def evaluate(self, *arguments: Any, **named: Any) -> Any:
        found = super().evaluate(*arguments, **named)
        self._lies = None
        return found


@pytest.mark.skipif(BACKEND != "jax", reason="elsewhere no step asks")
@pytest.mark.parametrize("eager", [False, True])
def test_a_step_that_asks_where_the_state_lies(eager: bool) -> None:
    model = _AsBefore([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", run_eagerly=eager)
    for size in (16, 20):
        loop = lossledger.Loop(model, X, Y, size, epochs=2, validation_data=(X, Y), verbose=0)
        assert len(loop.run().history["loss"]) == 2


def test_what_is_frozen_without_compiling_anew() -> None:
    def train(loop: bool) -> Any:
        def run() -> Any:
            model = layered()
            for trainable in (True, False, True):
                model.layers[0].trainable = trainable
                if loop:
                    lossledger.Loop(model, X, Y, 16, verbose=0).run()
                else:
                    model.fit(X, Y, batch_size=16, verbose=0)
            return model, None

        return once(run)

    if BACKEND == "jax":  # `fit` fails
        with pytest.raises(lossledger.LossLedgerError, match="kernel") as caught:
            train(True)
        assert caught.value.slug == "trainable-changed"
    else:
        assert_same(train(False), train(True))


def test_gradual_unfreezing() -> None:
    model = layered()
    model.layers[0].trainable = False
    model.compile("adam", "mse")
    before, moved = model.layers[0].get_weights(), []
    for epoch in lossledger.Loop(model, X, Y, 16, epochs=3, verbose=0):
        epoch.run(2)
        moved.append(not np.array_equal(before[0], model.layers[0].get_weights()[0]))
        if epoch.number == 1:
            model.layers[0].trainable = True
            model.compile("adam", "mse")
    assert moved == [False, False, True]
