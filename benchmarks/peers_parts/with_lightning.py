"""PyTorch Lightning's `self.log(on_step=True)` with `log_every_n_steps=1`, into a CSV file."""

import logging

import lightning
import numpy as np
import torch
from common import SIZE, Way
from lightning.pytorch.loggers import CSVLogger
from network import LOSS, RATE, X, Y, compare, network

for library in ("lightning.pytorch", "lightning.fabric"):
    logging.getLogger(library).setLevel(logging.ERROR)


class Module(lightning.LightningModule):
    """The network, which logs its loss or doesn't."""

    def __init__(self, *, logs):
        super().__init__()
        self.net, self.logs = network(), logs

    def training_step(self, batch, _):
        loss = LOSS(self.net(batch[0]), batch[1])
        if self.logs:
            self.log("loss", loss, on_step=True, on_epoch=False)
        return loss

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=RATE)


def training(module, logger):
    """What trains it; `logger()` is asked for a logger each time."""
    rows = torch.utils.data.TensorDataset(X, Y)

    def train(epochs):
        trainer = lightning.Trainer(
            max_epochs=epochs,
            logger=logger(),
            log_every_n_steps=1,
            accelerator="cpu",
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, torch.utils.data.DataLoader(rows, SIZE))

    return train


def ways(folder):
    """Without a logger, and with one that has a new version for each training."""

    def values():
        table = np.genfromtxt(folder / "version_0/metrics.csv", delimiter=",", names=True)
        return dict(zip(table["step"].astype(int).tolist(), table["loss"].tolist(), strict=True))

    logged = training(Module(logs=True), lambda: CSVLogger(folder, name=""))
    name = "self.log(on_step=True), log_every_n_steps=1"
    return [
        Way("nothing recorded", training(Module(logs=False), lambda: False)),
        Way(name, logged, values, folder, "CSVLogger"),
    ]


if __name__ == "__main__":
    compare(f"PyTorch Lightning {lightning.__version__}", ways)
