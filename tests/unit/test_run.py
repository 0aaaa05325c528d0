import json
import math
import subprocess
import sys
from datetime import timedelta

import numpy as np
import pytest
from made import NOW, Made

import lossledger as ll
from lossledger import LossLedgerError, shares, statement, store
from lossledger.call import entries_of
from lossledger.run import Run, runs_in
from lossledger.statistics import STATISTICS, keras_mean

rng = np.random.default_rng(7)


@pytest.fixture
def fit(tmp_path):
    """A fit of three epochs of seven steps, the last batch of each smaller, from epoch 4 on."""
    made = Made(tmp_path)
    made.call(0, driver="fit", model=0, weight_kind="rows", arguments={"initial_epoch": 4})
    loss = rng.random(21).astype("f4")
    weight = np.tile([8.0] * 6 + [3.0], 3)
    made.steps(loss, epoch=np.repeat([4, 5, 6], 7), weight=weight)
    made.history(0, "loss", keras_mean(loss, weight, np.repeat([0, 1, 2], 7)), first=4)
    return made, loss.astype("f8").reshape(3, 7), weight.reshape(3, 7)


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


@pytest.mark.parametrize("window", [1, 7, 50, 51, 120, 1000])
def test_a_window_of_any_size_states_the_same(tmp_path, monkeypatch, window):
    made = Made(tmp_path)
    # A block has 50 rows here: epochs begin and end inside one, at its edge, or span several.
    lengths = [1, 49, 200, 1, 130, 3, 66]
    epoch = np.repeat(np.arange(7), lengths)
    loss, weight = made.steps(
        rng.normal(size=450), epoch=epoch, weight=rng.integers(1, 9, 450).astype("f8")
    )
    monkeypatch.setattr(statement, "WINDOW", window)
    monkeypatch.setattr(statement.Windows.__init__, "__defaults__", (window,))
    statements = made.close().epochs()
    assert_stated(statements, [judged(loss[epoch == e], weight[epoch == e]) for e in range(7)])


@pytest.mark.parametrize("segment_rows", [2, 50])
def test_losses_that_are_not_finite(tmp_path, monkeypatch, segment_rows):
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
    with pytest.raises(LossLedgerError, match="steps_per_epoch=0"):
        ll.open(made.path, steps_per_epoch=0)


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
    with pytest.raises(LossLedgerError, match="0 to 1") as caught:
        run.losses(epoch=2)
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
    for number in range(1000):
        made.steps(rng.random(3), call=number, epoch=0)
    made.writer.close()
    lines = [json.dumps({"call": number, "driver": "fit"}) for number in range(1000)]
    (made.path / "calls.jsonl").write_text("\n".join(lines) + "\n")
    passes, scan = [], shares.scan

    def counted(folder, *arguments, **options):
        passes.append(folder)
        return scan(folder, *arguments, **options)

    monkeypatch.setattr(shares, "scan", counted)
    assert len(Run(made.path).epochs()) == 1000
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


# --- Reported numbers.


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


# --- Opening.


def test_open_by_path_name_and_latest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = [
        Made(tmp_path / "runs", name, when=NOW + timedelta(seconds=second))
        for second, name in enumerate(["first", "twin", "twin", "last"])
    ]
    for each in made:
        each.close()
    ids = [each.path.name for each in made]
    for wanted in (ids[0], "first", f"runs/{ids[0]}", "runs/first", made[0].path, "latest~3"):
        assert ll.open(wanted).id == ids[0]
    for wanted in ("latest", "runs/latest", "runs/latest~0"):
        assert ll.open(wanted).id == ids[3]
    assert ll.open().id == ids[3]
    assert ll.open(tmp_path / "runs" / "latest~1").id == ids[2]
    assert ll.open("last", directory=tmp_path / "runs").name == "last"
    with pytest.raises(LossLedgerError) as caught:
        ll.open("twin")
    assert caught.value.slug == "ambiguous-name"
    assert all(one in str(caught.value) for one in ids[1:3])
    for wanted in ("latest~4", "second", "elsewhere/first", "runs", "runs/entries", tmp_path):
        with pytest.raises(LossLedgerError, match="no such run") as caught:
            ll.open(wanted)
        assert caught.value.slug == "no-run"
    with pytest.raises(LossLedgerError, match=ids[3]):
        ll.open("second")
    (tmp_path / "runs" / "latest").unlink()
    assert ll.open("runs/latest").id == ids[3]
    (tmp_path / "runs" / "latest").symlink_to("gone")
    assert ll.open("latest").id == ids[3]


def test_many_runs_of_one_second_are_in_order(tmp_path):
    for _ in range(12):
        Made(tmp_path).writer.close()
    ids = [info.id for info in runs_in(tmp_path)]
    assert ids[0] == "2026-11-22_18-38-54-train"
    assert ids[1:] == [f"{ids[0]}-{n}" for n in range(2, 13)]
    (tmp_path / "latest").unlink()
    assert ll.open(tmp_path / "latest").id == ids[-1]


def test_runs_in(tmp_path):
    Made(tmp_path, "done").close()
    Made(tmp_path, "torn", when=NOW + timedelta(1)).writer.close()
    damaged = Made(tmp_path, "bad", when=NOW + timedelta(2))
    (damaged.path / "run.json").write_text("{")
    (tmp_path / "no-run").mkdir()
    (tmp_path / "file").touch()
    done, torn, bad = runs_in(tmp_path)
    assert (done.name, done.complete, done.entries, done.problem) == ("done", True, 0, None)
    assert (torn.name, torn.complete, torn.entries) == ("torn", False, None)
    assert bad.name == "bad"
    assert "run.json" in bad.problem
    assert done.created == NOW.isoformat()
    with pytest.raises(LossLedgerError) as caught:
        runs_in(tmp_path / "none")
    assert caught.value.slug == "no-run"


def test_a_newer_format(tmp_path):
    made = Made(tmp_path, format=3)
    with pytest.raises(LossLedgerError, match="Upgrade") as caught:
        ll.open(made.path)
    assert caught.value.slug == "format-newer"


def test_a_run_that_was_recorded_with_next_to_nothing(tmp_path):
    path = tmp_path / "bare"
    path.mkdir()
    (path / "run.json").write_text("{}")
    run = ll.open(path)
    assert (run.id, run.name, run.complete, run.calls) == ("bare", "bare", False, [])
    assert run.losses().tolist() == []
    assert run.statistic("epoch_mean").tolist() == []
    assert run.epochs() == []
    assert run.reported() == []
    assert run.entries().num_rows == 0


def test_entries_of_a_call_that_was_not_written_down(tmp_path):
    made = Made(tmp_path)
    made.steps([1, 2, 3], call=4, model=2, epoch=0)
    (call,) = made.close().calls
    assert (call.number, call.model, call.steps, call.driver) == (4, 2, 3, "custom")
    assert call.mean_of_rows
    assert (call.arguments, call.configuration, call.weight_kind) == ({}, {}, "rows")


def test_a_growing_run(tmp_path):
    made = Made(tmp_path)
    made.call(0, driver="fit")
    run = ll.open(made.path)
    for epoch in range(3):
        made.steps([1, 2], epoch=epoch)
        made.writer.flush()
        assert len(run.epochs()) == epoch + 1
        assert len(run.losses()) == run.entries().num_rows == 2 * epoch + 2
    made.call(1, driver="fit")
    assert len(run.calls) == 2
    made.writer.close()


def test_one_look_at_a_growing_run_is_about_the_same_entries(tmp_path):
    made = Made(tmp_path)
    made.call(0, driver="train_on_batch", steps_per_epoch=4)
    loss, _ = made.steps(rng.random(70))
    made.writer.flush()
    calls = Run(made.path).calls
    made.steps(rng.random(70))
    made.steps(rng.random(5), call=1)
    made.close()
    blocks = [block for _, block in entries_of(made.path, calls, ["loss", "epoch"])]
    np.testing.assert_array_equal(np.concatenate([b["loss"] for b in blocks]), loss)
    np.testing.assert_array_equal(np.concatenate([b["epoch"] for b in blocks]), np.arange(70) // 4)


def test_fewer_entries_than_there_were(tmp_path):
    made = Made(tmp_path)
    for epoch in range(4):
        made.steps(np.ones(50), epoch=epoch)
        made.writer.flush()
    run = made.close()
    (made.path / "entries" / "000003.parquet").unlink()
    with pytest.raises(LossLedgerError, match="150 of 200") as caught:
        run.epochs()
    assert caught.value.slug == "segment-damaged"


def test_reading_imports_little(tmp_path):
    code = (
        "import sys, lossledger\nrun = lossledger.open(sys.argv[1])\nrun.epochs()\nrun.reported()\n"
        "print(sorted({'pandas', 'keras', 'pyarrow.dataset', 'pyarrow.compute'}"
        " & {*sys.modules}))"
    )
    made = Made(tmp_path)
    made.call(0, driver="fit")
    made.steps([1, 2, 3], epoch=0)
    made.close()
    command = [sys.executable, "-c", code, made.path]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "pandas" not in done.stdout
    assert "keras" not in done.stdout
    assert "pyarrow." not in done.stdout
