"""A GAN on handwritten digits: a loop over the real ones, another model trained inside its steps.

    KERAS_BACKEND=jax python examples/gan.py

`epoch.step` trains the critic on a batch made on the spot: real digits beside generated ones.
"""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import numpy as np
from sklearn.datasets import load_digits

import lossledger

EPOCHS = int(os.environ.get("EPOCHS", "3"))
NOISE, SIZE = 16, 64


def dense(sizes: list[int], last: str) -> keras.Model:
    layers = keras.layers
    body = [layers.Dense(size, "relu") for size in sizes[1:-1]]
    return keras.Sequential([keras.Input(sizes[:1]), *body, layers.Dense(sizes[-1], last)])


def main() -> None:
    keras.utils.set_random_seed(1)
    images = (load_digits().data / 16).astype("float32")
    generator, critic = dense([NOISE, 64, 64], "sigmoid"), dense([64, 64, 1], "sigmoid")
    critic.compile(keras.optimizers.Adam(1e-3), "binary_crossentropy")
    # The generator learns from a copy of the critic that doesn't learn.
    frozen = keras.models.clone_model(critic)
    frozen.trainable = False
    fooling = keras.Sequential([generator, frozen])
    fooling.compile(keras.optimizers.Adam(1e-3), "binary_crossentropy")

    noise = np.random.normal(size=(len(images), NOISE)).astype("float32")
    ones = np.ones((len(images), 1), "float32")
    both = np.repeat([[1.0], [0.0]], SIZE, axis=0).astype("float32")
    arguments = {"batch_size": SIZE, "epochs": EPOCHS, "verbose": 0}
    generated = lossledger.Loop(fooling, noise, ones, **arguments)
    judged = lossledger.Loop(critic, images, ones, **arguments)
    for fool, judge in zip(generated, judged, strict=True):
        for _ in fool:
            real = images[np.random.randint(len(images), size=SIZE)]
            fake = generator(np.random.normal(size=(SIZE, NOISE)).astype("float32"))
            judge.step(np.concatenate([real, keras.ops.convert_to_numpy(fake)]), both)
            frozen.set_weights(critic.get_weights())
        print(
            f"epoch {fool.number}   generator {fool.mean:.4f}   critic {judge.mean:.4f}   "
            f"(last raw losses {fool.losses[-1]:.4f}, {judge.losses[-1]:.4f})"
        )


if __name__ == "__main__":
    main()
