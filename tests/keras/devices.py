"""Trains on two devices of one process, without and with a recording; leaves what came of it."""

import json
import os
import sys
from pathlib import Path

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"

import jax
import keras
import numpy as np

import lossledger

RNG = np.random.default_rng(0)
X = RNG.random((72, 3)).astype("float32")
Y = RNG.random((72, 1)).astype("float32")


def data_parallel():
    return keras.distribution.DataParallel(devices=keras.distribution.list_devices())


def model_parallel():
    mesh = keras.distribution.DeviceMesh((1, 2), ["batch", "model"])
    layout = keras.distribution.LayoutMap(mesh)
    layout["dense.*kernel"] = (None, "model")
    layout["dense.*bias"] = ("model",)
    return keras.distribution.ModelParallel(layout_map=layout, batch_dim_name="batch")


def network():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((3,))
    hidden = keras.layers.Dense(4, activation="relu", name="dense")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(1, name="out")(hidden))
    model.compile(keras.optimizers.Adam(0.1), "mse")
    return model


def train():
    model = network()
    fit = model.fit(X, Y, batch_size=32, epochs=2, shuffle=False, verbose=0)
    batch = np.ravel(model.train_on_batch(X[:8], Y[:8]))[0].item()
    sharded = [str(getattr(v.value.sharding, "spec", "")) for v in model.trainable_variables]
    return model.get_weights(), fit.history["loss"], batch, sharded


def looped():
    """The same by a `Loop`, a step at a time and an epoch at once."""
    model = network()
    loop = lossledger.Loop(model, X, Y, batch_size=32, epochs=2, shuffle=False, verbose=0)
    losses = []
    for epoch in loop:
        losses += [step.loss for step in epoch] if epoch.number == 0 else [*epoch.run().losses]
    batch = np.ravel(model.train_on_batch(X[:8], Y[:8]))[0].item()
    sharded = [str(getattr(v.value.sharding, "spec", "")) for v in model.trainable_variables]
    return model.get_weights(), loop.history.history["loss"], batch, sharded, losses


def main(folder):
    assert len(jax.devices()) == 2
    left = {}
    for make in (data_parallel, model_parallel):
        keras.distribution.set_distribution(make())
        plain = train()
        unrecorded = looped()
        with lossledger.record(folder, name=make.__name__) as run:
            recorded, loop = train(), looped()
        for other in (recorded, unrecorded, loop):
            assert plain[1:4] == other[1:4]
            for a, b in zip(plain[0], other[0], strict=True):
                np.testing.assert_array_equal(a, b)
        assert unrecorded[4] == loop[4]
        left[make.__name__] = {
            "reported": recorded[1], "batch": recorded[2], "sharded": recorded[3],
            "warnings": run.trouble.told, "run": str(run.path), "losses": loop[4],
        }  # fmt: skip
    (folder / "left.json").write_text(json.dumps(left))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
