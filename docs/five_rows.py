import keras
import numpy as np

import lossledger

# One weight, 1. Its squared errors on the five rows are 1, 1, 4, 4 and 9.
x = np.array([[1.0], [2.0], [3.0], [4.0], [5.0]])
y = x - [[1.0], [1.0], [2.0], [2.0], [3.0]]


def model(loss="mse", rate=0.0, extra=(), **options):
    keras.utils.set_random_seed(0)
    dense = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones", **options)
    model = keras.Sequential([keras.Input((1,)), *extra, dense])
    model.compile(keras.optimizers.SGD(rate), loss)
    return model


def fit(name, model, x=x, y=y, **options):
    with lossledger.record("runs", name=name):
        model.fit(x, y, **{"batch_size": 2, "shuffle": False, "verbose": 0, **options})


def why(a, b, **options):
    found = lossledger.reconcile(a, b, **options)
    for each in found.causes:
        print(f"{each.amount:+.6f}  {each.cause} ({each.kind})")
    if abs(found.unexplained) > 1e-6:
        part = found.divergence.cause
        print(f"{found.unexplained:+.6f}  unexplained; they part by {part}")
    print(f"{found.gap:+.6f}  = {found.b.value:.6f} - {found.a.value:.6f}")
