"""`Loop` trains as `fit` does: weights, optimizer state, History and random streams, bit by bit.

In the numeric mode that `fit` compiles. `test_loop_plan.py` has what XLA may change.
"""

from typing import Any

import keras
import pytest

from .conftest import BACKEND, X, Y, network
from .looping import ARGUMENTS, MODES, assert_as_fit, layered

Z = (X.sum(1) > 1.5).astype("int32")


@pytest.mark.parametrize("arguments", ARGUMENTS.values(), ids=ARGUMENTS)
def test_arguments(arguments: dict[str, Any]) -> None:
    assert_as_fit(layered, "run", X, Y, **arguments)


@pytest.mark.parametrize("mode", MODES)
def test_ways_to_drive(mode: str) -> None:
    assert_as_fit(layered, mode, X, Y, batch_size=16, validation_data=(X, Y))


def test_class_weight() -> None:
    assert_as_fit(layered, "run", X, Z, class_weight={0: 1.0, 1: 3.0}, batch_size=16)


@pytest.mark.parametrize(
    "compiled",
    [
        {"run_eagerly": True},
        {"metrics": ["auc"], "jit_compile": False},
        {"optimizer": keras.optimizers.SGD(0.1, momentum=0.9, gradient_accumulation_steps=3)},
        {"optimizer": keras.optimizers.Adam(0.01, use_ema=True, ema_overwrite_frequency=3)},
    ],
    ids=["eager", "no-jit", "accumulation", "ema"],
)
def test_compiled_otherwise(compiled: dict[str, Any]) -> None:
    def make() -> Any:
        given = dict(compiled)
        if "optimizer" in given:
            given["optimizer"] = type(given["optimizer"]).from_config(
                given["optimizer"].get_config()
            )
        return layered(**given)

    assert_as_fit(make, "mixed", X, Y, batch_size=16)


def test_nested_inputs_and_outputs() -> None:
    def make() -> Any:
        a, b = keras.Input((3,), name="a"), keras.Input((3,), name="b")
        hidden = keras.layers.Dense(4)(keras.layers.Add()([a, b]))
        outputs = {name: keras.layers.Dense(1, name=name)(hidden) for name in ("p", "q")}
        model = keras.Model({"a": a, "b": b}, outputs)
        model.compile("adam", {"p": "mse", "q": "mae"}, loss_weights={"p": 1.0, "q": 0.5})
        return model

    assert_as_fit(make, "run", {"a": X, "b": X * 2}, {"p": Y, "q": Y + 1}, batch_size=16)


class Pairs(keras.utils.PyDataset):
    """Batches of 16 in order."""

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> Any:
        rows = slice(16 * index, 16 * index + 16)
        return X[rows], Y[rows]


def generated() -> Any:
    for epoch in range(3):
        for start in range(0, 64, 16):
            yield X[start : start + 16] + epoch, Y[start : start + 16]


def dataset() -> Any:
    tf = pytest.importorskip("tensorflow")
    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(16)


def loader() -> Any:
    torch = pytest.importorskip("torch")
    pairs = torch.utils.data.TensorDataset(torch.tensor(X), torch.tensor(Y))
    return torch.utils.data.DataLoader(pairs, batch_size=16)


@pytest.mark.parametrize("data", [Pairs, dataset, loader], ids=lambda each: each.__name__)
def test_streams(data: Any) -> None:
    assert_as_fit(layered, "mixed", data, shuffle=False)


def test_generator() -> None:
    assert_as_fit(layered, "run", generated, steps_per_epoch=4, shuffle=False)


def test_a_step_of_the_users_own() -> None:
    class Halved(keras.Model):
        def train_step(self, *args: Any) -> Any:
            result = super().train_step(*args)
            logs = result[0] if BACKEND == "jax" else result
            logs = {"half": logs["loss"] / 2, **logs}
            return (logs, result[1]) if BACKEND == "jax" else logs

    def make() -> Any:
        model = network(cls=Halved)
        model.compile("sgd", "mse")
        return model

    assert_as_fit(make, "mixed", X, Y, batch_size=16)
