"""Trains with `fit` and with `Loop` under strategies of `tf.distribute`; for `mirrored.py`."""

import keras
import numpy as np
import tensorflow as tf
from keras.src.backend.common import global_state

import lossledger


def layered(**compiled):
    keras.utils.set_random_seed(0)
    # As newer versions do themselves: Keras 3.8 goes on with its own stream.
    global_state.set_global_attribute("global_seed_generator", None)
    # Few variables, and Adam in one case: an optimizer is traced once more for every replica.
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    hidden = {"activation": "relu", "kernel_regularizer": "l2", "use_bias": False}
    model = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(5, **hidden),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.4),
            keras.layers.Dense(1, use_bias=False),
        ]
    )
    model.compile(**{"optimizer": optimizer, "loss": "mse", "metrics": ["mae"], **compiled})
    return model


class Told(keras.callbacks.Callback):
    """What a callback hears at each batch."""

    def __init__(self):
        super().__init__()
        self.logs = []

    def on_train_batch_end(self, batch, logs=None):
        self.logs.append([batch, *(float(logs[name]) for name in ("loss", "mae"))])


def by_fit(model, *data, **arguments):
    return model.fit(*data, **arguments).history, None


def by_run(model, *data, **arguments):
    return lossledger.Loop(model, *data, **arguments).run().history, None


def in_scope(model, *data, **arguments):
    with model.distribute_strategy.scope():
        return by_run(model, *data, **arguments)


def epochs_by(train):
    """Drives a loop by what trains an epoch; gives its losses, too."""

    def drive(model, *data, **arguments):
        loop, losses = lossledger.Loop(model, *data, **arguments), []
        for epoch in loop:
            train(epoch, *data)
            losses.extend(epoch.losses.tolist())
        assert str(loop.plan).startswith("plan step: one call a step, compiled")
        return loop.history.history, losses

    drive.__name__ = train.__name__
    return drive


@epochs_by
def by_turns(epoch, *_):
    epoch.run(1)
    first = next(iter(epoch))
    assert first.loss == epoch.losses[1]
    rows = [first.rows, *(step.rows for step in epoch)]
    assert rows in ([32, 5], [16, 16], [5, 16])


@epochs_by
def by_own_batches(epoch, x, y):
    for start in range(0, len(x), 32):
        assert epoch.skip() == 1
        epoch.step(x[start : start + 32], y[start : start + 32])


def of_tf_data(x, y):
    return (tf.data.Dataset.from_tensor_slices((x, y)).shuffle(69, 3).batch(16).repeat(),)


def of_unknown_length(x, y):
    # TensorFlow may train in the memory of what a generator gives it.
    rows = [(x[k : k + 32].copy(), y[k : k + 32].copy()) for k in range(0, 69, 32)]
    kinds = (tf.TensorSpec((None, 3)), tf.TensorSpec((None, 1)))
    return (tf.data.Dataset.from_generator(lambda: iter(rows), output_signature=kinds),)


def cases(x, y):
    """Of each: the devices, the data, `fit`'s arguments, and what trains."""
    two, weight = ["CPU:0", "CPU:1"], np.linspace(0, 2, 69).astype("f4")
    whole = {"batch_size": 32, "sample_weight": weight}
    ordered = {"batch_size": 32, "shuffle": False}
    validated = {**ordered, "validation_data": (x, y)}
    return {
        "whole": (two, lambda: (x, y), whole, [by_fit, by_turns, in_scope]),
        "ordered": (two, lambda: (x, y), validated, [by_fit, by_own_batches]),
        "stream": (two, lambda: of_tf_data(x, y), {"steps_per_epoch": 3}, [by_fit, by_turns]),
        # `fit` itself trains a step without data there.
        "endless": (two, lambda: of_unknown_length(x, y), {"validation_data": (x, y)}, [by_run]),
        "one": (["CPU:1"], lambda: (x, y), ordered, [by_fit, by_turns]),
        "alone": ([], lambda: (x, y), ordered, [by_fit, by_turns]),
        "eager": (two, lambda: (x, y), ordered, [by_fit, by_run]),
    }


COMPILED = {"eager": {"run_eagerly": True}, "stream": {"optimizer": "adam"}}


def strategy_of(devices):
    if not devices:
        return tf.distribute.OneDeviceStrategy("CPU:1")
    # TensorFlow numbers each strategy's reductions anew, and takes two of a number for the same.
    tf.distribute.MirroredStrategy._collective_key_base += 100
    return tf.distribute.MirroredStrategy(devices)


def trained(drive, devices, data, arguments, compiled):
    """The state after a training, what it reported, and the next random numbers."""
    with strategy_of(devices).scope():
        model = layered(**compiled)
    told = Told()
    callbacks = [] if drive in (by_run, in_scope) else [told]
    history, losses = drive(model, *data, epochs=2, verbose=0, callbacks=callbacks, **arguments)
    state = [v.numpy() for v in (*model.variables, *model.optimizer.variables)]
    random = [keras.random.uniform((3,)).numpy(), np.random.random(3)]
    return [*state, *random], {"history": history, "told": told.logs, "losses": losses}


def refused(make, scope=None):
    try:
        with scope or tf.distribute.get_strategy().scope():
            lossledger.Loop(make(), np.zeros((4, 3)), np.zeros((4, 1)), verbose=0).run()
    except lossledger.LossLedgerError as error:
        return str(error)
    return None


def refusals():
    """What a loop says where it can't train."""
    outside = layered()
    with tf.distribute.MultiWorkerMirroredStrategy().scope():
        workers = layered()
    with strategy_of(["CPU:0", "CPU:1"]).scope():
        by_xla = layered(jit_compile=True)
    return {
        "workers": refused(lambda: workers),
        "xla": refused(lambda: by_xla),
        "outside": refused(lambda: outside, strategy_of(["CPU:0", "CPU:1"]).scope()),
    }


def main(x, y):
    """Train all; arrays by name, and what was reported."""
    arrays, reported = {}, {"refused": refusals()}
    for name, (devices, data, arguments, drives) in cases(x, y).items():
        for drive in drives:
            made = data()
            key = f"{name}/{drive.__name__}"
            arrays[key], reported[key] = trained(
                drive, devices, made, arguments, COMPILED.get(name, {})
            )
    return arrays, reported
