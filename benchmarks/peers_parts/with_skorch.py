"""skorch's History, which keeps every batch's loss, beside one that keeps none."""

import skorch
import torch
from common import SIZE, Way
from network import RATE, X, Y, compare, network


class Deaf(skorch.history.History):
    """Keeps no batch."""

    def record_batch(self, attr, value):
        pass


class Quiet(skorch.NeuralNet):
    """Tells its callbacks of no batch."""

    def on_batch_end(self, *arguments, **more):
        pass


def made(kind, **more):
    """The network in a net of skorch's."""
    net = kind(
        network,
        criterion=torch.nn.BCEWithLogitsLoss,
        optimizer=torch.optim.Adam,
        lr=RATE,
        batch_size=SIZE,
        train_split=None,
        verbose=0,
        iterator_train__shuffle=False,
        **more,
    )
    return net.initialize()


def plain():
    """Neither history nor callbacks."""
    net = made(Quiet, callbacks="disable")
    net.history_ = Deaf()
    return Way("nothing recorded", lambda epochs: net.partial_fit(X, Y, epochs=epochs))


def history():
    """As skorch trains."""
    net, first = made(skorch.NeuralNet), []

    def train(epochs):
        net.partial_fit(X, Y, epochs=epochs)
        losses = net.history_[:, "batches", :, "train_loss"]
        if not first:
            first.extend(loss for epoch in losses for loss in epoch)
        net.history_.clear()

    return Way("History", train, lambda: dict(enumerate(first)), None, "in memory")


if __name__ == "__main__":
    compare(f"skorch {skorch.__version__}", lambda _: [plain(), history()])
