"""Trainings by `Loop`, and beside it by `fit`, from the same seeds."""

from typing import Any

import keras
import numpy as np

import lossledger
from lossledger.loop.engine import PLACE

from .conftest import X, Y, assert_same, once

MODES = ("run", "step", "mixed")


def drive(loop: lossledger.Loop, mode: str) -> Any:
    """Train all of a loop: at once, a step at a time, or both by turns."""
    if mode == "run":
        return loop.run()
    for epoch in loop:
        if mode == "mixed":
            epoch.run(2)
            next(iter(epoch), None)
            epoch.run()
        else:
            for step in epoch:
                assert step.rows
    return loop.history


def layered(**compiled: Any) -> Any:
    """A model with all that a step may change: dropout's seeds, moving means, metrics."""
    model = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(5, activation="relu", kernel_regularizer="l2"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.4),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )
    given = {"optimizer": "adam", "loss": "binary_crossentropy", "metrics": ["mae"]}
    model.compile(**{**given, **compiled})
    return model


def assert_as_fit(
    make: Any, mode: str, /, *data: Any, loop: dict[str, Any] | None = None, **arguments: Any
) -> None:
    """Train with `fit` and with a loop from the same seeds; nothing may differ.

    Args:
        make: Makes the model.
        mode: One of `MODES`.
        *data: What both take, or functions that make it.
        loop: What only the loop takes.
        **arguments: What both take.
    """
    arguments = {"epochs": 3, "verbose": 0, **arguments}
    own = loop or {}

    def fit() -> Any:
        model = make()
        made = [each() if callable(each) else each for each in data]
        history = model.fit(*made, **arguments)
        return model, (history.history, history.epoch)

    def looped() -> Any:
        model = make()
        made = [each() if callable(each) else each for each in data]
        history = drive(lossledger.Loop(model, *made, **arguments, **own), mode)
        return model, (history.history, history.epoch)

    assert_same(once(fit), once(looped))


ARGUMENTS: dict[str, dict[str, Any]] = {
    "whole": {"batch_size": 35},
    "one": {"batch_size": 70, "initial_epoch": 1},
    "within": {"shuffle": "batch", "batch_size": 30},
    "short": {"steps_per_epoch": 2, "batch_size": 20, "validation_split": 0.3},
    "held": {"validation_data": (X, Y), "validation_freq": 2, "validation_steps": 1},
    "weights": {"sample_weight": np.linspace(0, 2, 70).astype("f4"), "batch_size": 16},
}


def engine_of(model: Any) -> type:
    """The class of this backend's engine."""
    lossledger.Loop(model, X, Y, verbose=0).run()
    return type(model.__dict__[PLACE].engine)
