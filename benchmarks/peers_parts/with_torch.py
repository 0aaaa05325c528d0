"""Ways to keep each step's loss in PyTorch's training libraries."""

import logging
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from common import SIZE, Found, Way, data, measure, parts, say

torch.set_num_threads(1)  # the network is small: more threads only wait for each other
X, Y = (torch.from_numpy(array) for array in data())
LOSS = torch.nn.functional.binary_cross_entropy_with_logits


def network():
    """10 features, 16, 1; always the same first weights."""
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(10, 16), torch.nn.ReLU(), torch.nn.Linear(16, 1))


def truth():
    """The raw losses of two epochs, by a plain loop."""
    net = network()
    steps, losses = torch.optim.Adam(net.parameters(), lr=1e-3), []
    for _ in range(2):
        for part in parts():
            loss = LOSS(net(X[part]), Y[part])
            steps.zero_grad()
            loss.backward()
            steps.step()
            losses.append(loss.item())
    return np.array(losses)


def lightning(rounds, epochs):
    """`self.log(on_step=True)` with `log_every_n_steps=1`, into a CSV file."""
    import lightning as L
    from lightning.pytorch.loggers import CSVLogger

    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)

    class Module(L.LightningModule):
        def __init__(self, logs):
            super().__init__()
            self.net, self.logs = network(), logs

        def training_step(self, batch, _):
            loss = LOSS(self.net(batch[0]), batch[1])
            if self.logs:
                self.log("loss", loss, on_step=True, on_epoch=False)
            return loss

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), lr=1e-3)

    rows = torch.utils.data.TensorDataset(X, Y)
    found = Found(f"PyTorch Lightning {L.__version__}")

    def way(name, folder):
        module, done = Module(folder is not None), []

        def train(epochs):
            logger = CSVLogger(folder, version=len(done)) if folder else False
            trainer = L.Trainer(
                max_epochs=epochs,
                logger=logger,
                log_every_n_steps=1,
                accelerator="cpu",
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            )
            trainer.fit(module, torch.utils.data.DataLoader(rows, SIZE))
            done.append(trainer)

        def values():
            (file,) = Path(folder).rglob("version_0/metrics.csv")
            table = np.genfromtxt(file, delimiter=",", names=True)
            return {
                int(step): float(loss)
                for step, loss in zip(table["step"], table["loss"], strict=True)
            }

        return Way(
            name, train, values if folder else None, folder, "" if not folder else "CSVLogger"
        )

    with tempfile.TemporaryDirectory() as folder:
        ways = [
            way("nothing recorded", None),
            way("self.log(on_step=True), log_every_n_steps=1", Path(folder)),
        ]
        measure(found, ways, truth(), rounds, epochs)
    return found


def skorch(rounds, epochs):
    """Its History keeps every batch's loss; against one that keeps none."""
    import skorch
    from skorch import NeuralNet
    from skorch.history import History

    class Deaf(History):
        def record_batch(self, attr, value):
            pass

    class Quiet(NeuralNet):
        def on_batch_end(self, *arguments, **more):
            pass

    def way(name, kind):
        net = kind(
            lambda: network(),
            criterion=torch.nn.BCEWithLogitsLoss,
            optimizer=torch.optim.Adam,
            lr=1e-3,
            batch_size=SIZE,
            train_split=None,
            callbacks=None if kind is NeuralNet else "disable",
            verbose=0,
            iterator_train__shuffle=False,
        )
        net.initialize()
        first = []
        if kind is Quiet:
            net.history_ = Deaf()

        def train(epochs):
            net.partial_fit(X, Y, epochs=epochs)
            if kind is NeuralNet and not first:
                losses = net.history_[:, "batches", :, "train_loss"]
                first.append([loss for epoch in losses for loss in epoch])
            if kind is NeuralNet:
                net.history_.clear()

        kept = None if kind is Quiet else (lambda: dict(enumerate(first[0])))
        return Way(name, train, kept, None, "in memory" if kept else "")

    found = Found(f"skorch {skorch.__version__}")
    ways = [way("nothing recorded", Quiet), way("History", NeuralNet)]
    measure(found, ways, truth(), rounds, epochs)
    return found


def trainer(rounds, epochs):
    """Hugging Face's Trainer, `logging_steps=1`."""
    import transformers
    from transformers import Trainer, TrainingArguments

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = network()

        def forward(self, x=None, labels=None):
            logits = self.net(x)
            return {"loss": LOSS(logits, labels), "logits": logits}

    class Rows(torch.utils.data.Dataset):
        def __len__(self):
            return len(X)

        def __getitem__(self, k):
            return {"x": X[k], "labels": Y[k]}

    class InOrder(Trainer):
        def _get_train_sampler(self, *_):
            return torch.utils.data.SequentialSampler(self.train_dataset)

    found = Found(f"transformers {transformers.__version__}: `Trainer`")

    def way(name, folder, strategy):
        model, first = Model(), []

        def train(epochs):
            arguments = TrainingArguments(
                output_dir=str(folder),
                per_device_train_batch_size=SIZE,
                num_train_epochs=epochs,
                learning_rate=1e-3,
                lr_scheduler_type="constant",
                max_grad_norm=0,
                logging_strategy=strategy,
                logging_steps=1,
                save_strategy="no",
                report_to=[],
                disable_tqdm=True,
                use_cpu=True,
            )
            work = InOrder(model, arguments, train_dataset=Rows())
            for callback in (transformers.PrinterCallback,):
                work.remove_callback(callback)
            work.train()
            work.save_state()
            if not first:
                first.append([e for e in work.state.log_history if "loss" in e])

        kept = (
            (lambda: {e["step"] - 1: e["loss"] for e in first[0]}) if strategy == "steps" else None
        )
        return Way(
            name, train, kept, folder if kept else None, "trainer_state.json" if kept else ""
        )

    with tempfile.TemporaryDirectory() as name:
        folders = [Path(name, "a"), Path(name, "b")]
        ways = [
            way("nothing recorded", folders[0], "no"),
            way("logging_steps=1", folders[1], "steps"),
        ]
        measure(found, ways, truth(), rounds, epochs)  # AdamW without decay is Adam
    return found


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    library = {"lightning": lightning, "skorch": skorch, "trainer": trainer}[sys.argv[3]]
    say(library(int(sys.argv[1]), int(sys.argv[2])).with_versions("torch"))
