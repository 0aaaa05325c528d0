"""Ways to keep each step's loss of a Keras training, under `fit`."""

import sys
import tempfile
from pathlib import Path

import keras
import numpy as np
from common import SIZE, Found, Way, data, measure, parts, say

import lossledger

X, Y = data()


def model():
    """10 features, Dense 16, Dense 1; always the same first weights."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    head = layers.Dense(1, activation="sigmoid")
    made = keras.Sequential([keras.Input((10,)), layers.Dense(16, activation="relu"), head])
    made.compile(keras.optimizers.Adam(1e-3), "binary_crossentropy")
    return made


def fit(made, epochs, callbacks=()):
    """As every way trains."""
    made.fit(X, Y, SIZE, epochs, verbose=0, shuffle=False, callbacks=list(callbacks))


def truth():
    """The raw losses of two epochs, each batch's own."""
    made, losses = model(), []
    for _ in range(2):
        for part in parts():
            made.reset_metrics()
            losses.append(float(np.ravel(made.train_on_batch(X[part], Y[part]))[0]))
    return np.array(losses)


def plain():
    """Nothing is kept."""
    made = model()
    return Way("nothing recorded", lambda epochs: fit(made, epochs))


def ours(folder):
    """`lossledger.record`."""
    made, paths = model(), []

    def train(epochs):
        with lossledger.record(folder / "runs") as run:
            fit(made, epochs)
        paths.append(run.path)

    def values():
        return dict(enumerate(lossledger.open(paths[0]).losses()))

    return Way("lossledger.record", train, values, folder, "the step's own loss, and its batch")


class Deaverage(keras.callbacks.Callback):
    """What is passed around to get a batch's loss: the mean so far, undone."""

    def __init__(self):
        super().__init__()
        self.losses = []

    def on_epoch_begin(self, epoch, logs=None):
        """Keras begins its mean anew."""
        self.total = self.rows = 0.0

    def on_train_batch_end(self, batch, logs=None):
        """Mean times rows, less the same before."""
        rows = min(SIZE, len(X) - batch * SIZE)
        total = logs["loss"] * (self.rows + rows)
        self.losses.append((total - self.total) / rows)
        self.total, self.rows = total, self.rows + rows


def deaveraged():
    """The callback above."""
    made, kept = model(), []

    def train(epochs):
        callback = Deaverage()
        fit(made, epochs, [callback])
        kept.append(callback.losses)

    return Way(
        "a callback that de-averages logs",
        train,
        lambda: dict(enumerate(kept[0])),
        None,
        "in memory",
    )


def tensorboard(folder):
    """Keras's TensorBoard callback, every batch."""
    made, logs = model(), []

    def train(epochs):
        logs.append(folder / str(len(logs)))
        callback = keras.callbacks.TensorBoard(str(logs[-1]), update_freq=1, write_graph=False)
        fit(made, epochs, [callback])

    def values():
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        from tensorboard.util.tensor_util import make_ndarray

        read = EventAccumulator(str(logs[0] / "train"), size_guidance={"tensors": 0})
        read.Reload()
        events = read.Tensors("batch_loss")
        return {k: float(make_ndarray(e.tensor_proto)) for k, e in enumerate(events)}

    return Way("TensorBoard, update_freq=1", train, values, folder, "running means")


def mlflow_every_step(folder):
    """MLflow's autologging, every step, into SQLite."""
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    made, runs = model(), []

    def train(epochs):
        mlflow.autolog(disable=True, silent=True)
        callback = mlflow.keras.MlflowCallback(log_every_epoch=False, log_every_n_steps=1)
        with mlflow.start_run() as run:
            fit(made, epochs, [callback])
        runs.append(run.info.run_id)

    def values():
        client = mlflow.MlflowClient()
        history = client.get_metric_history(runs[0], "loss")
        return {k: m.value for k, m in enumerate(sorted(history, key=lambda m: m.step))}

    return Way("MLflow, every step", train, values, folder, "running means")


def wandb_offline(folder):
    """W&B's callback, every batch, offline."""
    import wandb
    from wandb.integration.keras import WandbMetricsLogger

    made, seen = model(), []

    def train(epochs):
        run = wandb.init(project="peers", dir=str(folder), mode="offline", reinit="finish_previous")
        if not seen:
            seen.append(heard(wandb))
        fit(made, epochs, [WandbMetricsLogger(log_freq="batch")])
        run.finish()

    return Way("W&B offline, log_freq=batch", train, lambda: seen[0], folder, "running means")


def heard(wandb):
    """What the callback logs of this run, by step: its file has no public reader."""
    kept, log = {}, wandb.log

    def logged(values, *arguments, **more):
        if "batch/loss" in values:
            kept[int(values["batch/batch_step"])] = float(values["batch/loss"])
        return log(values, *arguments, **more)

    wandb.log = logged  # until the next run begins
    return kept


def main() -> None:
    """Measures all of them on one backend."""
    rounds, epochs = int(sys.argv[1]), int(sys.argv[2])
    backend = keras.backend.backend()
    if backend == "torch":
        import torch

        torch.set_num_threads(1)  # as in `network.py`
    found = Found(f"Keras {keras.__version__} on {backend}: `fit`")
    package = {"tensorflow": "tensorflow-cpu"}.get(backend, backend)
    found.with_versions(package, "tensorboard", "mlflow", "wandb")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ways = [plain(), deaveraged()]
        for make in (ours, tensorboard, mlflow_every_step, wandb_offline):
            own = folder / make.__name__
            own.mkdir()
            try:
                ways.append(make(own))
            except Exception as error:
                found.left_out[make.__name__] = repr(error)[:200]
        measure(found, ways, truth(), rounds, epochs)
    say(found)


if __name__ == "__main__":
    main()
