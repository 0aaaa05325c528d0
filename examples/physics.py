"""Physics-informed regression: a network that solves u'' = -u with u(0) = 0, u'(0) = 1.

    KERAS_BACKEND=torch python examples/physics.py

The solution is sin. A loss on the equation is written in `compute_loss`; `Loop` runs whole epochs
of it on the device and gives each step's raw loss, which a running mean would hide: it spans
several orders of magnitude.
"""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import numpy as np
from keras import ops

import lossledger

EPOCHS = int(os.environ.get("EPOCHS", "300"))
WIDTH = 24


class Oscillator(keras.Model):
    """u(t) = t + t^2 n(t): the conditions at 0 hold by construction."""

    def __init__(self) -> None:
        super().__init__()
        shapes = [(1, WIDTH), (WIDTH,), (WIDTH, 1)]
        names = ["inner", "shift", "outer"]
        self.inner, self.shift, self.outer = (
            self.add_weight(shape=shape, initializer="random_normal", name=name)
            for shape, name in zip(shapes, names, strict=True)
        )

    def call(self, t):
        n, first, second = self.derivatives(t)
        residual = (2 * n + 4 * t * first + t**2 * second) + (t + t**2 * n)
        return ops.concatenate([t + t**2 * n, residual], axis=1)

    def derivatives(self, t):
        """The network and its first two derivatives, for one layer of tanh."""
        h = ops.tanh(t @ self.inner + self.shift)
        slope = 1 - h**2
        outer = self.outer
        first = (slope * self.inner) @ outer
        second = (-2 * h * slope * self.inner**2) @ outer
        return h @ outer, first, second

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return ops.mean(y_pred[:, 1] ** 2)


def main() -> None:
    keras.utils.set_random_seed(1)
    times = np.linspace(0, 4, 256, dtype="float32")[:, None]
    model = Oscillator()
    model(times[:1])
    model.compile(keras.optimizers.Adam(1e-2))
    for epoch in lossledger.Loop(model, times, batch_size=64, epochs=EPOCHS, verbose=0):
        epoch.run()
        if epoch.number % max(1, EPOCHS // 6) == 0 or epoch.number == EPOCHS - 1:
            print(f"epoch {epoch.number:4d}   raw {epoch.losses[-1]:.3e}   mean {epoch.mean:.3e}")
    u = ops.convert_to_numpy(model(times))[:, :1]
    print(f"largest error against sin: {np.abs(u - np.sin(times)).max():.4f}")


if __name__ == "__main__":
    main()
