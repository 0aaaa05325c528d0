"""Epochs of a run, and its statistics."""

import json
import math

import numpy as np
import pytest
from made import Made, fitted

import lossledger as ll
from lossledger import LossLedgerError, folded, shares, statement, store
from lossledger.run import Run
from lossledger.statistics import STATISTICS

rng = np.random.default_rng(7)


@pytest.fixture
def fit(tmp_path):
    return fitted(tmp_path, rng)


# --- Epochs.


def judged(losses, weights):
    """What a statement must say, by plain float64 arithmetic, of an epoch of finite losses."""
    running = np.cumsum(losses * weights) / np.cumsum(weights)
    return {
        "steps": len(losses),
        "rows": int(weights.sum()),
        "epoch_mean": math.fsum(losses * weights) / math.fsum(weights),
        "batch_mean": math.fsum(losses) / len(losses),
        "first": losses[0],
        "last": losses[-1],
        "min": losses.min(),
        "max": losses.max(),
        "std": losses.std(),
        "running_std": running.std(),
        "nonfinite": 0,
    }


def assert_stated(statements, expected):
    assert len(statements) == len(expected)
    for stated, wanted in zip(statements, expected, strict=True):
        found = {name: getattr(stated, name) for name in wanted}
        assert found == pytest.approx(wanted, rel=1e-12, abs=1e-15)


def test_epochs_of_a_fit(fit):
    made, losses, weights = fit
    run = made.close()
    statements = run.epochs(0)
    assert [each.epoch for each in statements] == [4, 5, 6]
    assert_stated(statements, [judged(*pair) for pair in zip(losses, weights, strict=True)])
    reported = [each.reported for each in statements]
    assert reported == pytest.approx([each.epoch_mean for each in statements], rel=1e-6)
    assert run.calls[0].epochs_from == "driver"
    assert run.complete
    fields = [*judged(*(np.ones(1),) * 2), "epoch", "reported", "missing"]
    assert set(vars(statements[0])) == set(fields)


@pytest.mark.parametrize("short", [0, 450])
@pytest.mark.parametrize("window", [1, 7, 50, 51, 120, 1000])
def test_a_window_of_any_size_states_the_same(tmp_path, monkeypatch, window, short):
    made = Made(tmp_path)
    # A block has 50 rows here: epochs begin and end inside one, at its edge, or span several.
    lengths = [1, 49, 200, 1, 130, 3, 66]
    epoch = np.repeat(np.arange(7), lengths)
    loss, weight = made.steps(
        rng.normal(size=450), epoch=epoch, weight=rng.integers(1, 9, 450).astype("f8")
    )
    monkeypatch.setattr(folded, "SHORT", short)
    monkeypatch.setattr(statement, "WINDOW", window)
    monkeypatch.setattr(statement.Windows.__init__, "__defaults__", (window,))
    statements = made.close().epochs()
    assert_stated(statements, [judged(loss[epoch == e], weight[epoch == e]) for e in range(7)])


@pytest.mark.parametrize("short", [0, 12])
@pytest.mark.parametrize("segment_rows", [2, 50])
def test_losses_that_are_not_finite(tmp_path, monkeypatch, segment_rows, short):
    monkeypatch.setattr(folded, "SHORT", short)
    monkeypatch.setattr(statement.Windows.__init__, "__defaults__", (2,))
    made = Made(tmp_path, segment_rows=segment_rows)
    made.steps([1, np.nan, 3, 5], epoch=0)
    made.steps([np.inf, 2, 4, 4], epoch=1)
    made.steps([np.nan, np.nan], epoch=2)
    made.steps([6, 8], epoch=3)
    first, second, third, fourth = made.close().epochs()
    assert (first.nonfinite, second.nonfinite, third.nonfinite, fourth.nonfinite) == (1, 1, 2, 0)
    assert math.isnan(first.epoch_mean)
    assert math.isnan(first.batch_mean)
    assert (second.epoch_mean, second.batch_mean) == (math.inf, math.inf)
    assert (first.min, first.max, first.first, first.last) == (1, 5, 1, 5)
    assert (second.first, second.last) == (2, 4)
    assert first.std == pytest.approx(np.std([1, 3, 5]))
    assert second.std == pytest.approx(np.std([2, 4, 4]))
    assert all(math.isnan(v) for v in (third.min, third.std, third.first, third.running_std))
    assert (fourth.epoch_mean, fourth.running_std) == (7, 0.5)


def series(made, order, **info):
    """A train_on_batch series over batches named by numbers."""
    made.call(0, driver="train_on_batch", model=0, weight_kind="rows", **info)
    ids = np.random.default_rng(1).integers(1, 2**63, 100).astype("u8")
    return made.steps(rng.random(len(order)), batch_id=ids[np.asarray(order)])


def test_epochs_from_batches_that_return(tmp_path):
    made = Made(tmp_path)
    loss, weight = series(made, [0, 1, 2, 3, 4] * 4)
    run = made.close()
    assert run.calls[0].epochs_from == "batch_id"
    pairs = zip(loss.reshape(4, 5), weight.reshape(4, 5), strict=True)
    assert_stated(run.epochs(), [judged(*pair) for pair in pairs])
    assert [each.reported for each in run.epochs()] == [None] * 4
    np.testing.assert_array_equal(run.losses(epoch=2), loss[10:15])
    np.testing.assert_array_equal(run.entries(["loss"], epoch=2)["loss"], loss[10:15])


def test_epochs_that_are_said(tmp_path):
    made = Made(tmp_path)
    loss, _ = series(made, range(20), steps_per_epoch=8)
    run = made.close()
    assert run.calls[0].epochs_from == "said"
    assert [each.steps for each in run.epochs()] == [8, 8, 4]
    run = ll.open(made.path, steps_per_epoch=6)
    assert [each.steps for each in run.epochs()] == [6, 6, 6, 2]
    np.testing.assert_array_equal(run.losses(epoch=-1), loss[18:])
    for steps in (0, 2.5, "6"):
        with pytest.raises(LossLedgerError, match=f"Received: {steps!r}") as caught:
            ll.open(made.path, steps_per_epoch=steps)
        assert caught.value.slug == "not-a-count"


def test_epochs_that_the_user_counts(tmp_path):
    made = Made(tmp_path)
    made.call(0, driver="train_on_batch", epochs_said=True)
    made.steps(rng.random(9), epoch=[0, 0, 1, 1, 1, 1, 5, 5, 5])
    run = Run(made.close().path, steps_per_epoch=2)  # what was counted needs no rule
    assert run.calls[0].epochs_from == "said"
    assert [(each.epoch, each.steps) for each in run.epochs()] == [(0, 2), (1, 4), (5, 3)]


def test_no_epochs_at_all(tmp_path):
    made = Made(tmp_path)
    series(made, range(20))
    run = made.close()
    assert run.calls[0].epochs_from == "none"
    assert [(each.epoch, each.steps) for each in run.epochs()] == [(0, 20)]
    made = Made(tmp_path)
    made.call(0, driver="train_on_batch")
    made.steps(rng.random(5))  # without fingerprints
    assert made.close().calls[0].epochs_from == "none"


# --- Statistics and selection.


def test_statistics_of_a_fit(fit):
    made, losses, weights = fit
    run = made.close()
    np.testing.assert_array_equal(run.losses(), losses.ravel())
    np.testing.assert_array_equal(run.losses(epoch=5), losses[1])
    np.testing.assert_array_equal(run.losses(epoch=-1), losses[2])
    means = (losses * weights).sum(1) / weights.sum(1)
    np.testing.assert_allclose(run.statistic("epoch_mean"), means, rtol=1e-14)
    np.testing.assert_allclose(run.statistic("epoch_mean", epoch=5), means[1:2], rtol=1e-14)
    np.testing.assert_allclose(run.statistic("batch_mean"), losses.mean(1), rtol=1e-14)
    np.testing.assert_array_equal(run.statistic("last", epoch=-3), losses[:1, -1])
    cumulative = np.cumsum(losses * weights) / np.cumsum(weights)
    found = run.statistic("cumulative_mean", epoch=5)
    np.testing.assert_allclose(found, cumulative[7:14], rtol=1e-14)
    window = run.statistic("window_mean", n=2)
    np.testing.assert_allclose(window[1:], (losses.ravel()[1:] + losses.ravel()[:-1]) / 2)
    for name, statistic in STATISTICS.items():
        assert len(run.statistic(name)) == (3 if statistic.per == "epoch" else 21)


def test_statements_and_statistics_agree_to_the_bit(fit):
    run = fit[0].close()
    groups = np.repeat([0, 1, 2], 7)
    weight = store.table(run.path)["weight"].to_numpy()
    for name in ("epoch_mean", "batch_mean"):
        stated = [getattr(each, name) for each in run.epochs()]
        assert run.statistic(name).tolist() == stated
        assert STATISTICS[name](run.losses(), weight, groups).tolist() == stated


def test_calls_one_after_another(tmp_path):
    made = Made(tmp_path)
    parts = []
    for number in range(3):
        made.call(number, driver="fit", model=0)
        for epoch in range(2):
            parts.append(made.steps(rng.random(4 + number), call=number, epoch=epoch)[0])
    run = made.close()
    np.testing.assert_array_equal(run.losses(), np.concatenate(parts))
    expected = [part.mean() for part in parts]
    np.testing.assert_allclose(run.statistic("batch_mean"), expected, rtol=1e-14)
    np.testing.assert_array_equal(run.losses(call=1), np.concatenate(parts[2:4]))
    np.testing.assert_array_equal(run.losses(call=run.calls[1], epoch=0), parts[2])
    np.testing.assert_array_equal(run.losses(epoch=1), np.concatenate(parts[1::2]))
    np.testing.assert_array_equal(run.losses(epoch=-1), parts[5])
    np.testing.assert_array_equal(run.entries(epoch=1)["loss"], np.concatenate(parts[1::2]))
    np.testing.assert_array_equal(run.entries(epoch=-1)["loss"], parts[5])
    np.testing.assert_array_equal(run.entries(call=2)["call"], [2] * 12)
    assert [each.epoch for each in run.epochs()] == [0, 1] * 3
    with pytest.raises(LossLedgerError, match="call 2 of model 0") as caught:
        run.losses(call=3)
    assert caught.value.slug == "no-call"
    for epoch in (2, "1", 0.5):
        with pytest.raises(LossLedgerError, match=f"Received: {epoch!r}. It has: 0 to 1") as caught:
            run.losses(epoch=epoch)
        assert caught.value.slug == "no-epoch"
    with pytest.raises(LossLedgerError) as caught:
        run.statistic("mode")
    assert caught.value.slug == "unknown-statistic"


def test_two_models_in_turn(tmp_path):
    made = Made(tmp_path)
    made.call(0, driver="train_on_batch", model=0)
    made.call(1, driver="train_on_batch", model=1)
    ids = np.arange(1, 6, dtype="u8") * 7919
    losses = rng.random((2, 60)).astype("f4")
    for step in range(60):
        for model in (0, 1):
            made.steps(
                losses[model, [step]],
                call=model,
                model=model,
                batch_id=ids[[step % (4 + model)]],
            )
    run = made.close()
    assert [call.epochs_from for call in run.calls] == ["batch_id"] * 2
    np.testing.assert_array_equal(run.losses(model=1), losses[1])
    np.testing.assert_array_equal(run.losses(model=0, epoch=3), losses[0, 12:16])
    np.testing.assert_array_equal(run.entries(model=1, epoch=3)["loss"], losses[1, 15:20])
    assert [len(run.epochs(call)) for call in (0, 1)] == [15, 12]
    assert run.entries().num_rows == 120
    with pytest.raises(LossLedgerError, match=r"\[0, 1\]") as caught:
        run.losses()
    assert caught.value.slug == "several-models"


def test_many_calls_cost_few_passes(tmp_path, monkeypatch):
    made = Made(tmp_path)
    made.writer.close()
    made.writer = store.Writer(made.path)
    told = [made.steps(rng.random(3), call=number, epoch=0) for number in range(1000)]
    made.writer.close()
    lines = [json.dumps({"call": number, "driver": "fit"}) for number in range(1000)]
    (made.path / "calls.jsonl").write_text("\n".join(lines) + "\n")
    passes, scan = [], shares.scan

    def counted(folder, *arguments, **options):
        passes.append(folder)
        return scan(folder, *arguments, **options)

    monkeypatch.setattr(shares, "scan", counted)
    assert_stated(Run(made.path).epochs(), [judged(*each) for each in told])
    assert len(passes) < 5


def test_measured_losses(fit):
    made = fit[0]
    for value in (0.5, "nan"):
        made.call(
            0, reported=[{"place": "evaluate", "name": "loss", "epoch": None, "value": value}]
        )
    run = made.close()
    np.testing.assert_array_equal(run.statistic("evaluate"), [0.5, np.nan])
    np.testing.assert_array_equal(run.statistic("evaluate", epoch=-2), [0.5])


def test_an_epoch_of_tens_of_thousands_of_calls(tmp_path):
    """As of a program that calls `fit` for each of its batches."""
    calls = 30_000
    made = Made(tmp_path, segment_rows=10**6)
    call, epoch = np.repeat(np.arange(calls), 4), np.tile([0, 0, 1, 1], calls)
    made.steps(np.arange(4.0 * calls), call=call, epoch=epoch)
    run = made.close()
    found = run.entries("loss", epoch=1)["loss"].to_numpy()
    np.testing.assert_array_equal(found, np.arange(4.0 * calls).reshape(-1, 2, 2)[:, 1].ravel())
    assert run.entries("loss", model=0).num_rows == 4 * calls
    of_epoch = np.arange(4.0 * calls).reshape(-1, 2, 2)[:, 1]
    np.testing.assert_array_equal(run.losses(epoch=1), of_epoch.ravel())
    np.testing.assert_array_equal(run.statistic("epoch_mean", epoch=1), of_epoch.mean(1))
