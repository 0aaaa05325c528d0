"""Each cause by itself, against arithmetic of its own in float64 numpy; and several at once."""

import numpy as np
import pytest
from judged import LAST, ROWS, close, exact, float32, folded
from made import Made
from trained import RNG, X, Y, recorded, sgd

import lossledger as ll


@pytest.fixture
def fit(tmp_path):
    return recorded(tmp_path, "fit")


# --- One run, two statistics.


def test_identical_runs_have_no_gap_and_say_so(tmp_path, fit):
    result = ll.reconcile(fit, recorded(tmp_path, "again"))
    assert result.gap == result.unexplained == 0
    assert not result.causes
    assert not result.differences
    assert result.divergence is None
    assert "identical: all 3 steps" in result.verdict


def test_weighting_by_rows_against_batches(fit):
    losses = float32(sgd()[0])
    wanted = losses.mean() - (ROWS * losses).sum() / 70
    result = ll.reconcile((fit, "epoch_mean"), (fit, "batch_mean"))
    close(exact(result), {"weighting": wanted})
    assert "Batch 2 of 3 has 6 rows" in result.causes[0].evidence


@pytest.mark.parametrize("statistic", ["raw", "last", "window_mean:n=2", "ema:beta=0.9"])
def test_another_statistic_is_another_convention(fit, statistic):
    losses = sgd()[0]["loss"].astype("f4").astype("f8")
    weights = 0.9 ** np.arange(5, -1, -1)
    value = {
        "raw": losses[-1],
        "last": losses[-1],
        "window_mean:n=2": losses[-2:].mean(),
        "ema:beta=0.9": (weights * losses).sum() / weights.sum(),
    }[statistic]
    mean = (ROWS * losses[LAST]).sum() / 70
    close(exact(ll.reconcile(fit, (fit, statistic))), {"convention": value - mean})


def test_a_running_mean_against_the_raw_loss_of_a_batch(fit):
    losses = float32(sgd()[0])
    mean = (ROWS * losses)[:2].sum() / 64
    result = ll.reconcile((fit, "@batch=1:running_mean"), (fit, "@batch=1:raw"))
    close(exact(result), {"convention": losses[1] - mean})


def test_epochs_of_one_call(fit):
    losses = sgd()[0]["loss"].astype("f4").astype("f8").reshape(2, 3)
    means = (losses * ROWS).sum(1) / 70
    result = ll.reconcile((fit, "@epoch=0"), fit)
    close(exact(result), {"convention": means[1] - means[0]})


def test_a_running_mean_before_its_epoch_ends(fit):
    losses = float32(sgd()[0], slice(3, 6))
    whole, part = ((ROWS * losses)[:n].sum() / ROWS[:n].sum() for n in (3, 2))
    result = ll.reconcile((fit, "@batch=1:running_mean"), (fit, "epoch_mean"))
    close(exact(result), {"convention": whole - part})


def test_a_mean_that_nothing_resets(fit):
    losses, rows = sgd()[0]["loss"].astype("f4").astype("f8"), np.tile(ROWS, 2)
    wanted = (losses * rows)[3:].sum() / 70 - (losses * rows).sum() / 140
    result = ll.reconcile((fit, "cumulative_mean"), (fit, "epoch_mean"))
    close(exact(result), {"state_not_reset": wanted})
    result = ll.reconcile((fit, "cumulative_mean"), (fit, "batch_mean"))
    plain = losses[3:].mean() - (losses * rows)[3:].sum() / 70
    close(exact(result), {"state_not_reset": wanted, "weighting": plain})


@pytest.mark.parametrize("keras", ["3.14.1", "3.15.0"])
def test_what_train_on_batch_returned(tmp_path, keras):
    losses = RNG.random(6).astype("f4")
    means = np.cumsum(losses.astype("f8")) / np.arange(1, 7)
    shown = means if keras == "3.14.1" else losses
    made = Made(tmp_path, keras=keras)
    made.call(0, driver="train_on_batch", model=0)
    made.steps(losses, weight=10.0, epoch=0, reported=shown.astype("f4"))
    run = made.close()
    wanted = losses.astype("f8").mean() - shown.astype("f4").astype("f8").mean()
    expected = {"state_not_reset": wanted} if keras == "3.14.1" else {}
    close(exact(ll.reconcile((run, "reported"), (run, "batch_mean"))), expected)


def test_a_reported_number_rounds(tmp_path):
    losses = RNG.random(3000).astype("f4")
    total = np.add.accumulate(losses * np.float32(32), dtype="f4")[-1]
    made = Made(tmp_path)
    made.call(0, driver="fit", model=0, weight_kind="rows")
    made.steps(losses, weight=32.0, epoch=0)
    made.history(0, "loss", [total / np.float32(96000)])
    run = made.close()
    result = ll.reconcile((run, "reported"), (run, "epoch_mean"))
    wanted = losses.astype("f8").mean() - float(total / np.float32(96000))
    assert exact(result) == pytest.approx({"float32_accumulation": wanted}, rel=1e-6)
    assert "to the last bit" in result.causes[0].evidence


def test_a_reported_number_that_is_none_of_its_statistics_is_unexplained(tmp_path):
    made = Made(tmp_path)
    made.call(0, driver="fit", model=0, weight_kind="rows")
    made.steps([0.5, 0.25], epoch=0)
    made.history(0, "loss", [0.4375])
    run = made.close()
    result = ll.reconcile((run, "reported"), run)
    assert result.unexplained == 0.375 - 0.4375
    assert "differs from epoch_mean" in result.verdict


def test_steps_that_a_callback_trains_after_an_epoch_was_reported(tmp_path):
    losses = np.array([0.5, 0.25, 0.75, 4.0], "f4")
    made = Made(tmp_path)
    made.call(0, driver="fit", model=0, weight_kind="rows")
    made.steps(losses, epoch=0)
    made.history(0, "loss", [0.5])
    run = made.close()
    result = ll.reconcile((run, "reported"), (run, "epoch_mean"))
    close(exact(result), {"hidden_steps": 1.375 - 0.5})
    assert "epoch's first 3 steps" in result.causes[0].evidence


def test_a_log_with_a_stride(fit):
    losses = float32(sgd()[0])
    wanted = losses.mean() - losses[[1, 2]].mean()
    result = ll.reconcile((fit, "@every=2:batch_mean"), (fit, "batch_mean"))
    close(exact(result), {"hidden_steps": wanted})


# --- Rows.


def test_a_dropped_remainder_in_the_first_epoch_is_exact(tmp_path, fit):
    loop = recorded(tmp_path, "loop", driver="train_on_batch", drop=True, info={"epochs_said": 1})
    losses = float32(sgd()[0], slice(0, 3))
    result = ll.reconcile((fit, "epoch_mean"), (loop, "batch_mean"), epoch=0)
    close(exact(result), {"unseen_rows": 6 / 70 * (losses[:2].mean() - losses[2])})


def test_a_remainder_that_a_list_has_and_a_mean_by_rows_has_not(tmp_path):
    """The list's plain mean is made one of rows, and then the rows are taken out."""
    fit = recorded(tmp_path, "fit", drop=True)
    loop = recorded(tmp_path, "loop", driver="train_on_batch", info={"epochs_said": 1})
    losses = float32(sgd()[0], slice(0, 3))
    result = ll.reconcile((loop, "batch_mean"), (fit, "epoch_mean"), epoch=0)
    by_rows = (ROWS * losses).sum() / 70
    wanted = {"weighting": by_rows - losses.mean(), "unseen_rows": losses[:2].mean() - by_rows}
    close(exact(result), wanted)


def test_a_remainder_never_trained_on_is_another_replay(tmp_path, fit):
    loop = recorded(tmp_path, "loop", driver="train_on_batch", drop=True, info={"epochs_said": 1})
    ours, theirs = float32(sgd()[0]), float32(sgd(drop=True)[0], slice(2, 4))
    result = ll.reconcile((fit, "epoch_mean"), (loop, "batch_mean"))
    wanted = {
        ("unseen_rows", "exact"): ours[:2].mean() - (ROWS * ours).sum() / 70,
        ("unseen_rows", "replayed"): theirs.mean() - ours[:2].mean(),
    }
    close(folded(result), wanted)
    assert result.unexplained == 0
    assert result.divergence.step == 2
    assert result.divergence.cause == "unseen_rows"


def test_shuffled_and_without_its_remainder_can_only_be_told_in_part(tmp_path):
    def drawn(epoch):
        return np.random.default_rng(epoch).permutation(70)

    fit = recorded(tmp_path, "fit", order=drawn, info={"arguments": {"shuffle": True}})
    loop = recorded(tmp_path, "loop", driver="train_on_batch", drop=True, info={"epochs_said": 1})
    ours, theirs = float32(sgd(order=drawn)[0]), float32(sgd(drop=True)[0], slice(2, 4))
    result = ll.reconcile(fit, loop)
    wanted = {"unseen_rows": ours[:2].mean() - (ROWS * ours).sum() / 70}
    close({each.cause: each.amount for each in result.causes}, wanted)
    assert result.unexplained == pytest.approx(theirs.mean() - ours[:2].mean(), rel=1e-9)
    assert result.divergence.cause == "order"
    assert "order, unseen_rows" in result.verdict


def test_rows_left_out_at_weights_that_stand_still(tmp_path):
    whole = recorded(tmp_path, "whole", rate=0.0)
    part = recorded(tmp_path, "part", rate=0.0, x=X[:56], y=Y[:56])
    per_row = (X @ np.random.default_rng(0).normal(size=3) - Y) ** 2
    close(exact(ll.reconcile(whole, part)), {"unseen_rows": per_row[:56].mean() - per_row.mean()})


def test_other_rows_of_the_same_number(tmp_path):
    one = recorded(tmp_path, "one", rate=0.0, x=X[:48], y=Y[:48])
    other = recorded(tmp_path, "other", rate=0.0, x=X[22:], y=Y[22:])
    per_row = (X @ np.random.default_rng(0).normal(size=3) - Y) ** 2
    result = ll.reconcile(one, other)
    assert result.divergence.cause == "data"
    close(exact(result), {"data": per_row[22:].mean() - per_row[:48].mean()})


def test_batches_of_another_size_at_weights_that_stand_still(tmp_path):
    runs = [recorded(tmp_path, f"of{size}", rate=0.0, size=size) for size in (32, 16)]
    assert exact(ll.reconcile(*runs)) == {}
    losses = [float32(sgd(rate=0.0, size=size)[0], slice(0, n)) for size, n in ((32, 3), (16, 5))]
    result = ll.reconcile(*((run, "batch_mean") for run in runs))
    close(exact(result), {"weighting": losses[1].mean() - losses[0].mean()})


def test_steps_counted_twice_after_a_resume(tmp_path):
    losses = RNG.random(7).astype("f4")
    ids = np.array([5, 6, 5, 6, 7, 8, 9], "u8")
    runs = []
    for name, kept in (("once", slice(2, None)), ("twice", slice(None))):
        made = Made(tmp_path, name)
        made.call(0, driver="custom", model=0, epochs_said=True)
        made.steps(losses[kept], batch_id=ids[kept], epoch=0)
        runs.append(made.close())
    wanted = losses.astype("f8").mean() - losses[2:].astype("f8").mean()
    close(exact(ll.reconcile(*runs)), {"double_count": wanted})


def test_means_that_nothing_resets_differ_by_earlier_epochs_too(tmp_path):
    """A remainder that one of them drops is dropped in every epoch."""
    losses = RNG.random(6).astype("f4")
    batches, rows = np.tile(np.arange(5, 8, dtype="u8"), 2), np.tile([32, 32, 6], 2)
    runs = []
    for name, kept in (("whole", rows > 0), ("dropped", rows > 6)):
        made = Made(tmp_path, name)
        made.call(0, driver="custom", model=0, epochs_said=True)
        epoch = np.repeat([0, 1], 3)[kept]
        made.steps(losses[kept], weight=rows[kept], batch_id=batches[kept], epoch=epoch)
        runs.append((made.close(), "cumulative_mean"))
    kept = losses[rows > 6].astype("f8").mean()
    wanted = kept - np.average(losses.astype("f8"), weights=rows)
    close(exact(ll.reconcile(*runs)), {"unseen_rows": wanted})
    earlier = ll.reconcile((runs[0][0], "@epoch=0:cumulative_mean"), runs[0])
    assert [each.cause for each in earlier.causes] == ["convention"]
