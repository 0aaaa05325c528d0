"""Trains on two logical devices, and leaves weights and what Keras reported in a file.

A process of its own: TensorFlow can't split its CPU after it has begun.
"""

import json
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

# Two replicas that wait for each other need a thread each.
tf.config.threading.set_inter_op_parallelism_threads(8)
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)

import keras  # noqa: E402
import mirrored_loop  # noqa: E402

RNG = np.random.default_rng(0)
X = RNG.random((69, 3)).astype("float32")
Y = RNG.random((69, 1)).astype("float32")
Y[64:67] += 5


def network(rate, **compiled):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((3,))
    hidden = keras.layers.Dense(8, activation="relu")(inputs)
    outputs = keras.layers.Dense(1, kernel_regularizer=keras.regularizers.L2(0.1))(hidden)
    model = keras.Model(inputs, outputs)
    model.compile(keras.optimizers.SGD(rate), "mse", **compiled)
    return model


def main(folder):
    left = {"data": [X, Y], "begin": network(0.0).get_weights()}
    reported = []
    for rate in (0.0, 0.1):
        for replicas in (2, 1):
            if replicas == 2:
                with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
                    model = network(rate)
            else:
                model = network(rate)
            # Most of an epoch's time goes to TensorFlow's iterators: one validates for all.
            held = {"validation_data": (X, Y)} if not reported else {}
            fit = model.fit(X, Y, batch_size=32, epochs=2, shuffle=False, verbose=0, **held)
            left[f"{rate}-{replicas}"] = model.get_weights()
            reported.append(fit.history)
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        model = network(0.1)
    reported.append([np.ravel(model.train_on_batch(X[:8], Y[:8]))[0].item() for _ in range(3)])
    left["last"] = model.get_weights()
    # TensorFlow's own reduction on CPUs fails inside a loop on the device.
    together = tf.distribute.ReductionToOneDevice()
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"], together).scope():
        model = network(0.1, steps_per_execution=2)
    fit = model.fit(X, Y, batch_size=32, epochs=2, shuffle=False, verbose=0)
    left["several"] = model.get_weights()
    batch = np.ravel(model.train_on_batch(X[:8], Y[:8]))[0].item()
    reported.append([fit.history, batch])
    loops, told = mirrored_loop.main(X, Y)
    left |= loops
    reported.append(told)
    arrays = {f"{name}/{k}": a for name, several in left.items() for k, a in enumerate(several)}
    np.savez(folder / "left.npz", **arrays)
    (folder / "reported.json").write_text(json.dumps(reported))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
