"""Trainings whose losses are reconciled, and what is reckoned of them apart."""

import functools

import keras
import numpy as np
import pytest

import lossledger

from .conftest import X, Y, model_of, raw_losses

WEIGHTS = (np.random.default_rng(5).random(70) * 3).astype("float32")
ROWS = np.array([32, 32, 6.0])


def per_row(model, x=X, y=Y):
    y_pred = np.asarray(keras.ops.convert_to_numpy(model(x)), np.float64)
    return ((y_pred - y) ** 2).mean(-1)


def summed(*numbers, **choices):
    """Amounts by cause and kind; all that is left is rounding."""
    result = lossledger.reconcile(*numbers, **choices)
    assert abs(result.unexplained) <= 1e-6 * max(abs(result.a.value), abs(result.b.value))
    found = {(each.cause, each.kind): each.amount for each in result.causes}
    size = 1e-6 * max(abs(result.a.value), abs(result.b.value))
    return {key: amount for key, amount in found.items() if abs(amount) > size}, result


def assert_causes(found, wanted, size=0.1):
    assert set(found) == set(wanted)
    assert found == pytest.approx(wanted, rel=2e-6, abs=2e-6 * size)


@functools.cache
def raw(size=32, epochs=1, **choices):
    return raw_losses(functools.partial(model_of, **choices), size, epochs).astype(np.float64)
