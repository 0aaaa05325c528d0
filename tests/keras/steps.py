"""Training steps that users write themselves, as the Keras guides show them, per backend."""

import keras
from keras import ops

from .conftest import BACKEND

if BACKEND == "tensorflow":
    import tensorflow as tf
elif BACKEND == "jax":
    import jax
else:
    import torch


def squared(y, y_pred):
    return ops.mean((y_pred - y) ** 2)


class Super(keras.Model):
    """Calls Keras's own step, as a subclass that only adds something does."""

    def train_step(self, *args):
        return super().train_step(*args)


class RenamedLog(keras.Model):
    """Returns the tracker's result under another key: Keras reports the last step's logs."""

    def train_step(self, *args):
        if BACKEND == "jax":
            logs, state = super().train_step(*args)
            return {"my_loss": logs["loss"]}, state
        return {"my_loss": super().train_step(*args)["loss"]}


class OwnLoss(keras.Model):
    """Overrides `compute_loss`; Keras's step does the rest."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return squared(y, y_pred)


class FromScratch(keras.Model):
    """A step of the user's: forward, gradient, update; subclasses say what is tracked."""

    key = "my_loss"

    def loss_of(self, x, y, y_pred):
        return squared(y, y_pred)

    def track(self, loss):
        return {self.key: loss}

    if BACKEND == "tensorflow":

        def train_step(self, data):
            x, y = data[:2]
            with tf.GradientTape() as tape:
                loss = self.loss_of(x, y, self(x, training=True))
            gradients = tape.gradient(loss, self.trainable_variables)
            self.optimizer.apply(gradients, self.trainable_variables)
            return self.track(loss)

    elif BACKEND == "torch":

        def train_step(self, data):
            x, y = data[:2]
            self.zero_grad()
            loss = self.loss_of(x, y, self(x, training=True))
            loss.backward()
            gradients = [v.value.grad for v in self.trainable_weights]
            with torch.no_grad():
                self.optimizer.apply(gradients, self.trainable_weights)
            return self.track(loss)

    else:

        def loss_and_updates(self, tv, ntv, x, y):
            y_pred, ntv = self.stateless_call(tv, ntv, x, training=True)
            return self.loss_of(x, y, y_pred), ntv

        def train_step(self, state, data):
            tv, ntv, ov, mv = state
            x, y = data[:2]
            gradient = jax.value_and_grad(self.loss_and_updates, has_aux=True)
            (loss, ntv), gradients = gradient(tv, ntv, x, y)
            tv, ov = self.optimizer.stateless_apply(ov, gradients, tv)
            logs, mv = self.stateless_track(loss, mv)
            return logs, (tv, ntv, ov, mv)

        def stateless_track(self, loss, mv):
            return self.track(loss), mv


class ComputesLoss(FromScratch):
    """Calls `compute_loss` and updates Keras's tracker, without a weight: each batch weighs one."""

    def loss_of(self, x, y, y_pred):
        return self.compute_loss(x=x, y=y, y_pred=y_pred)

    def track(self, loss):
        self._loss_tracker.update_state(loss)
        return {"loss": self._loss_tracker.result()}

    def stateless_track(self, loss, mv):
        metric = self._loss_tracker
        mv = metric.stateless_update_state(mv, loss)
        return {"loss": metric.stateless_result(mv)}, mv


class OwnTrackers(FromScratch):
    """Keeps means of its own and lists them in `metrics`, as the guides' VAE does."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.total = keras.metrics.Mean(name="total_loss")
        self.half = keras.metrics.Mean(name="half_loss")

    @property
    def metrics(self):
        return [self.half, self.total]

    def track(self, loss):
        self.half.update_state(loss / 2)
        self.total.update_state(loss)
        return {metric.name: metric.result() for metric in self.metrics}

    def stateless_track(self, loss, mv):
        half = self.half.stateless_update_state(mv[:2], loss / 2)
        total = self.total.stateless_update_state(mv[2:], loss)
        logs = {"half_loss": self.half.stateless_result(half)}
        return logs | {"total_loss": self.total.stateless_result(total)}, [*half, *total]


class NoLoss(FromScratch):
    """Shows its loss to nobody."""

    def track(self, loss):
        return {"score": 1 - loss}


class Gan(keras.Model):
    """Two networks, two optimizers, two means; TensorFlow and torch."""

    def __init__(self):
        super().__init__()
        self.generator = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
        self.critic = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        self.d_loss = keras.metrics.Mean(name="d_loss")
        self.g_loss = keras.metrics.Mean(name="g_loss")
        self.seed = keras.random.SeedGenerator(3)

    def compile(self, d_optimizer, g_optimizer):
        super().compile(optimizer=None)
        self.d_optimizer, self.g_optimizer = d_optimizer, g_optimizer

    @property
    def metrics(self):
        return [self.d_loss, self.g_loss]

    def call(self, x):
        return self.critic(x)

    def losses_of(self, x):
        noise = keras.random.normal((4, 2), seed=self.seed)
        fake = self.critic(self.generator(noise))
        real = self.critic(x)
        critic = ops.mean(ops.softplus(fake)) + ops.mean(ops.softplus(-real))
        return critic, ops.mean(ops.softplus(-fake))

    def train_step(self, data):
        x = data[0] if isinstance(data, tuple | list) else data
        turns = ((0, self.d_optimizer, self.critic), (1, self.g_optimizer, self.generator))
        for which, optimizer, network in turns:
            weights = network.trainable_weights
            if BACKEND == "tensorflow":
                with tf.GradientTape() as tape:
                    loss = self.losses_of(x)[which]
                optimizer.apply(tape.gradient(loss, weights), weights)
            else:
                self.zero_grad()
                loss = self.losses_of(x)[which]
                loss.backward()
                with torch.no_grad():
                    optimizer.apply([v.value.grad for v in weights], weights)
            self.metrics[which].update_state(loss)
        return {metric.name: metric.result() for metric in self.metrics}
