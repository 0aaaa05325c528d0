"""Reconciliations of trainings on other rows, shuffled or not, and of rows that nobody said."""

import numpy as np
import pytest
from judged import folded
from made import Made
from trained import ROWS, X, causes, close, recorded, sgd

import lossledger as ll

SCALED = 2 * X - 1


def drawn(seed):
    return lambda epoch: np.random.default_rng((seed, epoch)).permutation(70)


def shuffled(tmp_path, name, seed=0, driver="fit", **training):
    info = {"arguments": {"shuffle": True}, "configuration": {"seed": seed}}
    return recorded(tmp_path, name, driver=driver, info=info, **training)


def loss_of(columns):
    return float(np.dot(ROWS, columns["loss"][3:]) / 70)


# --- Other rows.


def test_shuffled_trainings_of_other_data(tmp_path):
    """As many rows as the array has, whose sums differ: no order makes other rows of them."""
    one = shuffled(tmp_path, "one", order=drawn(0))
    other = shuffled(tmp_path, "other", x=SCALED, order=drawn(0))
    gap = loss_of(sgd(x=SCALED, order=drawn(0))[0]) - loss_of(sgd(order=drawn(0))[0])
    result = ll.reconcile(one, other)
    close(causes(result), {("data", "replayed"): gap})
    assert "they are other rows" in result.divergence.evidence


def test_data_sets_that_are_shuffled_and_hold_other_rows(tmp_path):
    """No record has their size, but a second epoch of the same rows: so an epoch is all of them."""
    made = {"arguments": {"x": "_BatchDataset of _ShuffleDataset of _TensorSliceDataset"}}
    for epochs, cause, told in ((2, "data", "other rows"), (1, "order", "a's data set shuffles")):
        one, other = (
            recorded(tmp_path, f"{name}{epochs}", x=x, order=drawn(0), epochs=epochs, info=made)
            for name, x in (("one", X), ("other", SCALED))
        )
        parted = ll.reconcile(one, other).divergence
        assert parted.cause == cause
        assert told in parted.evidence


def test_validation_losses_of_shuffled_trainings_of_other_data(tmp_path):
    """No fold tells them, but the entries of the trainings do."""
    shown = {"name": "val_loss", "place": "history", "epoch": 1}
    info = {"arguments": {"shuffle": True}, "configuration": {"seed": 0}}
    one, other = (
        recorded(
            tmp_path,
            f"{k}",
            x=x,
            order=drawn(0),
            info={**info, "reported": [{**shown, "value": k}]},
        )
        for k, x in ((1.0, X), (2.0, SCALED))
    )
    result = ll.reconcile((one, "val_loss"), (other, "val_loss"))
    assert result.divergence.cause == "data"
    assert result.gap == 1.0


@pytest.mark.parametrize(("seed", "driver"), [(1, "fit"), (0, "train_on_batch")])
def test_other_data_in_an_order_of_its_own(tmp_path, seed, driver):
    one = shuffled(tmp_path, "one", order=drawn(0))
    order = drawn(1) if driver == "fit" else None
    other = shuffled(tmp_path, "other", seed, driver, x=SCALED, order=order)
    result = ll.reconcile(one, (other, "epoch_mean"))
    assert not result.causes
    assert result.divergence.cause == "data"
    assert "differ in data, order" in result.verdict


@pytest.mark.parametrize(
    "arguments",
    [
        {"x": "generator", "y": None, "steps_per_epoch": 3},
        {"x": {"shape": [88, 3], "dtype": "float32"}, "validation_split": 0.2},
    ],
)
def test_arguments_that_leave_as_many_rows(tmp_path, arguments):
    """A generator needs steps_per_epoch, and a split by hand no validation_split."""
    one = recorded(tmp_path, "one")
    other = recorded(tmp_path, "other", x=SCALED, info={"arguments": arguments})
    gap = loss_of(sgd(x=SCALED)[0]) - loss_of(sgd()[0])
    close(causes(ll.reconcile(one, other)), {("data", "replayed"): gap})


def test_fit_does_not_shuffle_what_a_generator_yields(tmp_path):
    """Whatever `shuffle` is; beside arrays, which it does shuffle, order differs, too."""
    yields = {"arguments": {"x": "generator", "shuffle": True}, "configuration": {"seed": 0}}
    other = recorded(tmp_path, "other", x=SCALED, info=yields)
    result = ll.reconcile(recorded(tmp_path, "one"), other)
    assert [(each.cause, each.kind) for each in result.causes] == [("data", "replayed")]
    result = ll.reconcile(shuffled(tmp_path, "drawn", order=drawn(0)), other)
    assert not result.causes
    assert "differ in data, order" in result.verdict


def test_other_rows_at_weights_that_stand_still_have_an_advice_of_their_own(tmp_path):
    runs = [recorded(tmp_path, f"{n}", x=x, rate=0.0) for n, x in enumerate((X, SCALED))]
    (cause,) = ll.reconcile(*runs).causes
    assert (cause.cause, cause.kind) == ("data", "exact")
    assert "steps_per_epoch" not in cause.advice


def test_a_remainder_dropped_of_other_rows_or_of_another_order(tmp_path):
    """Sums of 64 of the rows tell nothing of which they are."""
    whole = recorded(tmp_path, "whole", epochs=1)
    order = np.random.default_rng(4).permutation(70)
    dropped = recorded(tmp_path, "dropped", epochs=1, drop=True, order=lambda _: order)
    losses = sgd(epochs=1)[0]["loss"]
    result = ll.reconcile(whole, dropped)
    left_out = losses[:2].mean() - np.dot(ROWS, losses) / 70
    close(folded(result), {("unseen_rows", "exact"): left_out})
    assert "another order in which a remainder is dropped" in result.divergence.evidence
    assert "data, order, unseen_rows" in result.verdict


# --- Rows that nobody said.


def rowless(tmp_path, losses):
    """A loop that calls `run.step(loss)`."""
    made = Made(tmp_path, "rowless")
    made.call(0, driver="custom", model=0, weight_kind="one", epochs_said=True)
    made.steps(losses, epoch=0, weight=1.0, rows=np.zeros(len(losses), "i4"))
    return made.close()


def test_steps_without_rows_are_no_batches_of_another_size(tmp_path):
    losses = sgd(epochs=1)[0]["loss"]
    fit = recorded(tmp_path, "fit", epochs=1)
    result = ll.reconcile(fit, rowless(tmp_path, losses))
    close(causes(result), {("weighting", "exact"): losses.mean() - np.dot(ROWS, losses) / 70})
    assert "nan" not in result.causes[0].evidence
    assert result.divergence is None


def test_steps_without_rows_that_are_scaled_or_fewer(tmp_path):
    losses = sgd(epochs=1)[0]["loss"]
    mean, plain = np.dot(ROWS, losses) / 70, losses.mean()
    fit = recorded(tmp_path, "fit", epochs=1)
    found = causes(ll.reconcile(fit, rowless(tmp_path, losses / 4)))
    close(
        found,
        {("weighting", "exact"): plain - mean, ("accumulation_scaling", "exact"): -0.75 * plain},
    )
    found = causes(ll.reconcile(fit, rowless(tmp_path, losses[:2])))
    close(found, {("unseen_rows", "exact"): losses[:2].mean() - mean})


def test_a_short_last_batch_whose_sum_is_divided_by_the_batch_size(tmp_path):
    """`tf.reduce_sum(losses) / BATCH_SIZE`, whether the loop says its rows or not."""
    losses = sgd(epochs=1, rate=0.0)[0]["loss"]
    fit = recorded(tmp_path, "fit", epochs=1, rate=0.0)
    summed, mean = losses * ROWS / 32, np.dot(ROWS, losses) / 70
    loop = rowless(tmp_path, summed)
    wanted = {"weighting": losses.mean() - mean, "reduction": summed.mean() - losses.mean()}
    for sign, sides in ((1, (fit, loop)), (-1, (loop, fit))):
        found = causes(ll.reconcile(*sides))
        close(found, {(slug, "exact"): sign * amount for slug, amount in wanted.items()})


def test_a_mean_that_nothing_resets_of_a_loop_without_rows(tmp_path):
    """Each of its epochs leaves out the remainder, and no weighting is said to be in it."""
    losses = sgd(epochs=2, rate=0.0)[0]["loss"]
    fit = recorded(tmp_path, "fit", epochs=2, rate=0.0)
    made = Made(tmp_path, "rowless")
    made.call(0, driver="custom", model=0, weight_kind="one", epochs_said=True)
    kept = losses[[0, 1, 3, 4]]
    made.steps(kept, epoch=np.repeat([0, 1], 2), weight=1.0, rows=np.zeros(4, "i4"))
    sides = [(run, "cumulative_mean") for run in (fit, made.close())]
    result = ll.reconcile(*sides)
    assert {each.cause for each in result.causes} == {"unseen_rows"}
    assert result.gap == pytest.approx(kept.mean() - np.dot(np.tile(ROWS, 2), losses) / 140)


def test_a_loop_without_rows_that_leaves_out_the_penalty_and_the_remainder(tmp_path):
    """No weighting: a plain mean over two full batches is the mean over their rows."""
    columns = sgd(epochs=1, rate=0.0, penalty=0.1)[0]
    fit = recorded(tmp_path, "fit", epochs=1, rate=0.0, penalty=0.1)
    data = columns["loss"] - columns["penalty"]
    left_out = columns["loss"][:2].mean() - np.dot(ROWS, columns["loss"]) / 70
    found = causes(ll.reconcile(fit, rowless(tmp_path, data[:2])))
    wanted = {"unseen_rows": left_out, "penalty": -columns["penalty"][0]}
    close(found, {(slug, "exact"): amount for slug, amount in wanted.items()})


# --- What was shown, where nobody asked.


@pytest.mark.parametrize("shown", [0.5, 3.0])
def test_a_history_that_says_otherwise_is_named(tmp_path, shown):
    """The statement is the epoch's mean, and what `fit` showed beside it is no part of the gap."""
    made = Made(tmp_path)
    made.call(0, driver="fit", model=0, weight_kind="rows")
    made.steps([0.25, 0.75], epoch=0)
    made.history(0, "loss", [shown])
    run = made.close()
    side = ll.reconcile(run, (run, "batch_mean")).a
    assert (side.statistic, side.value) == ("epoch_mean", 0.5)
    assert side.note == ("" if shown == 0.5 else "History has 3, which is :reported")
    assert not ll.reconcile((run, "epoch_mean"), run).a.note
