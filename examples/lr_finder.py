"""Find a learning rate: raise it at every step, and watch the raw loss of each batch.

    KERAS_BACKEND=jax python examples/lr_finder.py

A running mean, which is all that `fit` shows, is still falling when the raw loss has long turned.
"""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import numpy as np
from sklearn.datasets import load_digits

import lossledger

STEPS = int(os.environ.get("STEPS", "80"))
LOW, HIGH = 1e-4, 10.0


def main() -> None:
    keras.utils.set_random_seed(1)
    images, digits = load_digits(return_X_y=True)
    images = (images / 16).astype("float32")
    model = keras.Sequential(
        [keras.Input((64,)), keras.layers.Dense(64, "relu"), keras.layers.Dense(10, "softmax")]
    )
    model.compile(keras.optimizers.SGD(LOW), "sparse_categorical_crossentropy")
    rates = np.geomspace(LOW, HIGH, STEPS)
    seen: list[tuple[float, float]] = []
    loop = lossledger.Loop(model, images, digits, batch_size=32, epochs=STEPS, verbose=0)
    for epoch in loop:
        for step in epoch:
            seen.append((float(rates[len(seen)]), step.loss))
            if len(seen) == STEPS or not step.loss < 4 * seen[0][1]:
                loop.stop = True
                break
            model.optimizer.learning_rate = rates[len(seen)]

    losses = np.convolve([loss for _, loss in seen], np.ones(3) / 3, mode="same")[1:-1]
    best = int(np.argmin(losses)) + 1
    for rate, loss in seen[:: max(1, len(seen) // 10)]:
        print(f"rate {rate:8.4f}   raw loss {loss:7.4f}")
    print(f"lowest near rate {seen[best][0]:.3g}; a tenth of it is a good start")


if __name__ == "__main__":
    main()
