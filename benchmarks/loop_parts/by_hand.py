"""Loops that one would write for a backend without Keras's trainer."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from loop_parts.models import SIZE, made


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
