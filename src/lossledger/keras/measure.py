"""Evaluates a live model in both modes, and leaves it as it was."""

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from lossledger.chance import Estimate
from lossledger.keras.describe import weights_fingerprint
from lossledger.statistics import Mean

DRAWS = 16
"""Times that a loss with random layers is measured."""


@dataclass(frozen=True)
class Losses:
    """A model's loss on some data, at the weights that it has.

    Args:
        training: In training mode, as the steps of `fit` compute it; a mean of `draws`.
        inference: In inference mode, as `evaluate` computes it.
        noise: How far chance alone takes `training` (`lossledger.chance`); 0.0 where each draw is
            the same.
        draws: How often `training` was measured.
        weights: The fingerprint of the weights.
    """

    training: float
    inference: float
    noise: float
    draws: int
    weights: str | None


def losses_of(model: Any, x: Any, y: Any, sample_weight: Any, batch_size: int) -> Losses:
    """Measures a compiled model; each batch's loss weighs by its rows.

    Args:
        model: A compiled `keras.Model`.
        x: Inputs, arrays or a structure of them.
        y: Targets.
        sample_weight: Sample weights, or `None`.
        batch_size: Rows of a batch; batch normalization depends on it.
    """
    data = (x, y) if sample_weight is None else (x, y, sample_weight)
    rows = len(keras.tree.flatten(x)[0])
    batches = [
        keras.tree.map_structure(lambda part, at=at: np.asarray(part)[at : at + batch_size], data)
        for at in range(0, rows, batch_size)
    ]
    variables = [*model.non_trainable_variables, *model.metrics_variables]
    before = [np.array(keras.ops.convert_to_numpy(each.value)) for each in variables]
    try:
        inference = _mean(model, batches, False)
        draws = [_mean(model, batches, True)]
        if any(abs(_mean(model, batches, True) - draws[0]) > 1e-6 * abs(draws[0]) for _ in "12"):
            draws += [_mean(model, batches, True) for _ in range(DRAWS - 1)]
    finally:
        for variable, value in zip(variables, before, strict=True):
            variable.assign(value)
    estimate = Estimate.of(np.array(draws))
    weights = weights_fingerprint([np.array(weight) for weight in model.get_weights()])
    return Losses(estimate.mean, inference, estimate.noise or 0.0, len(draws), weights)


def _mean(model: Any, batches: list[Any], training: bool) -> float:
    losses: list[float] = []
    rows: list[float] = []
    for batch in batches:
        x, y, weight = keras.utils.unpack_x_y_sample_weight(batch)
        y_pred = model(x, training=training) if model._call_has_training_arg else model(x)
        loss = model.compute_loss(
            x=x, y=_tensors(y), y_pred=y_pred, sample_weight=_tensors(weight), training=training
        )
        losses.append(float(keras.ops.convert_to_numpy(loss)))
        rows.append(float(len(keras.tree.flatten(x)[0])))
    return Mean.of(losses, rows).result


def _tensors(data: Any) -> Any:
    return None if data is None else keras.tree.map_structure(keras.ops.convert_to_tensor, data)
