"""The law: whatever the entries, the parts sum to the gap, and turn round with it."""

import math
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st
from made import Made

import lossledger as ll

STATISTICS = (
    "epoch_mean",
    "batch_mean",
    "running_mean",
    "cumulative_mean",
    "raw",
    "last",
    "window_mean:n=3",
    "ema:beta=0.9",
    "ema:beta=0.5,reset=true",
    "progress_bar",
    "reported",
)
SELECTIONS = ("", "@finite", "@every=2", "@batch=1", "@loss=data", "@loss=a_loss", "@epoch=0")

losses = st.one_of(
    st.floats(0, 4, width=32),
    st.floats(-1e3, 1e6, width=32),
    st.sampled_from([math.nan, math.inf, -math.inf, 0.0]),
)


@st.composite
def trainings(draw):
    lengths = draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))
    steps = sum(lengths)

    def column(values):
        return draw(st.lists(values, min_size=steps, max_size=steps))

    return {
        "epoch": np.repeat(np.arange(len(lengths)), lengths),
        "loss": column(losses),
        "rows": np.array(column(st.integers(1, 9))),
        "penalty": np.array(column(st.sampled_from([0.0, 0.125, math.nan]))),
        "batch_id": np.array(column(st.integers(0, 4)), "u8"),
        "a_loss": np.array(column(st.floats(0, 2, width=32))),
        "driver": draw(st.sampled_from(["fit", "train_on_batch"])),
        "weights": draw(st.sampled_from(["w", "v"])),
        "rate": draw(st.sampled_from([0.0, 0.1])),
        "reduction": draw(st.sampled_from([None, "sum"])),
        "loss_weights": draw(st.sampled_from([None, [0.5]])),
    }


def written(directory, name, training):
    training = dict(training)
    loss, rows = training.pop("loss"), training["rows"]
    names = ("driver", "weights", "rate", "reduction", "loss_weights")
    driver, weights, rate, reduction, loss_weights = (training.pop(name) for name in names)
    made = Made(directory, name)
    made.call(
        0,
        driver=driver,
        model=0,
        initial_weights=weights,
        output_weights={"a_loss": "rows"},
        configuration={
            "optimizer": {"learning_rate": rate},
            "reduction": reduction,
            "loss_weights": loss_weights,
        },
    )
    kept, weight = made.steps(loss, weight=rows.astype("f8"), reported=loss, **training)
    if driver == "fit":
        with np.errstate(all="ignore"):
            for epoch in np.unique(training["epoch"]):
                part = training["epoch"] == epoch
                value = float((kept * weight)[part].sum() / weight[part].sum())
                made.history(0, "loss", [value], first=int(epoch))
    return made.close()


def assert_lawful(result):
    amounts = [cause.amount for cause in result.causes]
    parts = [*amounts, result.unexplained]
    if all(map(math.isfinite, (*parts, result.gap))):
        size = max(map(abs, (*parts, result.gap)))
        assert abs(math.fsum(parts) - result.gap) <= 1e-13 * size
        assert all(amounts)
    else:
        assert repr(sum(parts)) == repr(result.gap)
    assert repr(result)
    assert result.to_json()


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    trainings(),
    trainings(),
    st.booleans(),
    *[st.sampled_from(STATISTICS)] * 2,
    *[st.sampled_from(SELECTIONS)] * 2,
)
def test_random_entries_always_sum(one, other, same, first, second, here, there):
    with tempfile.TemporaryDirectory() as folder:
        a = written(Path(folder), "a", one)
        b = written(Path(folder), "b", one if same else other)
        sides = [(a, f"{here}:{first}"), (b, f"{there}:{second}")]
        try:
            found = ll.reconcile(*sides, across=True)
        except ll.LossLedgerError as error:
            slug = error.slug
            event(slug)
            assume(slug not in ("no-batch", "no-loss", "not-reported", "selection"))
            raise
        assert_lawful(found)
        back = ll.reconcile(*reversed(sides), across=True)
        assert_lawful(back)
        assert repr(back.gap) in (repr(-found.gap), repr(0.0))
        if math.isfinite(found.gap):
            turned = {(each.cause, each.kind): -each.amount for each in back.causes}
            there_and = {(each.cause, each.kind): each.amount for each in found.causes}
            assert there_and == pytest.approx(turned, rel=1e-9, abs=1e-9)
        if same and (here, first) == (there, second):
            assert found.gap == 0
            assert not found.causes
            assert found.verdict.startswith("No gap.")
