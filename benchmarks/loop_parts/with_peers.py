"""The loops of other libraries, on the same model: Orbit on TensorFlow, Lightning on PyTorch.

Each keeps the mean loss of an epoch in a metric, as `fit` does.
"""

import logging
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import keras
from loop_parts.models import SIZE, made

Train = Callable[[int], None]


def peers(name: str) -> dict[str, Callable[[], Train]]:
    """What makes the ways of this backend's peers, by their names."""
    ways: dict[str, dict[str, Callable[[], Train]]] = {
        "tensorflow": {
            "Orbit's `StandardTrainer`": partial(orbit, name, jit=None),
            "Orbit's, its step by XLA": partial(orbit, name, jit=True),
        },
        "torch": {"PyTorch Lightning": partial(lightning, name)},
    }
    return ways.get(keras.backend.backend(), {})


def orbit(name: str, *, jit: bool | None) -> Train:
    """`StandardTrainer`, whose loop of steps is a `tf.while_loop`."""
    import orbit
    import tensorflow as tf

    class Trainer(orbit.StandardTrainer):
        def __init__(self) -> None:
            self.model, x, y = made(name)
            self.steps = len(x) // SIZE
            self.loss_of, self.loss = keras.losses.get(self.model.loss), keras.metrics.Mean()
            self.model.optimizer.build(self.model.trainable_variables)
            self.step = tf.function(self.of_batch, jit_compile=jit)
            data = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(len(x)).repeat()
            super().__init__(data.batch(SIZE, drop_remainder=True).prefetch(2))

        def of_batch(self, x: Any, y: Any) -> Any:
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(self.loss_of(y, self.model(x, training=True)))
            weights = self.model.trainable_variables
            self.model.optimizer.apply(tape.gradient(loss, weights), weights)
            return loss

        def train_loop_begin(self) -> None:
            self.loss.reset_state()

        def train_step(self, iterator: Any) -> None:
            self.loss.update_state(self.step(*next(iterator)))

        def train_loop_end(self) -> Any:
            return {"loss": float(self.loss.result())}

    trainer = Trainer()

    def train(epochs: int) -> None:
        for _ in range(epochs):
            trainer.train(tf.constant(trainer.steps))

    return train


def lightning(name: str) -> Train:
    """`Trainer.fit` with nothing that it may leave: no logger, checkpoint, bar or summary."""
    import lightning
    import torch

    warnings.simplefilter("ignore")
    for each in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(each).setLevel(logging.ERROR)
    functional = torch.nn.functional
    loss_of = functional.mse_loss if name == "toy" else functional.cross_entropy

    class Module(lightning.LightningModule):
        def __init__(self, model: Any) -> None:
            super().__init__()
            self.model = model

        def training_step(self, batch: Any, _: int) -> Any:
            x, y = batch
            loss = loss_of(self.model(x, training=True), y)
            self.log("loss", loss, on_step=False, on_epoch=True)
            return loss

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters(), 1e-3)

    model, x, y = made(name)
    module = Module(model)
    rows = torch.utils.data.TensorDataset(torch.tensor(x), torch.tensor(y))

    def train(epochs: int) -> None:
        trainer = lightning.Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, torch.utils.data.DataLoader(rows, SIZE, shuffle=True))

    return train
