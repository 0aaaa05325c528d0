"""Evaluates a live model in both modes, and leaves it as it was."""

from collections.abc import Mapping
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
        weighed: The same with the class weights of the training; `training` without any.
        inference: In inference mode, as `evaluate` computes it.
        evaluated: The same in the batches of the evaluation.
        noise: How far chance alone takes `training` (`lossledger.chance`); 0.0 where each draw is
            the same.
        draws: How often `training` was measured.
        weights: The fingerprint of the weights.
    """

    training: float
    weighed: float
    inference: float
    evaluated: float
    noise: float
    draws: int
    weights: str | None


def losses_of(
    model: Any,
    x: Any,
    y: Any,
    sample_weight: Any,
    sizes: tuple[int, int],
    class_weight: Mapping[str, float] | None = None,
) -> Losses:
    """Measures a compiled model; each batch's loss weighs by its rows.

    Args:
        model: A compiled `keras.Model`.
        x: Inputs, arrays or a structure of them.
        y: Targets.
        sample_weight: Sample weights, or `None`.
        sizes: Rows of a batch in training, on which batch normalization depends, and in the
            evaluation.
        class_weight: Those of the training, by the class.
    """
    data = (x, y) if sample_weight is None else (x, y, sample_weight)
    batches, evaluated = (_batches(data, size) for size in sizes)
    weighed = _batches((x, y, _weights(y, class_weight)), sizes[0]) if class_weight else batches
    variables = [*model.non_trainable_variables, *model.metrics_variables]
    before = [np.array(keras.ops.convert_to_numpy(each.value)) for each in variables]
    try:
        inference = _mean(model, batches, False)
        other = inference if sizes[0] == sizes[1] else _mean(model, evaluated, False)
        draws = _draws(model, batches)
        own = _draws(model, weighed) if class_weight else draws
    finally:
        for variable, value in zip(variables, before, strict=True):
            variable.assign(value)
    estimate = Estimate.of(np.array(draws))
    weights = weights_fingerprint([np.array(weight) for weight in model.get_weights()])
    mean, noise = estimate.mean, estimate.noise or 0.0
    return Losses(mean, float(np.mean(own)), inference, other, noise, len(draws), weights)


def _batches(data: Any, size: int) -> list[Any]:
    rows = len(keras.tree.flatten(data)[0])
    return [
        keras.tree.map_structure(lambda part, at=at: np.asarray(part)[at : at + size], data)
        for at in range(0, rows, size)
    ]


def _weights(y: Any, class_weight: Mapping[str, float]) -> Any:
    """Each row's weight, as Keras makes it of its class: a label, or the largest of one a class."""
    labels = np.asarray(y)
    classes = labels.argmax(-1) if labels.ndim > 1 and labels.shape[-1] > 1 else labels.round()
    classes = classes.reshape(labels.shape[:1]).astype(int)
    return np.array([class_weight.get(str(each), 1.0) for each in classes], "float32")


def _draws(model: Any, batches: list[Any]) -> list[float]:
    """The loss in training mode: once, or often where it draws random numbers."""
    draws = [_mean(model, batches, True)]
    if any(abs(_mean(model, batches, True) - draws[0]) > 1e-6 * abs(draws[0]) for _ in "12"):
        draws += [_mean(model, batches, True) for _ in range(DRAWS - 1)]
    return draws


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
