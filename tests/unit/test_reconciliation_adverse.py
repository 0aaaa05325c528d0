"""Pairs that look like another cause than they are; against plain numpy."""

import numpy as np
import pytest
from made import Made
from trained import RNG, ROWS, X, Y, batch_id, batches, causes, close, recorded, sgd

import lossledger as ll

STILL = {"initial_weights": "w", "final_weights": "w"}
DENSE = {"configuration": {"layers": [{"class": "Dense", "units": 1}]}}


def errors(x=X, y=Y):
    """Each row's loss at the first weights of `sgd`."""
    return (x @ np.random.default_rng(0).normal(size=3) - y) ** 2


def one_call(directory, name, losses, *, ids=True, info=None, **columns):
    made = Made(directory, name)
    made.call(0, driver="fit", model=0, **{**STILL, **(info or {})})
    ids = {"batch_id": np.arange(1, len(losses) + 1, dtype="u8")} if ids else {}
    columns = {"penalty": np.zeros(len(losses)), **ids, **columns}
    made.steps(losses, epoch=0, **columns)
    return made.close()


# --- Epochs.


def stream(directory, name, steps, epochs, *, total=12, info=None):
    """One series of losses, over four batches in turn, cut into epochs of some steps."""
    made = Made(directory, name)
    arguments = {"steps_per_epoch": steps}
    made.call(0, driver="fit", model=0, initial_weights="w", arguments=arguments, **(info or {}))
    losses = np.random.default_rng(1).random(total).astype("f4")
    ids = 1 + np.arange(total, dtype="u8") % 4
    made.steps(losses, epoch=np.arange(total) // steps, batch_id=ids)
    assert epochs == -(-total // steps)
    return made.close(), losses.astype("f8")


def test_one_training_cut_into_other_epochs(tmp_path):
    """Steps 4 to 7, and 3 to 5, of the same twelve: one is no replay of the other."""
    (one, losses), (other, _) = stream(tmp_path, "fours", 4, 3), stream(tmp_path, "threes", 3, 4)
    result = ll.reconcile(one, other, epoch=1)
    shared = losses[[4, 5, 7]].mean()  # of batches 0, 1 and 3, which the three steps have
    wanted = {("unseen_rows", "exact"): shared - losses[4:8].mean()}
    wanted["convention", "exact"] = losses[3:6].mean() - shared
    close(causes(result), wanted)
    assert result.divergence is None
    assert "steps 4 to 7 and 3 to 5" in result.causes[0].evidence


@pytest.mark.parametrize(("longer", "cause"), [(6, "double_count"), (4, "unseen_rows")])
def test_an_epoch_that_goes_on_is_not_identical(tmp_path, longer, cause):
    """Three steps, then the same again, or another batch with the mean of those before."""
    ids = np.array([1, 2, 3, 1, 2, 3] if longer == 6 else [1, 2, 3, 4], "u8")
    losses = [0.25, 0.5, 0.75, *([0.25, 0.5, 0.75] if longer == 6 else [0.5])]
    short = one_call(tmp_path, "short", losses[:3])
    long = one_call(tmp_path, "long", losses, batch_id=ids)
    for pair in ((short, long), (long, short)):
        result = ll.reconcile(*pair)
        assert result.gap == 0
        assert "not the same" in result.verdict
        assert (result.divergence.step, result.divergence.cause) == (3, cause)
    result = ll.reconcile((short, "@batch=1:raw"), (long, "@batch=2:raw"))
    assert result.divergence is None  # a batch was chosen; the epochs there are the same
    close(causes(result), {("convention", "exact"): 0.25})


# --- Batches and rows.


@pytest.mark.parametrize("count", [70, 50])
def test_other_rows_in_batches_of_another_size(tmp_path, count):
    """At weights that stand still a batch's size is nothing, and these are not the same rows."""
    x, y = RNG.random((count, 3)), RNG.random(count)
    one = recorded(tmp_path, "one", rate=0.0)
    other = recorded(tmp_path, "other", rate=0.0, x=x, y=y, size=10)
    result = ll.reconcile(one, other)
    cause = "data" if count == 70 else "unseen_rows"
    close(causes(result), {(cause, "exact"): errors(x, y).mean() - errors().mean()})
    assert "don't hold the same rows" in result.divergence.evidence
    moved = [recorded(tmp_path, f"m{n}", size=s) for n, s in enumerate((32, 10))]
    assert "the same rows in other batches" in ll.reconcile(*moved).divergence.evidence


def test_targets_in_another_form_are_not_other_rows(tmp_path):
    """Classes as integers hash otherwise than as floats; the losses tell that they are the same."""
    runs = []
    for place, dtype in enumerate(("int64", "float32")):
        given = {"y": {"shape": [70, 1], "dtype": dtype}, "x": {"shape": [70, 3], "dtype": "f"}}
        info = {"arguments": given}
        ids = np.arange(1, 4, dtype="u8") << np.uint64(place)
        runs.append(one_call(tmp_path, dtype, [0.25, 0.5, 1.0], batch_id=ids, info=info))
    result = ll.reconcile(*runs)
    assert result.divergence is None
    assert "identical" in result.verdict


# --- Losses.


@pytest.mark.parametrize(("first", "comparable"), [(0.25, True), (0.3, False)])
def test_a_function_of_the_users_that_is_the_same(tmp_path, first, comparable):
    runs = [
        one_call(tmp_path, name, [loss, 0.5], info={"configuration": {"loss": name}})
        for name, loss in (("mse", 0.25), ("my_loss", first))
    ]
    assert ll.reconcile(*runs).comparable is comparable


def test_weights_that_scale_every_loss_alike_are_weights(tmp_path):
    losses, weights = RNG.random(3), RNG.random(3) * 32
    one = one_call(tmp_path, "one", losses, sample_weight=weights, weight=ROWS)
    other = one_call(tmp_path, "two", 2 * losses, sample_weight=2 * weights, weight=ROWS)
    mean = float((ROWS * losses.astype("f4")).sum() / 70)
    close(causes(ll.reconcile(one, other)), {("sample_weight", "exact"): mean})


def test_a_mask_against_weights_of_0_and_1(tmp_path):
    """Six targets a row: the mask's mean is over the valid, the weights' over all of them."""
    rows, valid = np.array([8.0, 8.0, 4.0]), np.array([8.0, 24.0, 20.0])
    sums = RNG.random(3) * valid
    mask = [{"class": "Masking"}, {"class": "Dense"}]
    info = {"configuration": {"layers": mask}}
    masked = one_call(tmp_path, "m", sums / valid, elements=valid, weight=rows, info=info)
    info = {"arguments": {"sample_weight": {"shape": [20, 6], "dtype": "float32"}}}
    info["configuration"] = {"layers": [{"class": "Dense"}]}
    losses = sums / (6 * rows)
    weighed = one_call(tmp_path, "w", losses, sample_weight=valid, weight=rows, info=info)
    gap = float((rows * (losses - sums / valid)).sum() / 20)
    result = ll.reconcile(masked, weighed)
    close(causes(result), {("mask", "exact"): gap})
    assert "52 of 120 targets" in result.causes[0].evidence
    close(causes(ll.reconcile(weighed, masked)), {("mask", "exact"): -gap})
    # Where the weights moved, too, the two are one difference still, as their sums are equal.
    moved = losses * [1, 0.8, 0.5]
    info |= {"initial_weights": "w", "final_weights": "v"}
    weighed = one_call(tmp_path, "v", moved, sample_weight=valid, weight=rows, info=info)
    gap = float((rows * (moved - sums / valid)).sum() / 20)
    close(causes(ll.reconcile(masked, weighed)), {("mask", "replayed"): gap})


def test_a_mask_against_weights_of_0_and_1_in_other_batches(tmp_path):
    """Six targets a row, twelve rows: by valid targets in fours, over all of them in sixes."""
    errors, lengths = RNG.random((12, 6)), RNG.integers(1, 7, 12)
    valid = np.arange(6) < lengths[:, None]
    layers = [{"class": "Masking"}, {"class": "Dense"}]

    def one(size, masked):
        parts = batches(12, size)
        counts = np.array([valid[part].sum() for part in parts], "f8")
        sums = np.array([errors[part][valid[part]].sum() for part in parts])
        ids = np.array([batch_id(errors[part], lengths[part]) for part in parts], "u8")
        rows = np.full(len(parts), float(size))
        counted = {"elements" if masked else "sample_weight": counts, "batch_id": ids}
        info = {"configuration": {"layers": layers[not masked :]}}
        losses = sums / (counts if masked else 6 * rows)
        name = f"{size} {masked}"
        return one_call(tmp_path, name, losses, weight=rows, info=info, **counted), losses.mean()

    (mask, by_batch), (weighed, over_all) = one(4, True), one(6, False)
    by_target = errors[valid].mean()
    wanted = {("weighting", "exact"): by_target - by_batch, ("mask", "exact"): over_all - by_target}
    close(causes(ll.reconcile(mask, weighed)), wanted)
    wanted = {key: -amount for key, amount in wanted.items()}
    close(causes(ll.reconcile(weighed, mask)), wanted)


@pytest.mark.parametrize(("gathers", "cause"), [(2, "accumulation_scaling"), (1, "reduction")])
def test_two_rows_a_batch_and_a_factor_of_two(tmp_path, gathers, cause):
    losses = RNG.random(4)
    info = {"configuration": {"gradient_accumulation_steps": gathers}}
    one = one_call(tmp_path, "one", losses, weight=2.0, info=info)
    other = one_call(tmp_path, "other", losses / 2, weight=2.0, info=info)
    mean = float(losses.astype("f4").mean())
    close(causes(ll.reconcile(one, other)), {(cause, "exact"): -mean / 2})


@pytest.mark.parametrize(
    ("layers", "cause"),
    [
        ([{"class": "Dense", "units": 1, "dtype": "mixed_bfloat16"}], "precision"),
        ([{"class": "Dense", "units": 1, "activation": "tanh"}], "hyperparameters"),
        ([{"class": "Dense", "units": 1}, {"class": "RandomFlip", "training": True}], "randomness"),
    ],
)
def test_what_a_layer_does_at_once(tmp_path, layers, cause):
    """The first losses differ: another dtype, another activation, images turned at random."""
    plain = [{"class": "Dense", "units": 1}]
    one = one_call(tmp_path, "one", [0.25, 0.5], info={"configuration": {"layers": plain}})
    other = one_call(tmp_path, "other", [0.5, 0.5], info={"configuration": {"layers": layers}})
    result = ll.reconcile(one, other)
    kind = "replayed" if cause == "randomness" else "exact"
    close(causes(result), {(cause, kind): 0.125})
    assert result.divergence.cause == cause


def test_a_gap_that_is_not_finite_has_one_cause(tmp_path):
    one = recorded(tmp_path, "one", rate=0.0)
    x = X.copy()
    x[40] = np.nan
    result = ll.reconcile(one, recorded(tmp_path, "nan", rate=0.0, x=x))
    assert [each.cause for each in result.causes] == ["nonfinite"]
    assert result.divergence.evidence.endswith("There b's loss is nan.")
    y = Y.copy()
    y[66] = np.inf
    with np.errstate(invalid="ignore"):
        other = recorded(tmp_path, "inf", rate=0.0, y=y, epochs=1)
    result = ll.reconcile(one, other, epoch=0)
    assert [(each.cause, each.amount) for each in result.causes] == [("nonfinite", np.inf)]
    assert "first in batch 2." in result.causes[0].evidence


def test_the_first_loss_of_a_training_that_is_not_finite(tmp_path):
    made = Made(tmp_path)
    made.call(0, driver="fit", model=0, **STILL)
    places = {"epoch": np.repeat([0, 1], 3), "batch": np.tile([0, 1, 2], 2)}
    made.steps([0.5, 0.25, np.inf, *[np.nan] * 3], **places)
    result = ll.reconcile(one_call(tmp_path, "one", [0.5, 0.25, 0.75]), made.close())
    evidence = result.causes[0].evidence
    assert (
        "3 losses of 3 not finite, first in batch 0 (of the training in batch 2 of epoch 0)"
        in evidence
    )


SETS = "BatchDataset of _{}Dataset of _TensorSliceDataset"


@pytest.mark.parametrize(
    ("made_of", "count", "parts"), [("Shuffle", 64, "order"), ("Filter", 50, "unseen_rows")]
)
def test_data_sets_of_the_same_rows(tmp_path, made_of, count, parts):
    """What is made of a data set otherwise is no other data: a part of them, or another order."""
    order = np.random.default_rng(3).permutation(70)[:count]
    runs = [
        recorded(tmp_path, name, rate=0.0, x=X[rows], y=Y[rows], info={"arguments": {"x": made}})
        for name, rows, made in (
            ("all", np.arange(70), "_BatchDataset of _TensorSliceDataset"),
            ("part", order, SETS.format(made_of)),
        )
    ]
    result = ll.reconcile(*runs)
    wanted = errors()[order].mean() - errors().mean()
    close(causes(result), {("unseen_rows", "exact"): wanted})
    assert result.divergence.cause == parts


# --- What was evaluated.


def test_masks_of_several_outputs_over_other_batches(tmp_path):
    """How many targets each mask left in is not on record, but only that can tell the two apart."""
    runs, means = [], []
    for size in (32, 16):
        mask = {"layers": [{"class": "Masking"}, {"class": "Dense", "units": 2}]}
        parts = batches(70, size)
        losses, rows = RNG.random(len(parts)), [len(X[part]) for part in parts]
        made = Made(tmp_path, f"of{size}")
        arguments = {"x": {"shape": [70, 3], "dtype": "float64"}, "batch_size": size}
        made.call(
            0, driver="fit", model=0, weight_kind="rows", configuration=mask, arguments=arguments
        )
        made.call(0, initial_weights="one", final_weights="one")
        identities = np.array([batch_id(X[part], Y[part]) for part in parts], "u8")
        losses, _ = made.steps(losses, weight=rows, epoch=0, batch_id=identities)
        runs.append(made.close())
        means.append(np.dot(losses, rows) / 70)
    result = ll.reconcile(*runs)
    close(causes(result), {("weighting", "exact"): means[1] - means[0]})
    assert "each output's valid targets" in result.causes[0].evidence


def summed(part):
    ids = [batch_id(X[p], Y[p]) for p in batches(70, 32)][part]
    lanes = [sum(each >> 32 for each in ids), sum(each % 2**32 for each in ids)]
    return f"{lanes[0] % 2**32:08x}{lanes[1] % 2**32:08x}"


def evaluated(directory, data, *, rate=0.0, arguments=None):
    item = {"place": "evaluate", "name": "loss", "epoch": None, "value": 0.5, "data": data}
    info = {"reported": [item], "arguments": arguments or {}}
    run = recorded(directory, "evaluated", rate=rate, info=info)
    return ll.reconcile(run, (run, "evaluate"))


@pytest.mark.parametrize(
    ("data", "arguments", "cause"),
    [
        ({"rows": 64, "batch_id": summed(slice(2))}, {}, "unseen_rows"),
        ({"rows": 40, "batch_id": "0000000100000002", "trained": 0}, {}, "data"),
        ({"rows": 70, "batch_id": "0000000100000002"}, {}, "data"),
        ({"rows": 70, "batch_id": summed(slice(3)), "weighted": True}, {}, "sample_weight"),
        ({}, {"class_weight": {"0": 1.0, "1": 3.0}}, "class_weight"),
    ],
)
def test_an_evaluation_of_something_else(tmp_path, data, arguments, cause):
    result = evaluated(tmp_path, data, arguments=arguments)
    close(causes(result), {(cause, "measured"): 0.5 - errors().mean()})


def test_an_evaluation_of_other_rows_has_no_moving_weights(tmp_path):
    result = evaluated(tmp_path, {"rows": 40}, rate=0.1)
    assert not result.causes
    assert "the weights moved, and the evaluated data have 40 rows" in result.verdict


def test_an_evaluation_of_the_weights_of_an_earlier_validation(tmp_path):
    items = [
        {"place": "validation", "name": "val_loss", "epoch": e, "value": 0.5 - e} for e in (0, 1)
    ]
    items.append({"place": "evaluate", "name": "loss", "epoch": None, "value": 0.5})
    run = recorded(tmp_path, "best", info={"reported": items, "loads": [6]})
    result = ll.reconcile((run, "val_loss"), (run, "evaluate"))
    close(causes(result), {("convention", "measured"): 1.0})
    assert "in epoch 0 val_loss was 0.5, too" in result.causes[0].evidence


def test_an_evaluation_that_is_seen_to_be_of_the_same_rows(tmp_path):
    data = {"rows": 70, "batch_id": summed(slice(3)), "weighted": False}
    result = evaluated(tmp_path, data, rate=0.1)
    rows = sgd()[0]
    mean = float((ROWS * rows["loss"][3:].astype("f4")).sum() / 70)
    close(causes(result), {("moving_weights", "measured"): 0.5 - mean})
    assert result.verdict == "All of the gap is moving_weights."
    assert "fingerprints are equal" in result.causes[0].evidence


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        ({"rows": 40, "batch_id": "0000000100000002"}, "unseen_rows"),
        ({"rows": 70, "batch_id": "0000000300000004"}, "data"),
        ({"rows": 70, "batch_id": "0000000100000002", "weighted": True}, "sample_weight"),
        ({"rows": 70, "batch_id": "0000000100000002"}, None),
    ],
)
def test_validation_losses_of_other_rows(tmp_path, data, cause):
    runs = []
    for name, given in (("one", {"rows": 70, "batch_id": "0000000100000002"}), ("other", data)):
        value = 0.25 if name == "one" else 0.5
        item = {"place": "validation", "name": "val_loss", "epoch": 1, "value": value}
        info = {"reported": [item], "validation": {"weighted": False, **given}}
        runs.append(recorded(tmp_path, name, info=info))
    result = ll.reconcile(*((run, "val_loss") for run in runs))
    wanted = {} if cause is None else {cause: 0.25}
    assert {each.cause: each.amount for each in result.causes} == wanted


def test_other_functions_are_told_where_they_are_compared_all_the_same(tmp_path):
    runs = [recorded(tmp_path, kind, rate=0.0, kind=kind) for kind in ("mse", "mae")]
    result = ll.reconcile(*runs, across=True)
    gap = np.sqrt(errors()).mean() - errors().mean()
    close(causes(result), {("hyperparameters", "exact"): gap})
    assert "what differs: loss." in result.divergence.evidence


def test_a_log_of_another_training_says_nothing_of_no_gap(tmp_path):
    run = recorded(tmp_path, "one")
    log = tmp_path / "log.csv"
    log.write_text("epoch,loss\n0,0.5\n1,0.25\n")
    verdict = ll.reconcile(log, run).verdict
    assert "is unexplained" in verdict
    assert "No gap" not in verdict
