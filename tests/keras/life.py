"""A model and its arguments, for the tests of what happens around a training."""

import keras

import lossledger

from .conftest import network

FIT = {"batch_size": 32, "epochs": 2, "shuffle": False, "verbose": 0}


def compiled():
    model = network()
    model.compile(keras.optimizers.SGD(0.1), "mse", metrics=["mae"])
    return model


def opened(run):
    return lossledger.open(run.path)
