"""Hugging Face's Trainer, with `logging_steps=1`."""

import torch
import transformers
from common import SIZE, Way
from network import LOSS, RATE, X, Y, compare, network


class Model(torch.nn.Module):
    """The network as the Trainer calls one."""

    def __init__(self):
        super().__init__()
        self.net = network()

    def forward(self, x=None, labels=None):
        logits = self.net(x)
        return {"loss": LOSS(logits, labels), "logits": logits}


class Rows(torch.utils.data.Dataset):
    """The data by rows."""

    def __len__(self):
        return len(X)

    def __getitem__(self, k):
        return {"x": X[k], "labels": Y[k]}


class InOrder(transformers.Trainer):
    """Doesn't shuffle."""

    def _get_train_sampler(self, *_):
        return torch.utils.data.SequentialSampler(self.train_dataset)


def arguments(folder, epochs, strategy):
    """Nothing that it may leave; its AdamW, without decay, is Adam."""
    return transformers.TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=SIZE,
        num_train_epochs=epochs,
        learning_rate=RATE,
        lr_scheduler_type="constant",
        max_grad_norm=0,
        logging_strategy=strategy,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
    )


def way(name, folder, strategy, note=""):
    """A Trainer that logs each step, or none; both write the state of their training."""
    model, first = Model(), []

    def train(epochs):
        work = InOrder(model, arguments(folder, epochs, strategy), train_dataset=Rows())
        work.remove_callback(transformers.PrinterCallback)
        work.train()
        work.save_state()
        if not first:
            first.extend(each for each in work.state.log_history if "loss" in each)

    def values():
        return {each["step"] - 1: each["loss"] for each in first}

    return Way(name, train, values if strategy == "steps" else None, folder, note)


def ways(folder):
    """Those two."""
    return [
        way("nothing recorded", folder / "a", "no"),
        way("logging_steps=1", folder / "b", "steps", "trainer_state.json"),
    ]


if __name__ == "__main__":
    compare(f"transformers {transformers.__version__}: `Trainer`", ways)
