"""Loops that one would write for a backend without Keras's trainer."""

from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import numpy as np
from loop_parts.models import SIZE, made

Train = Callable[[int], None]


def by_hand(name: str) -> dict[str, Callable[[], Train]]:
    """What one would write for this backend without Keras's trainer: what makes it, by its name."""
    one = "by hand, a call a step"
    return {
        "jax": {
            one: partial(hand_jax, name, scan=False),
            "by hand, a scan an epoch": partial(hand_jax, name, scan=True),
        },
        "tensorflow": {
            one: partial(hand_tensorflow, name, jit=False),
            "by hand, XLA": partial(hand_tensorflow, name, jit=True),
        },
        "torch": {one: partial(hand_torch, name)},
    }[keras.backend.backend()]


def hand_jax(name: str, *, scan: bool) -> Train:
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
    lists = model.trainable_variables, model.non_trainable_variables, optimizer.variables
    state: Any = tuple([v.value for v in each] for each in lists)

    def train(epochs: int) -> None:
        nonlocal state
        for _ in range(epochs):
            order = np.random.permutation(len(x)).astype("i4").reshape(-1, SIZE)
            if scan:
                state, losses = many(state, order)
            else:
                losses = []
                for rows in order:
                    state, loss = one(state, rows)
                    losses.append(loss)
            np.mean(jax.device_get(losses))

    return train


def hand_tensorflow(name: str, *, jit: bool) -> Train:
    import tensorflow as tf

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


def hand_torch(name: str) -> Train:
    import torch

    model, x, y = made(name)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    device = next(model.parameters()).device
    xs, ys = torch.tensor(x, device=device), torch.tensor(y, device=device)
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

    return train
