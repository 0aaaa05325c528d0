"""Whatever the data comes in: the same batches have the same losses and fingerprints."""

import keras
import numpy as np
import pytest

import lossledger

from .conftest import BACKEND, KERAS, X, Y, batches, network, raw_losses


def compiled():
    model = network()
    model.compile(keras.optimizers.SGD(0.1), "mse")
    return model


class Sequence(keras.utils.PyDataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        rows = batches(32)[index]
        return X[rows], Y[rows]


def generator():
    while True:
        for rows in batches(32):
            yield X[rows], Y[rows]


def dataset():
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(32)


def loader():
    import torch

    data = torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))
    return torch.utils.data.DataLoader(data, batch_size=32)


def grain_dataset():
    grain = pytest.importorskip("grain")
    source = grain.MapDataset.source(list(zip(X, Y, strict=True)))
    return source.batch(32, drop_remainder=False).to_iter_dataset()


SOURCES = {
    "numpy": lambda: {"x": X, "y": Y, "batch_size": 32, "shuffle": False},
    "float64": lambda: {"x": X.astype("f8"), "y": Y, "batch_size": 32, "shuffle": False},
    "tensors": lambda: {
        "x": keras.ops.convert_to_tensor(X),
        "y": keras.ops.convert_to_tensor(Y),
        "batch_size": 32,
        "shuffle": False,
    },
    "pydataset": lambda: {"x": Sequence(), "shuffle": False},
    "generator": lambda: {"x": generator(), "steps_per_epoch": 3},
    "tf.data": lambda: {"x": dataset()},
    "torch loader": lambda: {"x": loader()},
    "grain": lambda: {"x": grain_dataset()},
}


@pytest.mark.parametrize("source", SOURCES)
def test_sources(twins, source):
    if source == "grain" and KERAS < (3, 11):
        pytest.skip("Keras takes Grain's data sets from 3.11 on")

    def train():
        model = compiled()
        return model, model.fit(**SOURCES[source](), epochs=2, verbose=0).history

    result = twins(train)
    np.testing.assert_allclose(result.run.losses(), raw_losses(compiled, 32, 2), rtol=2e-6)
    np.testing.assert_array_equal(result.column("rows"), [32, 32, 6] * 2)
    assert result.column("batch_id").tolist() == [fingerprint(X[r], Y[r]) for r in batches(32)] * 2


def fingerprint(*leaves):
    """The documented formula, in exact Python integers."""
    columns = []
    for leaf in leaves:
        flat = leaf.reshape(len(leaf), -1)
        step = -(-flat.shape[1] // 64)
        flat = flat[:, step // 2 :: step] if step > 1 else flat
        kind = leaf.dtype.kind
        flat = flat.astype("f4").view("i4") if kind == "f" else flat.astype("i4")
        columns.append(flat)
    bits = np.concatenate([c[: min(map(len, columns))] for c in columns], axis=1)
    bits = bits ^ (bits >> 16)
    width = bits.shape[1]
    lanes = [0, 0]
    for row in bits.tolist():
        for lane in (0, 1):
            total = multiplier(2 * width + lane, width)
            total += sum(value * multiplier(2 * k + lane, width) for k, value in enumerate(row))
            total = signed(total)
            total = signed(total ^ (total >> 15))
            lanes[lane] += total * (total | 1)
    return (lanes[0] % 2**32) << 32 | lanes[1] % 2**32


def signed(value):
    return (value + 2**31) % 2**32 - 2**31


def multiplier(place, width):
    """MurmurHash3's finalizer of a column's number; the first two numbers are the constant's."""
    h = (place + 2) % (2 * (width + 1)) * 0x9E3779B1 % 2**32
    h = (h ^ h >> 16) * 0x85EBCA6B % 2**32
    h = (h ^ h >> 13) * 0xC2B2AE35 % 2**32
    return signed((h ^ h >> 16) | 1)


def test_fingerprint_of_wide_rows_and_integers(twins):
    rng = np.random.default_rng(1)
    x = rng.random((64, 10, 17)).astype("float32")
    y = rng.integers(0, 4, 64)

    def train():
        layers = [keras.Input((10, 17)), keras.layers.Flatten(), keras.layers.Dense(4)]
        model = keras.Sequential(layers)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("sgd", loss)
        return model, model.fit(x, y, batch_size=16, shuffle=False, verbose=0).history

    ids = twins(train).column("batch_id").tolist()
    rows = [slice(k, k + 16) for k in range(0, 64, 16)]
    assert ids == [fingerprint(x[r], y[r]) for r in rows]


def test_sequences_of_other_lengths_from_arrays_that_are_filled_again(twins):
    rng = np.random.default_rng(2)
    data = [rng.random((8, length, 17), dtype="float32") for length in (5, 7, 5, 9, 11, 7)]
    y = rng.random((8, 1), dtype="float32")
    weights = []

    def train():
        layers = [keras.Input((None, 17)), keras.layers.GlobalAveragePooling1D()]
        model = keras.Sequential([*layers, keras.layers.Dense(1)])
        model.compile(keras.optimizers.SGD(0.0), "mse")
        weights[:] = model.get_weights()
        buffers = {each.shape: np.empty_like(each) for each in data}
        for batch in data:
            x = buffers[batch.shape]
            x[:] = batch
            model.train_on_batch(x, y)
            x[:] = -1
        return model, None

    result = twins(train)
    assert result.column("batch_id").tolist() == [fingerprint(each, y) for each in data]
    kernel, bias = weights
    expected = [((each.mean(1) @ kernel + bias - y) ** 2).mean() for each in data]
    np.testing.assert_allclose(result.run.losses(), expected, rtol=1e-5)


@pytest.mark.skipif(BACKEND != "torch", reason="elsewhere nothing can write to a batch")
def test_a_batch_that_is_written_to_has_no_false_fingerprint(twins):
    class Doubling(keras.layers.Layer):
        def call(self, x):
            return x.mul_(2.0) if len(x) == 6 else 2.0 * x

    def train():
        model = keras.Sequential([keras.Input((3,)), Doubling(), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        return model, model.fit(X, Y, batch_size=16, shuffle=False, verbose=0).history

    ids = twins(train).column("batch_id").tolist()
    expected = [fingerprint(X[r], Y[r]) for r in batches(16)]
    assert ids == [*expected[:-1], 0]  # null


def test_fingerprints_ignore_order_and_add_up(twins):
    order = np.random.default_rng(2).permutation(70)

    def train():
        model = compiled()
        model.train_on_batch(X, Y)
        model.train_on_batch(X[order], Y[order])
        model.train_on_batch(X[order], Y)
        for rows in batches(32):
            model.train_on_batch(X[rows], Y[rows])
        return model, None

    ids = twins(train).column("batch_id").tolist()
    assert ids[0] == ids[1]
    assert ids[1] != ids[2]
    lanes = np.array([[i >> 32, i & 0xFFFFFFFF] for i in ids], dtype=object)
    assert (lanes[3:].sum(0) % 2**32 == lanes[0]).all()


def test_dictionaries_and_several_inputs(twins):
    def train():
        inputs = {name: keras.Input((3,), name=name) for name in "pq"}
        added = keras.layers.Add()([inputs["p"], inputs["q"]])
        model = keras.Model(inputs, keras.layers.Dense(1)(added))
        model.compile("sgd", "mse")
        data = {"p": X, "q": X[::-1].copy()}
        history = model.fit(data, Y, batch_size=32, shuffle=False, verbose=0)
        return model, history.history

    result = twins(train)
    expected = [fingerprint(X[r], X[::-1][r], Y[r]) for r in batches(32)]
    assert result.column("batch_id").tolist() == expected


@pytest.mark.skipif(BACKEND == "torch", reason="torch's Keras takes no batch of unequal leaves")
def test_inputs_and_targets_of_unequal_rows(twins):
    """Nothing of ours may fail where the user's step doesn't."""

    class Summed(keras.Model):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return keras.ops.mean(y_pred) ** 2 + keras.ops.mean(y)

    def train():
        model = network(cls=Summed)
        model.compile("sgd", "mse")

        def pairs():
            while True:
                yield X[:32], Y[:5]

        return model, model.fit(pairs(), steps_per_epoch=3, verbose=0).history

    assert len(twins(train).run.losses()) == 3


def test_what_evaluate_was_given_is_known_again(tmp_path):
    """Its rows add to the fingerprints of the batches that trained on them, in any order."""
    model = network()
    model.compile(keras.optimizers.SGD(0.1), "mse")
    labels = (Y[:, 0] > 0.5).astype("int64")
    with lossledger.record(tmp_path) as run:
        model.fit(X, labels, batch_size=32, verbose=0, validation_data=(X[:40], labels[:40]))
        model.evaluate(X, labels, verbose=0)
        model.evaluate(Sequence(), verbose=0)
        model.evaluate(X, labels, batch_size=8, steps=2, sample_weight=labels, verbose=0)
    result = lossledger.reconcile(run.path, f"{run.path}:val_loss")
    assert "have 40 rows, all of them among the training's 70" in result.verdict
    (call,) = lossledger.open(run.path).calls
    whole, none, part = [i["data"] for i in call.reported if i["place"] == "evaluate"]
    lanes = [int(each) for each in lossledger.open(run.path).entries()["batch_id"].to_pylist()]
    sums = [sum(each >> 32 for each in lanes), sum(each % 2**32 for each in lanes)]
    assert whole["batch_id"] == "".join(f"{each % 2**32:08x}" for each in sums)
    assert none == {"rows": 70}  # no arrays: what Keras counted
    assert (part["rows"], part["weighted"]) == (16, True)
