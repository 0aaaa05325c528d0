"""The forms a `Loop` trains in: what they may change, what is kept, and when memory is short."""

from typing import Any

import keras
import numpy as np
import pytest

import lossledger
from lossledger.loop.engine import Engine

from .conftest import BACKEND, X, Y, network, once

FORMS = {"jax": ("loop", "step"), "tensorflow": ("loop", "xla"), "torch": ("eager", "repeat")}[
    BACKEND
]


def compiled(**arguments: Any) -> Any:
    model = network()
    model.compile(keras.optimizers.Adam(0.01), "mse", **arguments)
    return model


def trained(train: Any) -> dict[str, Any]:
    def run() -> Any:
        model = compiled()
        return model, train(model)

    return once(run)


@pytest.mark.parametrize("form", FORMS)
def test_each_form_trains_as_fit(form: str) -> None:
    fit = trained(lambda model: model.fit(X, Y, batch_size=16, epochs=4, verbose=0).history)
    loop = trained(
        lambda model: lossledger.Loop(model, X, Y, 16, epochs=4, verbose=0, plan=form).run().history
    )
    # XLA is another numeric mode than the one that `fit` compiles on a CPU.
    bound = 1e-5 if form == "xla" else 0
    for a, b in zip(fit["state"], loop["state"], strict=True):
        np.testing.assert_allclose(a, b, rtol=bound, atol=bound)
    for name, values in fit["outcome"].items():
        np.testing.assert_allclose(values, loop["outcome"][name], rtol=bound)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="XLA is a choice on TensorFlow")
def test_xla_where_fit_uses_xla() -> None:
    def train(plan: str | None) -> dict[str, Any]:
        def run() -> Any:
            model = compiled(jit_compile=True)
            if plan is None:
                return model, model.fit(X, Y, batch_size=16, epochs=3, verbose=0).history
            loop = lossledger.Loop(model, X, Y, 16, epochs=3, verbose=0, plan=plan)
            return model, loop.run().history

        return once(run)

    fit = train(None)
    for plan, bound in (("loop", 0), ("xla", 1e-5)):
        for a, b in zip(fit["state"], train(plan)["state"], strict=True):
            np.testing.assert_allclose(a, b, rtol=bound, atol=bound)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="XLA is a choice on TensorFlow")
def test_xla_is_no_candidate_where_it_draws_other_numbers() -> None:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dropout(0.5), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    loop = lossledger.Loop(model, X, Y, 16, epochs=2, verbose=0)
    loop.run()
    assert loop.plan.candidates == ("loop",)


def test_a_plan_is_shown_and_may_be_fixed() -> None:
    model = compiled()
    loop = lossledger.Loop(model, X, Y, 10, epochs=4, verbose=0, plan=FORMS[-1])
    assert loop.plan.form == FORMS[-1]
    loop.run()
    assert loop.plan.form == FORMS[-1]
    assert loop.plan.seconds[FORMS[-1]] > 0
    other = lossledger.Loop(model, X, Y, 10, verbose=0, plan=loop.plan)
    other.run()
    assert other.plan.form == FORMS[-1]


def test_a_later_loop_begins_with_what_was_found() -> None:
    model = compiled()
    first = lossledger.Loop(model, X, Y, 10, epochs=4, verbose=0)
    first.run()
    second = lossledger.Loop(model, X, Y, 10, verbose=0)
    second.run()
    assert second.plan.compiling == first.plan.compiling


def test_a_convolution_is_not_begun_in_a_loop_of_xla() -> None:
    layers = keras.layers
    model = keras.Sequential(
        [keras.Input((6, 6, 1)), layers.Conv2D(2, 3), layers.Flatten(), layers.Dense(1)]
    )
    model.compile("sgd", "mse")
    loop = lossledger.Loop(model, np.ones((40, 6, 6, 1), "f4"), np.ones((40, 1)), 10, verbose=0)
    loop.run()
    first = {"jax": "step", "tensorflow": "loop", "torch": "repeat"}[BACKEND]
    assert loop.plan.candidates[0] == first


def test_short_memory_leaves_the_data_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = trained(lambda model: model.fit(X, Y, batch_size=16, epochs=2, verbose=0).history)
    run = Engine.run
    failed: list[int] = []

    def short(self: Any, form: str, key: Any, chunk: Any, window: Any) -> Any:
        if chunk.order is not None and chunk.start > 0:
            failed.append(chunk.start)
            raise RuntimeError("RESOURCE_EXHAUSTED: out of memory")
        return run(self, form, key, chunk, window)

    monkeypatch.setattr(Engine, "run", short)
    with pytest.warns(lossledger.LossLedgerWarning, match="chunk-too-big"):
        loop = trained(
            lambda model: lossledger.Loop(model, X, Y, 16, epochs=2, verbose=0).run().history
        )
    assert failed == [1]
    for a, b in zip(whole["state"], loop["state"], strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_copy_of_a_model_has_no_compiled_forms_of_the_original() -> None:
    model = compiled()
    lossledger.Loop(model, X, Y, verbose=0).run()
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    copy.compile("sgd", "mse")
    before = model.get_weights()
    lossledger.Loop(copy, X, Y, verbose=0).run()
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_can_not_be_told() -> None:
    with pytest.raises(ValueError, match="compile"):
        lossledger.Loop(network(), X, Y).run()
    with pytest.raises(lossledger.LossLedgerError, match="Received: 'fastest'"):
        lossledger.Loop(compiled(), X, Y, plan="fastest")


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("given", "named"),
    [
        (("dense", X, Y), "Received: str"),
        ((None, None), "Received: x=None"),
        ((None, X[:0], Y[:0]), "Received: no rows, x of shape (0, "),
    ],
)
def test_a_loop_says_what_it_was_not_given(given: Any, named: str) -> None:
    model = keras.Sequential([keras.layers.Dense(1)]) if given[0] is None else given[0]
    with pytest.raises(lossledger.LossLedgerError) as caught:
        lossledger.Loop(model, *given[1:])
    assert caught.value.slug == "nothing-to-train"
    assert named in str(caught.value)
