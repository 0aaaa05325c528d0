"""Causes in what a step's loss is made of, each against arithmetic of its own."""

import json
import math

import numpy as np
import pytest
from judged import LAST, ROWS, close, exact, float32, folded
from made import Made, ids
from trained import RNG, X, Y, configured, hashed, recorded, sgd

import lossledger as ll


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


def test_penalties_that_differ_though_no_record_says_so(tmp_path):
    """As of a layer whose add_loss has another factor: its first step tells, on one data term."""
    columns = [sgd(penalty=each)[0] for each in (0.01, 0.2)]
    runs = [recorded(tmp_path, f"{each}", penalty=each) for each in (0.01, 0.2)]
    sums = [np.dot(ROWS, each["penalty"][LAST]) / 70 for each in columns]
    means = [np.dot(ROWS, each["loss"][LAST]) / 70 for each in columns]
    own = sums[1] - sums[0]
    left = means[1] - means[0] - own
    close(folded(ll.reconcile(*runs)), {("penalty", "exact"): own, ("penalty", "replayed"): left})
    slower = recorded(tmp_path, "slower", penalty=0.01, rate=0.05)
    found = folded(ll.reconcile(runs[0], slower))
    assert set(found) == {("hyperparameters", "replayed")}  # other weights, of one regularizer


@pytest.mark.parametrize("beside", ["sample_weight", "hyperparameters"])
def test_a_penalty_beside_what_only_the_entries_show(tmp_path, beside):
    """Weights twice as large, or a rate that a callback sets: on no record, but in the steps."""
    weight = RNG.random(70)
    said = {"arguments": {"sample_weight": {"shape": [70], "dtype": "float32"}}}
    given = {"weight": weight, "penalty": 0.05, "info": {**said, "configuration": configured(0.1)}}
    other = {"weight": 2 * weight} if beside == "sample_weight" else {"rate": 0.05}
    one = recorded(tmp_path, "one", **given)
    other = recorded(tmp_path, "other", **{**given, "penalty": 0.0, **other})
    result = ll.reconcile(one, other)
    own = np.dot(ROWS, sgd(weight=weight, penalty=0.05)[0]["penalty"][LAST]) / 70
    close(folded(result), {("penalty", "exact"): -own})
    assert f"differ in {', '.join(sorted(('penalty', beside)))}" in result.verdict


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


@pytest.mark.parametrize("other", [False, True])
def test_weights_by_which_a_step_of_ones_own_adds_its_losses(tmp_path, other):
    """As an autoencoder weighs a divergence: no record says it, its named losses do."""
    parts = np.random.default_rng(7).random((2, 2, 6)).astype("f4").astype("f8")
    parts, runs = (parts if other else parts[:1].repeat(2, 0)), []
    for weight, (first, second) in zip((1.0, 0.1), parts, strict=True):
        made = Made(tmp_path, f"beta{weight}")
        own = {"custom_compute_loss" if other else "custom_train_step": True, "loss": None}
        made.call(
            0,
            driver="fit",
            model=0,
            weight_kind="one",
            output_weights={"rebuilt_loss": "one", "kl_loss": "one"},
            configuration=own,
            initial_weights="one",
        )
        made.steps(
            first + weight * second,
            weight=1.0,
            rows=np.full(6, 8),
            epoch=np.repeat([0, 1], 3),
            batch_id=np.tile([11, 12, 13], 2).astype("u8"),
            rebuilt_loss=first,
            kl_loss=second,
            penalty=np.full(6, np.nan),
        )
        runs.append(made.close())
    result = ll.reconcile(*runs)
    last = parts[:, :, 3:].mean(-1)
    if not other:
        close(exact(result), {"loss_weights": -0.9 * last[0, 1]})
        return
    middle = last[:, 0] + 0.55 * last[:, 1]
    wanted = {("loss_weights", "exact"): -0.45 * last[:, 1].sum()}
    wanted["loss_weights", "replayed"] = middle[1] - middle[0]
    close(folded(result), wanted)
    assert "1 rebuilt_loss + 0.1 kl_loss in b" in result.causes[0].evidence


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
    rng = np.random.default_rng(0)  # of its own: by chance all batches may have as many
    valid = rng.integers(1, 7, 24).astype("f8")
    per_row = rng.random(24)  # the sum over a row's valid targets
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


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_losses_that_are_dropped_where_the_other_has_them(tmp_path, bad):
    """What np.nanmean leaves out of b is in a's mean, whatever made it there."""
    losses = RNG.random(4).astype("f4").astype("f8")
    runs = []
    for name, broken in (("whole", False), ("broken", True)):
        made = Made(tmp_path, name)
        made.call(0, driver="fit", model=0, initial_weights="w", final_weights=name)
        seen = np.where((np.arange(4) == 2) & broken, bad, losses)
        ids = np.array([1, 2, 9 if broken else 3, 4], "u8")
        made.steps(seen, epoch=0, batch_id=ids, penalty=np.zeros(4))
        runs.append(made.close())
    result = ll.reconcile(runs[0], (runs[1], "@finite"))
    close(exact(result), {"nonfinite": losses[[0, 1, 3]].mean() - losses.mean()})
    assert (
        "b has 1 loss of 4 not finite, first in batch 2 and drops it" in result.causes[0].evidence
    )
    back = ll.reconcile((runs[1], "@finite"), runs[0])
    close(exact(back), {"nonfinite": losses.mean() - losses[[0, 1, 3]].mean()})


def test_losses_that_are_dropped_beside_a_loop_that_skipped_their_batch(tmp_path):
    """NaN times a learning rate of 0 is NaN: the weights, and all losses after that batch."""
    losses, sgd = RNG.random(6).astype("f4").astype("f8"), {"class": "SGD", "learning_rate": 0.0}
    runs = []
    for name, steps in (("poisoned", np.arange(6)), ("skipped", np.array([0, 1, 3, 4, 5]))):
        made = Made(tmp_path, name)
        made.call(
            0, driver="fit", model=0, initial_weights="w", final_weights=name,
            configuration={"optimizer": sgd},
        )  # fmt: skip
        seen = np.where((steps >= 2) & (name == "poisoned"), np.nan, losses[steps])
        made.steps(seen, epoch=0, batch_id=ids(6)[steps], penalty=np.zeros(len(steps)))
        runs.append(made.close())
    result = ll.reconcile((runs[0], "@finite"), runs[1])
    close(exact(result), {"nonfinite": losses[[0, 1, 3, 4, 5]].mean() - losses[:2].mean()})
    told = result.causes[0].evidence
    assert "a has 4 losses of 6 not finite, first in batch 2 and drops them" in told


def test_losses_that_are_dropped_in_batches_of_other_sizes(tmp_path):
    """A NaN in row 10 spreads over all that came after it: over more rows of the larger batches."""
    losses, sgd = RNG.random(12).astype("f4").astype("f8"), {"class": "SGD", "learning_rate": 0.0}
    runs = []
    for size in (2, 4):
        made = Made(tmp_path, f"by-{size}")
        made.call(
            0, driver="fit", model=0, initial_weights="w", final_weights=f"nan-{size}",
            arguments={"batch_size": size}, configuration={"optimizer": sgd},
        )  # fmt: skip
        means = losses.reshape(-1, size).mean(1)
        seen = np.where(np.arange(len(means)) >= 10 // size, np.nan, means)
        sums = ids(12).reshape(-1, size).sum(1)  # a batch's fingerprint is the sum of its rows'
        made.steps(seen, weight=size, epoch=0, batch_id=sums, penalty=0 * means)
        runs.append(made.close())
    result = ll.reconcile((runs[0], "@finite"), (runs[1], "@finite"))
    assert result.causes == ()
    assert "nonfinite" in result.verdict
