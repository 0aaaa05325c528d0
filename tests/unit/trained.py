"""Small trainings in plain numpy, recorded as lossledger records them: no Keras is needed."""

import hashlib

import numpy as np
import pytest
from made import Made

RNG = np.random.default_rng(3)
X = RNG.random((70, 3))
Y = RNG.random(70)
ROWS = np.array([32.0, 32.0, 6.0])
"""Those of its batches."""


def causes(result):
    """Amounts by cause and kind; all that is left is rounding."""
    assert abs(result.unexplained) <= 1e-6 * max(abs(result.a.value), abs(result.b.value))
    return {(each.cause, each.kind): each.amount for each in result.causes}


def close(found, wanted):
    """The same causes, of the same amounts."""
    assert set(found) == set(wanted)
    assert found == pytest.approx(wanted, rel=2e-6, abs=1e-6)


def batch_id(x, y):
    """A multiset fingerprint of a batch: two 32-bit lanes, sums over its rows modulo 2^32."""
    pairs = zip(x, y, strict=True)
    rows = [hashlib.blake2b(np.append(*pair).tobytes(), digest_size=8).digest() for pair in pairs]
    lanes = np.frombuffer(b"".join(rows), "<u4").reshape(-1, 2).sum(0, dtype="u8") % 2**32
    return int(lanes[0]) << 32 | int(lanes[1]) or 1


def batches(count, size, drop=False):
    return [
        slice(at, min(at + size, count))
        for at in range(0, count, size)
        if not drop or at + size <= count
    ]


def sgd(
    x=X,
    y=Y,
    *,
    rate=0.1,
    size=32,
    epochs=2,
    drop=False,
    seed=0,
    order=None,
    penalty=0.0,
    weight=None,
    noise=None,
    reduction="mean",
    kind="mse",
):
    """Trains a linear model; returns entries by column, and its first and last weights.

    Args:
        x: (rows, 3).
        y: (rows,).
        rate: The learning rate.
        size: Rows of a batch.
        epochs: How many.
        drop: Whether the remainder is dropped.
        seed: Of the initial weights.
        order: A function from the epoch to a permutation of the rows.
        penalty: Of `penalty * sum(weights ** 2)`.
        weight: (rows,), sample weights.
        noise: A generator that scales each prediction, as dropout does.
        reduction: `mean`, or `sum`.
        kind: `mse` or `mae`.
    """
    theta = np.random.default_rng(seed).normal(size=3)
    first = theta.copy()
    found = {name: [] for name in ("epoch", "loss", "rows", "penalty", "batch_id", "sample_weight")}
    for epoch in range(epochs):
        rows = np.arange(len(x)) if order is None else order(epoch)
        for part in batches(len(x), size, drop):
            bx, by = x[rows[part]], y[rows[part]]
            w = np.ones(len(bx)) if weight is None else weight[rows[part]]
            scale = 1.0 if noise is None else noise.random(len(bx)) * 2
            losses, slope = linear_loss(theta, bx, by, w, scale, kind)
            divisor = len(bx) if reduction == "mean" else 1
            extra = penalty * float(theta @ theta)
            found["epoch"].append(epoch)
            found["loss"].append(losses.sum() / divisor + extra)
            found["rows"].append(len(bx))
            found["penalty"].append(extra)
            found["batch_id"].append(batch_id(bx, by))
            found["sample_weight"].append(w.sum())
            theta = theta - rate * (slope / divisor + 2 * penalty * theta)
    columns = {name: np.array(column) for name, column in found.items()}
    columns["batch_id"] = np.array(found["batch_id"], "u8")
    if weight is None:
        del columns["sample_weight"]
    return columns, first, theta


def linear_loss(theta, x, y, weight, scale, kind):
    """The weighted loss of each row, and the gradient of their sum."""
    error = x @ theta * scale - y
    losses = error**2 if kind == "mse" else np.abs(error)
    slope = 2 * error if kind == "mse" else np.sign(error)
    return weight * losses, x.T @ (slope * weight * scale)


def hashed(weights):
    return hashlib.blake2b(weights.tobytes(), digest_size=16).hexdigest()


def configured(rate, kind="mse", reduction="mean", **_):
    """What a call says of such a model."""
    said = {"reduction": reduction} if reduction == "sum" else {}
    optimizer = {"class": "SGD", "learning_rate": rate}
    return {
        "loss": kind,
        "optimizer": optimizer,
        "layers": [{"class": "Dense", "units": 1}],
        **said,
    }


def recorded(
    directory, name="train", *, driver="fit", keras="3.15.1", info=None, shows=None, **training
):
    """Records such a training as one call; returns its run.

    Args:
        directory: The folder of runs.
        name: Its name.
        driver: What is said to have trained.
        keras: The version that is said to have.
        info: More of the call.
        shows: What its steps return in the place of their losses.
        training: As `sgd` takes it.
    """
    info = dict(info or {})
    columns, first, last = sgd(**training)
    rate = training.pop("rate", 0.1)
    arguments = {
        "x": {"shape": [len(training.get("x", X)), 3], "dtype": "float32"},
        "batch_size": training.get("size", 32),
        "shuffle": False,
        **info.pop("arguments", {}),
    }
    if driver != "fit":
        arguments = {}
    configuration = {**configured(rate, **training), **info.pop("configuration", {})}
    made = Made(directory, name, keras=keras)
    made.call(
        0,
        driver=driver,
        model=0,
        weight_kind="rows",
        arguments=arguments,
        configuration=configuration,
        initial_weights=hashed(first),
        final_weights=hashed(last),
        **info,
    )
    loss = columns.pop("loss")
    loss = loss if shows is None else np.array(shows)
    made.steps(
        loss,
        epoch=columns.pop("epoch"),
        weight=columns["rows"].astype("f8"),
        learning_rate=np.full(len(loss), rate),
        updated=np.ones(len(loss), bool),
        **columns,
    )
    return made.close()
