"""The models that are trained, their data, and how each is compiled."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np


def toy() -> tuple[Any, Any, Any, Any]:
    """A small network: 4,000 rows, 125 steps."""
    layers, rng = keras.layers, np.random.default_rng(0)
    model = keras.Sequential([keras.Input((10,)), layers.Dense(16, "relu"), layers.Dense(1)])
    x = rng.random((4000, 10), dtype="f4")
    return model, "mse", x, x.sum(1, keepdims=True)


def convnet() -> tuple[Any, Any, Any, Any]:
    """Two convolutions on 28 x 28: 640 rows, 20 steps."""
    layers, rng = keras.layers, np.random.default_rng(0)
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(16, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(10),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return model, loss, rng.random((640, 28, 28, 1), dtype="f4"), rng.integers(0, 10, 640)


def transformer() -> tuple[Any, Any, Any, Any]:
    """Two blocks of width 32 on 16 tokens: 640 rows, 20 steps."""
    layers, rng = keras.layers, np.random.default_rng(0)
    tokens = keras.Input((16,), dtype="int32")
    x = layers.Embedding(200, 32)(tokens)
    for _ in range(2):
        x = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 16)(x, x))
        x = layers.LayerNormalization()(x + layers.Dense(32)(layers.Dense(64, "relu")(x)))
    model = keras.Model(tokens, layers.Dense(5)(layers.GlobalAveragePooling1D()(x)))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return model, loss, rng.integers(0, 200, (640, 16)).astype("i4"), rng.integers(0, 5, 640)


MODELS: dict[str, Callable[[], tuple[Any, Any, Any, Any]]] = {
    "toy": toy,
    "convnet": convnet,
    "transformer": transformer,
}
SIZE = 32


def made(name: str, **compiled: Any) -> tuple[Any, Any, Any]:
    keras.utils.set_random_seed(0)
    model, loss, x, y = MODELS[name]()
    model.compile(keras.optimizers.Adam(1e-3), loss, **compiled)
    return model, x, y
