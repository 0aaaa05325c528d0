"""Reported numbers beside what the entries say of them."""

import math

import numpy as np
import pytest
from made import Made, fitted

from lossledger.statistics import keras_mean

rng = np.random.default_rng(7)


@pytest.fixture
def fit(tmp_path):
    return fitted(tmp_path, rng)


def only(run, place):
    found = [each for each in run.reported() if each.place == place]
    assert len(found) == 1
    return found[0]


def test_history_by_float32_sums(fit):
    made, losses, weights = fit
    run = made.close()
    means = (losses * weights).sum(1) / weights.sum(1)
    found = run.reported()
    assert [each.epoch for each in found] == [4, 5, 6]
    for each, mean in zip(found, means, strict=True):
        assert (each.place, each.name, each.call) == ("history", "loss", 0)
        assert each.statistic == "epoch_mean"
        assert each.stated == pytest.approx(mean, rel=1e-14)
        assert each.difference == each.value - each.stated
        assert each.why.startswith(("Equal", "Float32 accumulation"))


def test_history_explained(tmp_path):
    made = Made(tmp_path)
    made.call(0, driver="fit")
    loss, weight = made.steps(1 + rng.random(6000), epoch=np.repeat(range(6), 1000))
    loss, weight = loss.reshape(6, 1000), weight.reshape(6, 1000)
    exact = (loss * weight).sum(1) / weight.sum(1)
    values = [
        np.float32(exact[0]),
        keras_mean(loss[1], weight[1], np.zeros(1000))[0],
        np.nextafter(keras_mean(loss[2], weight[2], np.zeros(1000))[0], np.float32(9)),
        exact[3] + 0.01,
        np.float32(loss[4, -1]),
        math.nan,
    ]
    made.history(0, "loss", values)
    made.history(0, "loss", [1.0], first=77)
    equal, again, close, other, last, nan, lost = made.close().reported()
    assert equal.why.startswith("Equal")
    assert again.why.endswith("give it exactly.")
    assert close.why.startswith("Float32 accumulation, within")
    assert other.why.startswith("Differs; look")
    assert other.difference == pytest.approx(0.01)
    assert "equals last" in last.why
    assert nan.why.startswith("Differs")
    assert (lost.stated, lost.difference) == (None, None)
    assert "no entries" in lost.why


def test_history_that_holds_the_last_step(tmp_path):
    made = Made(tmp_path)
    made.call(0, driver="fit", history_is="last", loss_name="d_loss")
    loss, _ = made.steps(rng.random(8), epoch=np.repeat([0, 1], 4))
    made.history(0, "d_loss", loss[3::4])
    first, second = made.close().reported()
    assert (first.statistic, first.stated, first.difference) == ("last", loss[3], 0)
    assert (second.name, second.stated) == ("d_loss", loss[7])


@pytest.mark.parametrize("kind", ["one", "rows", None])
def test_losses_of_named_outputs(tmp_path, kind):
    made = Made(tmp_path)
    more = {} if kind is None else {"output_weights": {"a_loss": kind}}
    made.call(0, driver="fit", **more)
    rows = np.array([8, 8, 3])
    a = np.array([1, 2, 4], "f4")
    made.steps([2, 3, 5], epoch=0, weight=rows, a_loss=a)
    expected = a.mean(dtype="f8") if kind == "one" else (a * rows).sum() / rows.sum()
    made.history(0, "a_loss", [np.float32(expected)])
    made.history(0, "accuracy", [0.75])
    output, accuracy = made.close().reported()
    assert output.stated == pytest.approx(expected, rel=1e-14)
    assert output.why.startswith("Equal")
    assert (accuracy.name, accuracy.statistic, accuracy.stated) == ("accuracy", None, None)


def test_measured_numbers_are_listed_without_a_statement(tmp_path):
    made = Made(tmp_path)
    made.call(0, driver="fit")
    made.steps([1, 2], epoch=0)
    item = {"place": "validation", "name": "val_loss", "epoch": 0, "value": "inf"}
    made.call(0, reported=[item])
    found = only(made.close(), "validation")
    assert (found.value, found.stated, found.difference) == (math.inf, None, None)
    assert found.why.startswith("Measured")


def test_returned_values_are_raw_since_315(tmp_path):
    made = Made(tmp_path, keras="3.15.0")
    made.call(0, driver="train_on_batch")
    loss = rng.random(100).astype("f4")
    loss[7] = np.nan
    made.steps(loss, reported=loss.astype("f8"))
    found = only(made.close(), "returned")
    assert (found.statistic, found.count, found.difference) == ("raw", 100, 0)
    assert found.why.startswith("All 100")


def test_returned_values_are_cumulative_before(tmp_path):
    made = Made(tmp_path, keras="3.14.1")
    made.call(0, driver="train_on_batch")
    loss = rng.random(100).astype("f4")
    weight = rng.integers(1, 9, 100).astype("f8")
    light = weight.astype("f4")
    totals = np.add.accumulate(loss * light, dtype="f4")
    means = totals / np.add.accumulate(light, dtype="f4")
    for start in range(0, 100, 30):
        part = slice(start, start + 30)
        made.steps(loss[part], weight=weight[part], reported=means[part].astype("f8"))
    exact = np.cumsum(loss * weight) / np.cumsum(weight)
    found = only(made.close(), "returned")
    assert (found.statistic, found.count) == ("cumulative_mean", 100)
    assert found.difference == pytest.approx(np.abs(means - exact).max(), abs=0) or (
        abs(found.difference) == pytest.approx(np.abs(means - exact).max(), rel=1e-6)
    )
    assert found.why.startswith(("All 100", "Float32 rounding"))


def test_returned_values_by_float32_rounding_alone(tmp_path):
    made = Made(tmp_path, keras="3.15.0")
    made.call(0, driver="train_on_batch")
    loss = rng.random(300).astype("f4")
    shown = (loss * np.float32(7)) / np.float32(7)  # total / count, as Keras has it
    assert (shown != loss).any()
    apart = np.nextafter(loss[:3], np.float32(2))
    shown[:3] = apart
    made.steps(loss, weight=np.full(300, 7.0), reported=shown.astype("f8"))
    found = only(made.close(), "returned")
    assert found.why.startswith("Float32 rounding: of 300 returned values")
    assert abs(found.difference) == np.abs(shown.astype("f8") - loss).max()


@pytest.mark.parametrize(("units", "start"), [(300, "Float32 accumulation"), (3000, "Differs")])
def test_history_further_from_repeated_sums_than_from_the_statement(tmp_path, units, start):
    made = Made(tmp_path)
    made.call(0, driver="fit")
    loss, weight = made.steps(1 + rng.random(1000), epoch=0)
    exact = (loss * weight).sum() / weight.sum()
    repeated = keras_mean(loss, weight, np.zeros(1000))[0]
    away = math.copysign(units * 2.0**-23, exact - repeated)
    made.history(0, "loss", [exact + away])
    (found,) = made.close().reported()
    assert abs(found.value - repeated) > abs(found.difference)
    assert found.why.startswith(start)


def test_returned_values_that_differ(tmp_path):
    made = Made(tmp_path)
    made.call(0, driver="train_on_batch")
    shown = np.array([1, 2, 3, np.nan])
    made.steps([1, 2.5, 3, 4], reported=shown)
    found = only(made.close(), "returned")
    assert (found.value, found.stated, found.difference, found.count) == (2, 2.5, -0.5, 3)
    assert found.why.startswith("1 of 3 returned values differ")
