"""Each cause by itself, against arithmetic of its own in float64 numpy; and several at once."""

import json
import math

import numpy as np
import pytest
from made import Made
from trained import RNG, X, Y, hashed, recorded, sgd

import lossledger as ll
from lossledger.cli import main

LAST = slice(3, 6)  # the second of two epochs of three batches: 32, 32 and 6 rows
ROWS = np.array([32.0, 32.0, 6.0])


def folded(result):
    """Amounts by cause and kind."""
    return {(each.cause, each.kind): each.amount for each in result.causes}


def exact(result):
    assert {each.kind for each in result.causes} <= {"exact"}
    assert abs(result.unexplained) <= 1e-6 * abs(result.b.value)
    return {each.cause: each.amount for each in result.causes}


def close(found, wanted, size=1.0):
    assert set(found) == set(wanted)
    assert found == pytest.approx(wanted, rel=1e-6, abs=1e-6 * size)


def float32(columns, part=LAST):
    return columns["loss"].astype("f4").astype("f8")[part]


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


def test_a_log_with_a_stride(fit):
    losses = float32(sgd()[0])
    wanted = losses.mean() - losses[[1, 2]].mean()
    result = ll.reconcile((fit, "@every=2:batch_mean"), (fit, "batch_mean"))
    close(exact(result), {"hidden_steps": wanted})


# --- Rows.


def test_a_dropped_remainder_in_the_first_epoch_is_exact(tmp_path, fit):
    loop = recorded(tmp_path, "loop", driver="train_on_batch", drop=True, info={"epochs_said": 1})
    losses = float32(sgd()[0], slice(0, 3))
    mean = (ROWS * losses).sum() / 70
    result = ll.reconcile((fit, "epoch_mean"), (loop, "batch_mean"), epoch=0)
    wanted = {"weighting": losses.mean() - mean, "unseen_rows": losses[:2].mean() - losses.mean()}
    close(exact(result), wanted)
    assert result.gap == pytest.approx(6 / 70 * (losses[:2].mean() - losses[2]), rel=1e-9)


def test_a_remainder_never_trained_on_is_another_replay(tmp_path, fit):
    loop = recorded(tmp_path, "loop", driver="train_on_batch", drop=True, info={"epochs_said": 1})
    ours, theirs = float32(sgd()[0]), float32(sgd(drop=True)[0], slice(2, 4))
    result = ll.reconcile((fit, "epoch_mean"), (loop, "batch_mean"))
    wanted = {
        ("weighting", "exact"): ours.mean() - (ROWS * ours).sum() / 70,
        ("unseen_rows", "exact"): ours[:2].mean() - ours.mean(),
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
    wanted = {
        "weighting": ours.mean() - (ROWS * ours).sum() / 70,
        "unseen_rows": ours[:2].mean() - ours.mean(),
    }
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


# --- What a step's loss is made of.


@pytest.mark.parametrize("rate", [0.0, 0.1])
def test_a_penalty(tmp_path, rate):
    plain = recorded(tmp_path, "plain", rate=rate)
    extra = {"layers": [{"class": "Dense", "units": 1, "kernel_regularizer": "l2"}]}
    with_it = recorded(tmp_path, "with", rate=rate, penalty=0.05, info={"configuration": extra})
    columns = sgd(rate=rate, penalty=0.05)[0]
    data = (columns["loss"] - columns["penalty"])[LAST]
    own = (ROWS * columns["penalty"][LAST]).sum() / 70
    result = ll.reconcile(plain, with_it)
    wanted = {("penalty", "exact"): own}
    if rate:
        left = (ROWS * (data - float32(sgd()[0]))).sum() / 70
        wanted["penalty", "replayed"] = left
    close(folded(result), wanted)
    assert abs(result.unexplained) < 1e-7
    close(exact(ll.reconcile(with_it, (with_it, "@loss=data"))), {"penalty": -own})


def test_weights_of_outputs(tmp_path):
    a, b = RNG.random((2, 3)).astype("f4").astype("f8")
    runs = []
    for name, weights in (("one", [1.0, 0.3]), ("other", [1.0, 1.0])):
        made = Made(tmp_path, name)
        made.call(
            0,
            driver="fit",
            model=0,
            weight_kind="rows",
            output_weights={"a_loss": "rows", "b_loss": "rows"},
            configuration={"loss_weights": weights},
        )
        loss = a + weights[1] * b
        made.steps(loss, weight=ROWS, epoch=0, a_loss=a, b_loss=b, penalty=np.zeros(3))
        runs.append(made.close())
    mean = (ROWS * b).sum() / 70
    close(exact(ll.reconcile(*runs)), {"loss_weights": 0.7 * mean})
    forgotten = ll.reconcile(runs[0], (runs[0], "@loss=a_loss+b_loss"))
    close(exact(forgotten), {"loss_weights": 0.7 * mean})


@pytest.mark.parametrize("column", [True, False])
def test_sample_weights_at_weights_that_stand_still(tmp_path, column):
    weight = np.random.default_rng(3).random(70) * 3
    plain = recorded(tmp_path, "plain", rate=0.0)
    said = {} if column else {"arguments": {"sample_weight": {"shape": [70], "dtype": "float32"}}}
    weighted = recorded(tmp_path, "weighted", rate=0.0, weight=weight, info=said)
    per_row = (X @ np.random.default_rng(0).normal(size=3) - Y) ** 2
    wanted = (weight * per_row).sum() / 70 - per_row.mean()
    close(exact(ll.reconcile(plain, weighted)), {"sample_weight": wanted})


def test_a_mean_by_sample_weights_is_another_reduction(tmp_path):
    weight = np.random.default_rng(3).random(70) * 3
    sums = np.array([weight[part].sum() for part in (slice(0, 32), slice(32, 64), slice(64, 70))])
    runs = []
    columns, first, last = sgd(rate=0.0, weight=weight)
    for name, how, divisor in (
        ("rows", "sum_over_batch_size", ROWS),
        ("weights", "mean_with_sample_weight", sums),
    ):
        made = Made(tmp_path, name)
        made.call(
            0,
            driver="fit",
            model=0,
            weight_kind="rows",
            configuration={"reduction": how},
            initial_weights=hashed(first),
            final_weights=hashed(last),
        )
        loss = columns["loss"][LAST] * ROWS / divisor
        made.steps(loss, weight=ROWS, epoch=0, sample_weight=sums, penalty=np.zeros(3))
        runs.append(made.close())
    losses = columns["loss"][LAST]
    wanted = (ROWS * losses * ROWS / sums).sum() / 70 - (ROWS * losses).sum() / 70
    close(exact(ll.reconcile(*runs)), {"reduction": wanted})
    globally = (ROWS * losses).sum() / sums.sum()
    mean = (ROWS * losses * ROWS / sums).sum() / 70
    result = ll.reconcile(runs[1], (runs[1], "epoch_mean:weight=sample_weight"))
    close(exact(result), {"weighting": globally - mean})


def test_a_sum_over_the_batch(tmp_path):
    runs = {
        (how, size): recorded(tmp_path, f"{how}{size}", rate=0.0, reduction=how, size=size)
        for how, size in (("mean", 32), ("sum", 32), ("sum", 10))
    }
    per_row = (X @ np.random.default_rng(0).normal(size=3) - Y) ** 2

    def summed(size):
        sums = [per_row[at : at + size].sum() for at in range(0, 70, size)]
        return np.dot([len(per_row[at : at + size]) for at in range(0, 70, size)], sums) / 70

    result = ll.reconcile(runs["mean", 32], runs["sum", 32])
    close(exact(result), {"reduction": summed(32) - per_row.mean()}, 30)
    result = ll.reconcile(runs["sum", 10], runs["sum", 32])
    close(exact(result), {"reduction": summed(32) - summed(10)}, 30)


def test_masked_batches_of_another_size(tmp_path):
    valid = RNG.integers(1, 7, 24).astype("f8")
    per_row = RNG.random(24)  # the sum over a row's valid targets
    runs = {}
    for size in (8, 12):
        made = Made(tmp_path, f"of{size}")
        made.call(
            0, driver="fit", model=0, weight_kind="rows", initial_weights="w", final_weights="w"
        )
        parts = np.arange(24).reshape(-1, size)
        elements = valid[parts].sum(1)
        made.steps(
            per_row[parts].sum(1) / elements,
            weight=float(size),
            epoch=0,
            elements=elements,
            batch_id=parts[:, 0].astype("u8") * 100 + size,
        )
        runs[size] = made.close()

    def mean(size):
        parts = np.arange(24).reshape(-1, size)
        return (per_row[parts].sum(1) / valid[parts].sum(1)).mean()

    close(exact(ll.reconcile(runs[8], runs[12])), {"weighting": mean(12) - mean(8)})
    result = ll.reconcile(runs[8], (runs[8], "epoch_mean:weight=elements"))
    close(exact(result), {"weighting": per_row.sum() / valid.sum() - mean(8)})


def test_a_mask_at_weights_that_stand_still(tmp_path):
    runs = []
    masked, plain = RNG.random((2, 3)).astype("f4")
    for name, loss, more in (
        ("plain", plain, {}),
        ("masked", masked, {"elements": np.array([9.0, 8.0, 7.0])}),
    ):
        made = Made(tmp_path, name)
        made.call(0, driver="fit", model=0, initial_weights="w", final_weights="w")
        made.steps(loss, epoch=0, batch_id=np.array([1, 2, 3], "u8"), **more)
        runs.append(made.close())
    wanted = masked.astype("f8").mean() - plain.astype("f8").mean()
    close(exact(ll.reconcile(*runs)), {"mask": wanted})


@pytest.mark.parametrize(("factor", "cause"), [(4, "accumulation_scaling"), (2, "replica_scaling")])
def test_a_loss_that_was_divided_before_it_was_logged(tmp_path, factor, cause):
    losses = RNG.random(5).astype("f4")
    runs = []
    for name, divisor in (("whole", 1), ("divided", factor)):
        made = Made(tmp_path, name)
        replicas = {"configuration": {"replicas": 2}} if cause == "replica_scaling" else {}
        made.call(0, driver="custom", model=0, epochs_said=True, **replicas)
        made.steps(losses / np.float32(divisor), epoch=0)
        runs.append(made.close())
    mean = losses.astype("f8").mean()
    close(exact(ll.reconcile(*runs)), {cause: mean / factor - mean})


def test_what_is_not_finite(tmp_path):
    losses = np.array([0.5, np.nan, 0.25, 0.75], "f4")
    made = Made(tmp_path)
    made.call(0, driver="fit", model=0)
    made.steps(losses, epoch=0)
    run = made.close()
    result = ll.reconcile(run, (run, "@finite"))
    assert [each.cause for each in result.causes] == ["nonfinite"]
    assert math.isnan(result.gap)
    assert "1 loss of 4 not finite, first in batch 1" in result.causes[0].evidence
    assert json.loads(result.to_json())["causes"][0]["amount"] == "nan"
    same = ll.reconcile(run, (run, "running_mean"))
    assert same.gap == 0
    assert not same.causes


# --- Several at once; what trainings part on.


def test_three_causes_at_once(tmp_path):
    weight = np.random.default_rng(3).random(70) * 3
    plain = recorded(tmp_path, "plain", rate=0.0)
    more = recorded(tmp_path, "more", rate=0.0, weight=weight, penalty=0.05)
    per_row = (X @ np.random.default_rng(0).normal(size=3) - Y) ** 2
    columns = sgd(rate=0.0, weight=weight, penalty=0.05)[0]
    data = (columns["loss"] - columns["penalty"])[LAST]
    result = ll.reconcile((plain, "epoch_mean"), (more, "batch_mean"))
    wanted = {
        "weighting": columns["loss"][LAST].mean() - (ROWS * columns["loss"][LAST]).sum() / 70,
        "penalty": columns["penalty"][0],
        "sample_weight": (ROWS * data).sum() / 70 - per_row.mean(),
    }
    close(exact(result), wanted)


@pytest.mark.parametrize(
    ("change", "cause", "step"),
    [
        ({"rate": 0.11}, "hyperparameters", 0),
        ({"size": 35}, "hyperparameters", 0),
        ({"order": lambda _: np.arange(70)[::-1]}, "order", 0),
        ({"x": X + 0.01}, "data", 0),
        ({"x": X[:64], "y": Y[:64]}, "unseen_rows", 2),
    ],
)
def test_two_trainings_that_differ_in_one_thing_are_a_replay(tmp_path, fit, change, cause, step):
    result = ll.reconcile(fit, recorded(tmp_path, "other", **change))
    assert {each.cause for each in result.causes} == {cause}
    assert result.causes[-1].kind == "replayed"
    assert result.divergence.step == step
    assert result.divergence.cause == cause
    assert result.unexplained == 0


def test_two_trainings_that_differ_in_more_are_none(tmp_path, fit):
    other = recorded(tmp_path, "other", rate=0.2, order=lambda _: np.arange(70)[::-1])
    result = ll.reconcile(fit, other)
    assert not result.causes
    assert result.unexplained == result.gap
    assert "hyperparameters, order" in result.verdict


def test_seeds_alone_give_no_cause(tmp_path):
    """200 pairs: other initial weights, orders drawn at random, and noise in the predictions."""
    info = {"arguments": {"shuffle": True}, "configuration": {"seed": 0}}
    for pair in range(200):
        runs = []
        for side in range(2):
            seed = 2 * pair + side
            drawn = np.random.default_rng(seed)
            training = {
                0: {"seed": seed},
                1: {"order": lambda _, drawn=drawn: drawn.permutation(24)},
                2: {"noise": drawn},
                3: {"seed": seed, "order": lambda _, drawn=drawn: drawn.permutation(24)},
            }[pair % 4]
            layers = [{"class": "Dropout", "rate": 0.5, "training": True}] if pair % 4 == 2 else []
            said = {**info, "configuration": {"seed": seed, "layers": layers}}
            runs.append(
                recorded(tmp_path, f"{seed}", x=X[:24], y=Y[:24], size=8, info=said, **training)
            )
        result = ll.reconcile(*runs)
        assert not result.causes
        assert result.unexplained == result.gap != 0
        assert result.divergence.cause in ("initial_weights", "order", "randomness")
        assert "drawn at random" in result.verdict


def test_a_loop_that_reorders_its_rows_draws_them(tmp_path):
    drawn = {"shuffle": True}
    fit = recorded(
        tmp_path,
        "fit",
        order=lambda epoch: np.random.default_rng(epoch).permutation(70),
        info={"arguments": drawn},
    )
    for seeds, causes in ((range(10, 12), set()), ([10, 10], {"order"})):
        loop = recorded(
            tmp_path,
            f"loop{seeds[1]}",
            driver="train_on_batch",
            order=lambda epoch, seeds=seeds: np.random.default_rng(seeds[epoch]).permutation(70),
            info={"epochs_said": True},
        )
        result = ll.reconcile(fit, (loop, "epoch_mean"))
        assert {each.cause for each in result.causes} == causes
        assert result.divergence.cause == "order"


def test_a_call_that_goes_on_where_another_ended(tmp_path):
    made = Made(tmp_path)
    for call, (first, last) in enumerate((("u", "v"), ("v", "w"))):
        made.call(call, driver="fit", model=0, initial_weights=first, final_weights=last)
        made.steps(np.full(3, 0.5 - 0.25 * call), call=call, epoch=0)
    run = made.close()
    result = ll.reconcile((run, "@0"), (run, "@call=1"))
    assert folded(result) == {("initial_weights", "replayed"): -0.25}


# --- May they be compared?


@pytest.mark.parametrize(
    ("one", "other", "reason"),
    [
        ({"kind": "mse"}, {"kind": "mae"}, "different functions"),
        (
            {"info": {"arguments": {"y": {"shape": [70, 2], "dtype": "float32"}}}},
            {"info": {"arguments": {"y": {"shape": [70, 3], "dtype": "float32"}}}},
            "other shapes a row",
        ),
        (
            {"info": {"configuration": {"layers": [{"class": "Dense", "units": 4}]}}},
            {"info": {"configuration": {"layers": [{"class": "Dense", "units": 8}]}}},
            "differ in structure",
        ),
    ],
)
def test_numbers_that_mean_other_things_are_not_compared(tmp_path, one, other, reason):
    runs = [recorded(tmp_path, name, **each) for name, each in (("one", one), ("other", other))]
    result = ll.reconcile(*runs)
    assert not result.comparable
    assert reason in result.reasons[0]
    assert not result.causes
    assert main(["reconcile", *(str(run.path) for run in runs)]) == 1
    assert main(["reconcile", *(str(run.path) for run in runs), "--across"]) == 0
    across = ll.reconcile(*runs, across=True)
    assert not across.comparable
    assert across.reasons == result.reasons


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("mse", {"class": "MeanSquaredError", "name": "x", "reduction": "sum_over_batch_size"}),
        ("binary_crossentropy", {"class": "BinaryCrossentropy", "from_logits": False}),
        ({"class": "BinaryCrossentropy"}, {"class": "BinaryCrossentropy", "from_logits": True}),
    ],
)
def test_one_loss_may_be_written_in_several_ways(tmp_path, one, other):
    runs = [
        recorded(tmp_path, name, info={"configuration": {"loss": loss}})
        for name, loss in (("one", one), ("other", other))
    ]
    result = ll.reconcile(*runs)
    assert result.comparable
    assert result.gap == 0


# --- Numbers that were measured, and are of no step.


@pytest.mark.parametrize(
    ("layers", "still", "cause"),
    [
        ([{"class": "Dense"}], False, "moving_weights"),
        ([{"class": "Dropout", "rate": 0.5, "training": True}], True, "inference_mode"),
        ([{"class": "Dropout", "rate": 0.5, "training": True}], False, None),
        ([], False, None),
    ],
)
def test_an_evaluation_without_a_model(tmp_path, layers, still, cause):
    made = Made(tmp_path)
    made.call(
        0,
        driver="fit",
        model=0,
        initial_weights="v",
        final_weights="v" if still else "w",
        configuration={"layers": layers},
    )
    made.steps([0.5, 0.25], epoch=0)
    made.call(0, reported=[{"place": "evaluate", "name": "loss", "epoch": None, "value": 0.25}])
    run = made.close()
    result = ll.reconcile(run, (run, "evaluate"))
    wanted = {} if cause is None else {(cause, "measured"): -0.125}
    assert folded(result) == wanted
    assert result.unexplained == (-0.125 if cause is None else 0)
    if cause is None:
        assert "moving_weights and inference_mode together" in result.verdict
    back = ll.reconcile((run, "evaluate"), run)
    assert folded(back) == {key: -amount for key, amount in wanted.items()}


@pytest.mark.parametrize("exact_resume", [True, False])
def test_one_training_in_two_calls(tmp_path, exact_resume):
    """A training of four epochs at once, and of two and two; the second half may go otherwise."""
    losses = RNG.random((4, 3)).astype("f4")
    whole = Made(tmp_path, "whole")
    whole.call(0, driver="fit", model=0, initial_weights="u", final_weights="w")
    whole.steps(losses.ravel(), epoch=np.repeat(np.arange(4), 3))
    halves = Made(tmp_path, "halves")
    others = losses[2:] + np.float32(0 if exact_resume else 0.125)
    for call, (first, last) in enumerate((("u", "v"), ("v", "w"))):
        halves.call(call, driver="fit", model=0, initial_weights=first, final_weights=last)
        epochs = np.repeat([0, 1], 3) + 2 * call
        halves.steps((losses[:2], others)[call].ravel(), call=call, epoch=epochs)
    result = ll.reconcile(whole.close(), halves.close())
    if exact_resume:
        assert result.gap == 0
        assert "identical" in result.verdict
    else:
        assert result.divergence.step == 6
        assert not result.causes
        assert "nothing that is recorded tells why" in result.verdict


def test_other_epochs_of_equal_trainings(tmp_path):
    runs = [recorded(tmp_path, f"{epochs}", epochs=epochs) for epochs in (2, 4)]
    found = exact(ll.reconcile(*runs))
    losses = sgd(epochs=4)[0]["loss"].astype("f4").astype("f8").reshape(4, 3)
    means = (losses * ROWS).sum(1) / 70
    close(found, {"convention": means[3] - means[1]})
