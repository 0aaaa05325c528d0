"""How fast `lossledger.Loop` is beside Keras's own ways and loops written by hand.

    python benchmarks/loop.py [tensorflow|jax|torch ...] [--markdown]

One process a backend. All ways train the same model on the same data, by turns: one epoch of each,
then again, so that a busy moment meets them all. The figure is the median over the rounds.
"""

import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
BACKENDS = ("tensorflow", "jax", "torch")
ROUNDS = 3
EPOCHS = {"toy": 20, "convnet": 3, "transformer": 5}
"""Epochs of a round; they share what a call of `fit`, or a loop, takes before its first step."""


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


def with_fit(name: str, **compiled: Any) -> Callable[[int], None]:
    model, x, y = made(name, **compiled)
    return lambda epochs: model.fit(x, y, batch_size=SIZE, epochs=epochs, verbose=0)


def with_train_on_batch(name: str) -> Callable[[int], None]:
    model, x, y = made(name)

    def train(epochs: int) -> None:
        for _ in range(epochs):
            order = np.random.permutation(len(x))
            for start in range(0, len(x), SIZE):
                rows = order[start : start + SIZE]
                model.train_on_batch(x[rows], y[rows])

    return train


def with_loop(name: str, *, stepping: bool = False) -> Callable[[int], None]:
    model, x, y = made(name)

    def train(epochs: int) -> None:
        loop = lossledger.Loop(model, x, y, batch_size=SIZE, epochs=epochs, verbose=0)
        if not stepping:
            loop.run()
            return
        for epoch in loop:
            for _ in epoch:
                pass

    return train


def recorded(train: Callable[[int], None], folder: str) -> Callable[[int], float]:
    """Training in a recording; what begins and ends a run is not timed."""

    def timed(epochs: int) -> float:
        with lossledger.record(folder):
            train(1)
            began = time.perf_counter()
            train(epochs)
            return time.perf_counter() - began

    return timed


def by_hand(name: str) -> dict[str, Callable[[int], None]]:
    """What one would write for this backend without Keras's trainer."""
    return {"jax": hand_jax, "tensorflow": hand_tensorflow, "torch": hand_torch}[
        keras.backend.backend()
    ](name)


def hand_jax(name: str) -> dict[str, Callable[[int], None]]:
    import jax
    import jax.numpy as jnp

    model, x, y = made(name)
    optimizer, loss_of = model.optimizer, keras.losses.get(model.loss)
    optimizer.build(model.trainable_variables)
    xs, ys = jnp.array(x), jnp.array(y)

    def step(state: Any, rows: Any) -> Any:
        weights, others, moments = state

        def loss(weights: Any) -> Any:
            outputs, new = model.stateless_call(weights, others, xs[rows], training=True)
            return jnp.mean(loss_of(ys[rows], outputs)), new

        (value, others), gradients = jax.value_and_grad(loss, has_aux=True)(weights)
        weights, moments = optimizer.stateless_apply(moments, gradients, weights)
        return (weights, others, moments), value

    one = jax.jit(step, donate_argnums=0)
    many = jax.jit(lambda state, order: jax.lax.scan(step, state, order), donate_argnums=0)

    def fresh() -> Any:
        lists = model.trainable_variables, model.non_trainable_variables, optimizer.variables
        return tuple([jnp.copy(v.value) for v in each] for each in lists)

    states = {"steps": fresh(), "scan": fresh()}

    def order() -> Any:
        return np.random.permutation(len(x)).astype("i4").reshape(-1, SIZE)

    def steps(epochs: int) -> None:
        for _ in range(epochs):
            losses = []
            for rows in order():
                states["steps"], loss = one(states["steps"], rows)
                losses.append(loss)
            np.mean(jax.device_get(losses))

    def scan(epochs: int) -> None:
        for _ in range(epochs):
            states["scan"], losses = many(states["scan"], order())
            np.mean(np.asarray(losses))

    return {"by hand, a call a step": steps, "by hand, a scan an epoch": scan}


def hand_tensorflow(name: str) -> dict[str, Callable[[int], None]]:
    import tensorflow as tf

    def loop(jit: bool) -> Callable[[int], None]:
        model, x, y = made(name)
        optimizer, loss_of = model.optimizer, keras.losses.get(model.loss)
        optimizer.build(model.trainable_variables)
        data = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(len(x))
        data = data.batch(SIZE, drop_remainder=True).prefetch(2)

        @tf.function(jit_compile=jit)
        def step(x: Any, y: Any) -> Any:
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(loss_of(y, model(x, training=True)))
            weights = model.trainable_variables
            optimizer.apply(tape.gradient(loss, weights), weights)
            return loss

        def train(epochs: int) -> None:
            for _ in range(epochs):
                losses = [step(*batch) for batch in data]
                float(tf.reduce_mean(losses))

        return train

    return {"by hand, a call a step": loop(False), "by hand, XLA": loop(True)}


def hand_torch(name: str) -> dict[str, Callable[[int], None]]:
    import torch

    model, x, y = made(name)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    xs, ys = torch.tensor(x), torch.tensor(y)
    loss_of = torch.nn.functional.mse_loss if name == "toy" else torch.nn.functional.cross_entropy

    def train(epochs: int) -> None:
        for _ in range(epochs):
            losses = []
            for rows in torch.randperm(len(xs)).split(SIZE):
                optimizer.zero_grad()
                loss = loss_of(model(xs[rows], training=True), ys[rows])
                loss.backward()
                optimizer.step()
                losses.append(loss.detach())
            float(torch.stack(losses).mean())

    return {"by hand, a call a step": train}


def ways(name: str, folder: str) -> dict[str, Callable[[int], Any]]:
    torch = keras.backend.backend() == "torch"
    keras_ways = {"`fit`": with_fit(name), "`train_on_batch`": with_train_on_batch(name)}
    if not torch:
        keras_ways["`fit`, 32 steps an execution"] = with_fit(name, steps_per_execution=32)
        keras_ways["`fit`, `jit_compile=True`"] = with_fit(name, jit_compile=True)
    return {
        **keras_ways,
        **by_hand(name),
        "`Loop`": with_loop(name),
        "`Loop`, recorded": recorded(with_loop(name), folder),
        "`Loop`, a step at a time": with_loop(name, stepping=True),
    }


def timed(train: Callable[[int], Any], epochs: int) -> float:
    began = time.perf_counter()
    own = train(epochs)
    took = own if isinstance(own, float) else time.perf_counter() - began
    return took / epochs


def measure(name: str, folder: str) -> tuple[dict[str, float], dict[str, float]]:
    """Microseconds a step, and seconds of the first epoch, by way."""
    steps = {"toy": 125}.get(name, 20)
    trained = ways(name, folder)
    first = {way: timed(train, 1) for way, train in trained.items()}
    # A loop settles on its plan while it trains; what `fit` compiles, it has by now.
    for way, train in trained.items():
        if "Loop" in way:
            train(150 if name == "toy" else 30)
    rounds = [
        {way: timed(train, EPOCHS[name]) / steps * 1e6 for way, train in trained.items()}
        for _ in range(ROUNDS)
    ]
    return {way: statistics.median(each[way] for each in rounds) for way in trained}, first


def main() -> None:
    import tempfile

    names = [name for name in sys.argv[1:] if name in MODELS] or list(MODELS)
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            took, first = measure(name, folder)
        print(f"| {keras.backend.backend()}, {name} | us a step | first epoch, s |")
        print("| --- | ---: | ---: |")
        for way, us in took.items():
            print(f"| {way} | {us:,.1f} | {first[way]:.2f} |")
        own = min(us for way, us in took.items() if way.startswith("`fit") or "on_batch" in way)
        loop, stepping = took["`Loop`"], took["`Loop`, a step at a time"]
        print(
            f"\n`Loop` is {took['`fit`'] / loop:.1f} x `fit`, "
            f"{took['`train_on_batch`'] / loop:.1f} x `train_on_batch`, "
            f"{own / loop:.2f} x the best of Keras's own; a step at a time it is "
            f"{took['`train_on_batch`'] / stepping:.1f} x `train_on_batch`.\n",
            flush=True,
        )


if __name__ == "__main__":
    if "KERAS_BACKEND" not in os.environ:
        chosen = [name for name in sys.argv[1:] if name in BACKENDS] or BACKENDS
        rest = [name for name in sys.argv[1:] if name not in BACKENDS]
        for backend in chosen:
            environment = {**os.environ, "KERAS_BACKEND": backend}
            subprocess.run([sys.executable, __file__, *rest], env=environment, check=True)
    else:
        warnings.simplefilter("ignore")
        import keras
        import numpy as np

        import lossledger

        main()
