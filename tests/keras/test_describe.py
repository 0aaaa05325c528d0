"""What a call's record says of its model's layers."""

import keras
import pytest

import lossledger

from .conftest import X, Y


@pytest.mark.parametrize("nested", [False, True])
def test_layers_that_decide_a_loss_are_described(tmp_path, nested):
    inner = [
        keras.layers.Dense(
            4,
            kernel_regularizer=keras.regularizers.L2(0.05),
            kernel_constraint=keras.constraints.MaxNorm(0.5),
            kernel_initializer="zeros",
        ),
        keras.layers.Dropout(0.5, seed=3),
    ]
    inner = [keras.Sequential(inner)] if nested else inner
    model = keras.Sequential([keras.Input((3,)), *inner, keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with lossledger.record(tmp_path) as run:
        model.fit(X, Y, verbose=0)
    found = lossledger.open(run.path).calls[0].configuration["layers"]
    dense = [layer for layer in found if layer["class"] == "Dense"]
    (dropout,) = [layer for layer in found if layer["class"] == "Dropout"]
    assert {layer["class"] for layer in found} == {"InputLayer", "Dense", "Dropout"}
    assert sorted(layer["units"] for layer in dense) == [1, 4]
    (regular,) = [layer for layer in dense if "kernel_regularizer" in layer]
    assert regular["kernel_regularizer"]["config"]["l2"] == pytest.approx(0.05)
    assert regular["kernel_constraint"]["config"]["max_value"] == 0.5
    said = {"class", "units", "activation", "kernel_regularizer", "kernel_constraint"}
    assert set(regular) == said
    assert dropout == {"class": "Dropout", "rate": 0.5, "training": True}
    assert [layer for layer in found if layer.get("training")] == [dropout]


@pytest.mark.one_backend
def test_a_layer_of_the_users_that_adds_a_loss_is_a_penalty_alone(tmp_path):
    """It takes a dtype as all layers do, which it shares with its model: no other precision."""

    class Adds(keras.layers.Layer):
        def call(self, inputs):
            self.add_loss(0.1 * keras.ops.mean(keras.ops.abs(inputs)))
            return inputs

    def trained(*more):
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1), *more])
        model.compile("sgd", "mse")
        with lossledger.record(tmp_path) as run:
            model.fit(X, Y, shuffle=False, verbose=0)
        return run.path

    plain, adding = trained(), trained(Adds())
    assert lossledger.open(adding).calls[0].configuration["layers"][-1] == {"class": "Adds"}
    result = lossledger.reconcile(plain, adding)
    assert [(each.cause, each.kind) for each in result.causes] == [
        ("penalty", "exact"),
        ("penalty", "replayed"),
    ]
    assert result.unexplained == pytest.approx(0, abs=1e-6 * result.a.value)
