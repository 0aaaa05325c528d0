"""Trains in two processes at once, without and with a recording; leaves what came of it.

Usage: together.py FOLDER RANK PORT [PORT]
"""

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import lossledger

RNG = np.random.default_rng(0)
X = RNG.random((40, 3)).astype("float32")
Y = RNG.random((40, 1)).astype("float32")
BACKEND = keras.backend.backend()


def network():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((3,))
    hidden = keras.layers.Dense(4, activation="relu")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(1, kernel_regularizer="l2")(hidden))
    model.compile(keras.optimizers.SGD(0.1), "mse")
    return model


def fit(model, x, y, size):
    return model.fit(x, y, batch_size=size, epochs=2, shuffle=False, verbose=0).history["loss"]


def looped(start, fitted, reported, x, y, size):
    """A `Loop` does in each process what `fit` does."""
    model = network()
    model.set_weights(start)
    loop = lossledger.Loop(model, x, y, batch_size=size, epochs=2, shuffle=False, verbose=0)
    assert loop.run().history["loss"] == reported
    for a, b in zip(model.get_weights(), fitted.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def shares(rank):
    """Of each batch of 10 rows the one process trains on 7, the other on 3."""
    for start in range(0, 40, 10):
        yield slice(start, start + 7) if rank == 0 else slice(start + 7, start + 10)


def tensorflow(rank, ports):
    import tensorflow as tf

    addresses = [f"127.0.0.1:{port}" for port in ports]
    task = {"type": "worker", "index": rank}
    os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": addresses}, "task": task})
    strategy = tf.distribute.MultiWorkerMirroredStrategy()

    def train(record):
        # A loop as in TensorFlow's guides: under this strategy neither `fit` nor `train_on_batch`
        # of Keras 3.15 trains on CPUs.
        with strategy.scope():
            model = network()

        def replica(x, y):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((model(x) - y) ** 2)
                half = loss / 2
            gradients = tape.gradient(half, model.trainable_variables)
            model.optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
            return loss

        step = tf.function(lambda x, y: strategy.run(replica, args=(x, y)))
        losses = []
        for rows in shares(rank):
            (loss,) = strategy.experimental_local_results(step(X[rows], Y[rows]))
            losses.append(float(loss))
            if record is not None:
                record.step(loss, rows=len(X[rows]))
        return model, losses

    return train


def jax(rank, ports):
    import jax

    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{ports[0]}", 2, rank)
    distribution = keras.distribution.DataParallel(auto_shard_dataset=False)
    keras.distribution.set_distribution(distribution)

    def train(record):
        del record
        model = network()
        # Each process gives its own rows of every batch.
        own = np.concatenate([np.arange(k + 4 * rank, k + 4 * rank + 4) for k in range(0, 40, 8)])
        start = model.get_weights()
        reported = fit(model, X[own], Y[own], 4)
        looped(start, model, reported, X[own], Y[own], 4)
        return model, reported

    return train


def torch(rank, ports):
    import torch.distributed
    from torch.nn.parallel import DistributedDataParallel

    store = {"init_method": f"tcp://127.0.0.1:{ports[0]}", "rank": rank, "world_size": 2}
    torch.distributed.init_process_group("gloo", **store)

    def train(record):
        model = network()
        wrapped = DistributedDataParallel(model)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        losses = []
        for rows in shares(rank):
            x, y = (torch.from_numpy(each[rows]) for each in (X, Y))
            loss = torch.mean((wrapped(x) - y) ** 2)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
            if record is not None:
                record.step(loss, rows=len(x))
        own = slice(0, 20) if rank == 0 else slice(20, 40)
        start = model.get_weights()
        reported = fit(model, X[own], Y[own], 8)
        looped(start, model, reported, X[own], Y[own], 8)
        return model, [*losses, *reported]

    return train


def main(folder, rank, ports):
    train = {"tensorflow": tensorflow, "jax": jax, "torch": torch}[BACKEND](rank, ports)
    plain, before = train(None)
    with lossledger.record(folder / "runs", name="together") as record:
        recorded, after = train(record)
    assert before == after
    weights = [model.get_weights() for model in (plain, recorded)]
    for a, b in zip(*weights, strict=True):
        np.testing.assert_array_equal(a, b)
    np.savez(folder / f"left-{rank}.npz", *weights[0])
    report = {"reported": after, "run": str(record.path), "warnings": record.trouble.told}
    (folder / f"left-{rank}.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), [int(each) for each in sys.argv[3:]])
