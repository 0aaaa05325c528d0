"""What a model was compiled with and given, however it was written; against plain numpy."""

import numpy as np
import pytest
from made import Made
from trained import RNG, ROWS, causes, close, hashed, recorded, sgd

import lossledger as ll

A, B = RNG.random((2, 3)).astype("f4").astype("f8")
SHAPE = {"shape": [70, 1], "dtype": "float32"}


def mean(losses, rows=ROWS):
    return float((rows * losses).sum() / rows.sum())


def two_outputs(directory, name, loss_weights, loss=("mse", "mae"), y=(SHAPE, SHAPE)):
    made = Made(directory, name)
    configuration = {"loss": loss if isinstance(loss, dict) else list(loss)}
    if loss_weights is not None:
        configuration["loss_weights"] = loss_weights
    made.call(
        0,
        driver="fit",
        model=0,
        output_weights={"a_loss": "rows", "b_loss": "rows"},
        configuration=configuration,
        arguments={"y": y if isinstance(y, dict) else list(y)},
    )
    if isinstance(loss_weights, list | dict):
        total = A + 0.3 * B
    else:
        total = (loss_weights or 1.0) * (A + B)
    made.steps(total, weight=ROWS, epoch=0, a_loss=A, b_loss=B, penalty=np.zeros(3))
    return made.close()


@pytest.mark.parametrize(
    ("given", "gap"),
    [
        ([1.0, 0.3], -0.7 * mean(B)),
        ({"b": 0.3, "a": 1.0}, -0.7 * mean(B)),
        (0.5, -0.5 * mean(A + B)),
    ],
)
def test_weights_of_outputs_are_a_list_a_table_or_one_number(tmp_path, given, gap):
    by_name = {"loss": {"b": "mae", "a": "mse"}, "y": {"b": SHAPE, "a": SHAPE}}
    one = two_outputs(tmp_path, "one", None)
    other = two_outputs(tmp_path, "other", given, **(by_name if isinstance(given, dict) else {}))
    close(causes(ll.reconcile(one, other)), {("loss_weights", "exact"): gap})


@pytest.mark.parametrize("loss", [["mse", None], {"b": None, "a": "mse"}, [None, "mae"]])
def test_an_output_without_a_loss_weighs_nothing(tmp_path, loss):
    both = two_outputs(tmp_path, "both", [1.0, 0.3])
    made = Made(tmp_path, "one")
    configuration, has_a = {"loss": loss, "loss_weights": [1.0, 0.5]}, "mse" in str(loss)
    made.call(0, driver="fit", model=0, configuration=configuration)
    made.steps(A if has_a else 0.5 * B, weight=ROWS, epoch=0, penalty=np.zeros(3))
    one, other = ll.reconcile(both, made.close()), "b_loss" if has_a else "a_loss"
    gap = mean(A if has_a else 0.5 * B) - mean(A + 0.3 * B)
    assert one.comparable
    close(causes(one), {("loss_weights", "exact"): gap})
    assert f"b has no {other}" in one.causes[0].evidence


def test_the_same_weights_in_two_ways_are_no_difference(tmp_path):
    runs = [
        two_outputs(tmp_path, "list", [1.0, 0.3]),
        two_outputs(tmp_path, "table", {"b": 0.3, "a": 1.0}),
    ]
    result = ll.reconcile(*runs)
    assert result.gap == 0
    assert not result.differences


def test_the_weight_of_a_single_output(tmp_path):
    runs = []
    for name, weight in (("plain", None), ("half", [0.5])):
        made = Made(tmp_path, name)
        penalty = np.full(3, 0.25)
        made.call(0, driver="fit", model=0, configuration={"loss": "mse", "loss_weights": weight})
        losses = A * (0.5 if weight else 1.0) + penalty
        made.steps(losses, weight=ROWS, epoch=0, penalty=penalty)
        runs.append(made.close())
    close(causes(ll.reconcile(*runs)), {("loss_weights", "exact"): -0.5 * mean(A)})


def test_class_weights_of_other_values(tmp_path):
    runs = []
    columns, first, _ = sgd(rate=0.0, epochs=1)
    for weight in (2.0, 3.0):
        made = Made(tmp_path, f"class{weight:g}")
        made.call(
            0,
            driver="fit",
            model=0,
            arguments={"class_weight": {"0": 1.0, "1": weight}},
            initial_weights=hashed(first),
            final_weights=hashed(first),
        )
        made.steps(
            columns["loss"] * weight,
            weight=ROWS,
            epoch=0,
            penalty=np.zeros(3),
            sample_weight=ROWS * weight,
            batch_id=columns["batch_id"],
        )
        runs.append(made.close())
    losses = columns["loss"].astype("f4").astype("f8")
    close(causes(ll.reconcile(*runs)), {("class_weight", "exact"): mean(losses)})


HUBER = {"class": "Huber", "reduction": "sum_over_batch_size"}
CROSS = {"class": "BinaryCrossentropy", "from_logits": True}


@pytest.mark.parametrize(
    ("losses", "activations", "backend", "comparable"),
    [
        (({**HUBER, "delta": 1.0}, "huber"), ("linear", "linear"), "jax", True),
        (({**HUBER, "delta": 1.0}, {**HUBER, "delta": 0.1}), ("linear", "linear"), "jax", False),
        ((CROSS, "binary_crossentropy"), ("linear", "sigmoid"), "jax", True),
        ((CROSS, "binary_crossentropy"), ("sigmoid", "sigmoid"), "jax", False),
        ((CROSS, "binary_crossentropy"), ("sigmoid", "sigmoid"), "tensorflow", True),
        (("mse", ["mse"]), ("linear", "linear"), "jax", True),
        (
            ("sparse_categorical_crossentropy", "categorical_crossentropy"),
            ("softmax", "softmax"),
            "jax",
            True,
        ),
    ],
)
def test_which_losses_are_one_function(tmp_path, losses, activations, backend, comparable):
    runs = []
    for place in (0, 1):
        versions = {"keras": "3.15.1", "backend": backend}
        made = Made(tmp_path, f"run{place}", versions=versions)
        integers = "sparse" in str(losses[place])
        made.call(
            0,
            driver="fit",
            model=0,
            configuration={
                "loss": losses[place],
                "layers": [{"class": "Dense", "units": 4, "activation": activations[place]}],
            },
            arguments={"y": {"shape": [70] if integers else [70, 4], "dtype": "float32"}},
        )
        made.steps(A, weight=ROWS, epoch=0)
        runs.append(made.close())
    assert ll.reconcile(*runs).comparable is comparable


@pytest.mark.parametrize("moves", [False, True])
def test_a_sum_over_the_steps_of_sequences(tmp_path, moves):
    """Targets (N, 5) of integers show no axis of classes: the trace tells 5 losses a row."""
    runs = []
    for name, each in (("mean", 1.0), ("sum", 5.0)):
        made = Made(tmp_path, name)
        configuration = {"reduction": "sum"} if each > 1 else {}
        weights = {} if moves else {"initial_weights": "same", "final_weights": "same"}
        call = {"configuration": configuration, "losses_per_row": 5, **weights}
        made.call(0, driver="fit", model=0, arguments={"y": {"shape": [70, 5]}}, **call)
        losses = A * ROWS * each if each > 1 else A
        made.steps(losses, weight=ROWS, epoch=0, penalty=np.zeros(3), batch_id=[1, 2, 3])
        runs.append(made.close())
    wanted = {("reduction", "exact"): mean(A * ROWS * 5) - mean(A)}
    close(causes(ll.reconcile(*runs)), wanted)


def test_a_sum_under_a_mask_is_over_what_it_leaves(tmp_path):
    valid, runs = np.array([40.0, 90.0, 6.0]), []
    for name in ("mean", "sum"):
        made = Made(tmp_path, name)
        made.call(0, driver="fit", model=0, configuration={"reduction": name}, losses_per_row=5)
        losses = A * valid if name == "sum" else A
        made.steps(losses, weight=ROWS, epoch=0, penalty=np.zeros(3), elements=valid)
        runs.append(made.close())
    close(causes(ll.reconcile(*runs)), {("reduction", "exact"): mean(A * valid) - mean(A)})


def test_a_loss_of_the_whole_batch_says_that_no_weights_make_it_one(tmp_path):
    made = Made(tmp_path)
    made.call(0, driver="fit", model=0, losses_per_row=0)
    made.steps(A, weight=ROWS, epoch=0)
    run = made.close()
    assert run.calls[0].mean_of_rows is False
    result = ll.reconcile((run, "epoch_mean"), (run, "batch_mean"))
    assert "no mean of row losses" in result.causes[0].evidence


@pytest.mark.parametrize("place", [1, 3])
def test_metrics_that_were_reset_inside_an_epoch(tmp_path, place):
    made = Made(tmp_path)
    made.call(0, driver="fit", model=0)
    losses, rows = made.steps(A, weight=ROWS, epoch=0)
    total = np.add.accumulate((losses * rows)[place:].astype("f4"), dtype="f4")[-1:]
    count = rows[place:].sum()
    reported = float(np.float32(total[0]) / np.float32(count)) if count else 0.0
    made.history(0, "loss", [reported])
    run = made.close()
    found = causes(ll.reconcile((run, "reported"), (run, "epoch_mean")))
    close(found, {("state_not_reset", "exact"): mean(losses) - reported})


def test_only_a_loop_returns_numbers(tmp_path):
    run = recorded(tmp_path, "fit")
    with pytest.raises(ll.LossLedgerError, match="Only train_on_batch returns"):
        ll.reconcile((run, "returned"), run)


@pytest.mark.parametrize("order", [[0, 1, 2], [1, 2, 0]])
def test_a_data_set_and_arrays(tmp_path, order):
    """Other classes of input, and no batch size: the entries show whether batches differ."""
    columns, first, last = sgd(epochs=1, size=14)
    runs = []
    for name, given in (("arrays", {"x": SHAPE, "batch_size": 14}), ("set", {"x": "Numbers"})):
        made = Made(tmp_path, name)
        weights = {"initial_weights": hashed(first), "final_weights": hashed(last)}
        made.call(0, driver="fit", model=0, arguments={**given, "shuffle": False}, **weights)
        place = np.r_[order, 3, 4] if name == "set" else np.arange(5)
        scale = 1.0 if name == "arrays" or order[0] == 0 else 1.5
        ids = columns["batch_id"][place]
        losses = columns["loss"][place] * scale
        made.steps(losses, weight=14.0, epoch=0, penalty=np.zeros(5), batch_id=ids)
        runs.append(made.close())
    result = ll.reconcile(*runs)
    assert {cause for cause, _ in causes(result)} == (set() if order[0] == 0 else {"order"})


def test_an_evaluation_of_one_batch_under_a_mask(tmp_path):
    """At weights that stand still, it is the mean over valid targets, not that over rows."""
    valid = np.array([40.0, 90.0, 6.0])
    made = Made(tmp_path)
    weights = {"initial_weights": "w", "final_weights": "w"}
    made.call(0, driver="fit", model=0, **weights, configuration={"layers": [{"class": "Dense"}]})
    losses, _ = made.steps(A, weight=ROWS, epoch=0, elements=valid)
    item = {"place": "evaluate", "name": "loss", "epoch": None, "value": mean(losses, valid)}
    made.call(0, reported=[item])
    run = made.close()
    wanted = {("weighting", "exact"): mean(losses, valid) - mean(losses)}
    result = ll.reconcile(run, (run, "evaluate"))
    close(causes(result), wanted)
    assert result.verdict == "All of the gap is weighting."
    result = ll.reconcile((run, "epoch_mean:weight=elements"), (run, "evaluate"))
    assert not result.causes


def test_validation_losses_of_two_trainings_that_differ_in_one_thing(tmp_path):
    runs = []
    for rate, value in ((0.1, 0.5), (0.2, 0.4)):
        item = {"place": "validation", "name": "val_loss", "epoch": 1, "value": value}
        runs.append(recorded(tmp_path, f"rate{rate}", rate=rate, info={"reported": [item]}))
    result = ll.reconcile(*((run, "val_loss") for run in runs))
    close(causes(result), {("hyperparameters", "replayed"): 0.4 - 0.5})


@pytest.mark.parametrize("column", ["sample_weight", "elements"])
def test_weights_of_other_values_show_in_their_sums(tmp_path, column):
    """Arguments keep shapes alone; the first step's sum of weights tells them apart."""
    runs = []
    for scale in (1.0, 1.5):
        made = Made(tmp_path, f"of{scale}")
        made.call(0, driver="fit", model=0, initial_weights="w", final_weights=f"w{scale}")
        rest = {"penalty": np.zeros(3), "batch_id": [1, 2, 3], column: ROWS * scale}
        losses, _ = made.steps(A * scale, weight=ROWS, epoch=0, **rest)
        runs.append(made.close())
    cause = {"elements": "mask"}.get(column, column)
    assert ll.reconcile(*runs).divergence.cause == cause
    close(causes(ll.reconcile(*runs)), {(cause, "replayed"): mean(losses) - mean(losses / 1.5)})


def test_weights_that_double_each_loss_are_no_scaling(tmp_path):
    plain = recorded(tmp_path, "plain", rate=0.0)
    said = {"arguments": {"sample_weight": {"shape": [70], "dtype": "float32"}}}
    twice = recorded(tmp_path, "twice", rate=0.0, weight=np.full(70, 2.0), info=said)
    result = ll.reconcile(plain, twice)
    close(causes(result), {("sample_weight", "exact"): result.a.value})


def test_a_loop_that_says_nothing_of_its_model_has_no_cause(tmp_path):
    made = Made(tmp_path, "custom")
    made.call(0, driver="custom", model=0)
    made.steps(A * 9, weight=ROWS, epoch=0, batch_id=[0, 0, 0])
    result = ll.reconcile(recorded(tmp_path, "fit", epochs=1), made.close())
    assert {each.cause for each in result.causes} <= {"weighting"}
    assert "nothing that is recorded" in result.verdict


def test_losses_of_two_outputs_are_not_compared(tmp_path):
    run = two_outputs(tmp_path, "run", None)
    result = ll.reconcile((run, "@loss=a_loss"), (run, "@loss=b_loss"))
    assert not result.comparable
    assert "a_loss in a, b_loss in b" in result.reasons[0]


@pytest.mark.parametrize(("epoch", "value"), [(0, 0.25), (1, 0.125), (-1, 0.125)])
def test_evaluations_at_each_epochs_end(tmp_path, epoch, value):
    made = Made(tmp_path)
    made.call(0, driver="fit", model=0)
    made.steps(np.r_[A, A], weight=np.r_[ROWS, ROWS], epoch=np.repeat([0, 1], 3))
    items = [
        {"place": "evaluate", "name": "loss", "epoch": at, "batch": 3, "value": each}
        for at, each in enumerate((0.25, 0.125))
    ]
    made.call(0, reported=items)
    run = made.close()
    assert ll.reconcile(run, (run, "evaluate"), epoch=epoch).b.value == value


def test_a_layer_that_acts_on_measurements_alone(tmp_path):
    """As another momentum of batch normalization: all steps agree, and the evaluations don't."""
    runs = []
    for momentum, value in ((0.99, 0.5), (0.5, 0.375)):
        layers = [{"class": "BatchNormalization", "momentum": momentum, "training": True}]
        made = Made(tmp_path, f"of{value}")
        configuration = {"layers": layers}
        made.call(0, driver="fit", model=0, initial_weights="w", configuration=configuration)
        made.steps([0.75, 0.25], epoch=0, batch_id=np.array([1, 2], "u8"))
        item = {"place": "evaluate", "name": "loss", "epoch": None, "value": value}
        made.call(0, reported=[item])
        runs.append(made.close())
    result = ll.reconcile(*((run, "evaluate") for run in runs))
    assert causes(result) == {("hyperparameters", "replayed"): -0.125}
    assert "What differs, layers, acts on what is measured alone" in result.causes[0].evidence
    assert ll.reconcile(*runs).gap == 0


@pytest.mark.parametrize(("off", "cause"), [(0.0, "precision"), (0.25, "initial_weights")])
def test_weights_of_another_dtype_are_the_same_but_for_rounding(tmp_path, off, cause):
    """bfloat16 is the upper half of a float32; what differs more than that began elsewhere."""
    weights = RNG.random((3, 2)).astype("f4")
    bits = (weights + np.float32(off)).view("u4") + 0x8000  # to the nearest
    halves = (bits >> 16).astype("u2").view("V2")
    runs = []
    for policy, copy, loss in (("float32", weights, 0.5), ("bfloat16", halves, 0.502)):
        made = Made(tmp_path, policy)
        (made.path / "weights").mkdir()
        np.savez(made.path / "weights/000000.npz", copy)
        named = {"initial_weights": policy, "weights_file": "weights/000000.npz"}
        made.call(0, driver="fit", model=0, configuration={"dtype_policy": policy}, **named)
        made.steps([loss, loss / 2], epoch=0, batch_id=np.array([1, 2], "u8"))
        runs.append(made.close())
    result = ll.reconcile(*runs)
    assert result.divergence.cause == cause
    assert {each.cause for each in result.causes} == ({"precision"} if not off else set())


def test_a_validation_that_ends_early(tmp_path):
    item = {"place": "validation", "name": "val_loss", "epoch": 1, "value": 0.5}
    info = {"reported": [item], "arguments": {"validation_steps": 2}}
    run = recorded(tmp_path, "fit", rate=0.0, info=info)
    result = ll.reconcile(run, (run, "val_loss"))
    close(causes(result), {("unseen_rows", "measured"): 0.5 - result.a.value})
    assert "ends after 2 steps" in result.causes[0].evidence


def test_a_layer_that_masks_is_a_mask_and_nothing_else(tmp_path):
    runs = []
    valid = np.array([40.0, 90.0, 6.0])
    for masks in (False, True):
        made = Made(tmp_path, f"masks{masks}")
        layers = [{"class": "Embedding", **({"mask_zero": True} if masks else {})}]
        call = {"configuration": {"layers": layers}, "initial_weights": "w", "final_weights": "w"}
        made.call(0, driver="fit", model=0, **call)
        rest = {"elements": valid} if masks else {}
        losses = B if masks else A
        made.steps(losses, weight=ROWS, epoch=0, penalty=np.zeros(3), batch_id=[1, 2, 3], **rest)
        runs.append(made.close())
    close(causes(ll.reconcile(*runs)), {("mask", "exact"): mean(B) - mean(A)})


def test_another_batch_size_and_another_order_are_two_things(tmp_path):
    one = recorded(tmp_path, "one", size=32)
    info = {"arguments": {"shuffle": True}}
    order = np.random.default_rng(1).permutation
    other = recorded(tmp_path, "other", size=10, order=lambda _: order(70), info=info)
    result = ll.reconcile(one, other)
    assert not result.causes
    assert "hyperparameters, order" in result.verdict
