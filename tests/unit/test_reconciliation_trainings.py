"""Several causes at once, what trainings part on, and what is not compared."""

import numpy as np
import pytest
from judged import LAST, ROWS, close, exact, folded
from made import Made
from trained import RNG, X, Y, recorded, sgd

import lossledger as ll
from lossledger.cli import main


@pytest.fixture
def fit(tmp_path):
    return recorded(tmp_path, "fit")


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


def test_a_learning_rate_is_no_cause_in_a_first_step(tmp_path):
    runs = []
    for rate, layers in ((0.0, []), (0.1, [{"class": "Dropout", "rate": 0.5, "training": True}])):
        noise = np.random.default_rng(5) if layers else None
        layers = {"layers": [{"class": "Dense", "units": 1}, *layers]}
        training = {"rate": rate, "noise": noise, "size": 70, "epochs": 1}
        runs.append(recorded(tmp_path, "run", info={"configuration": layers}, **training))
    result = ll.reconcile(*runs)
    close(folded(result), {("randomness", "replayed"): result.gap})


def test_a_call_that_goes_on_where_another_ended(tmp_path):
    made = Made(tmp_path)
    for call, (first, last) in enumerate((("u", "v"), ("v", "w"))):
        made.call(call, driver="fit", model=0, initial_weights=first, final_weights=last)
        made.steps(np.full(3, 0.5 - 0.25 * call), call=call, epoch=0)
    run = made.close()
    result = ll.reconcile((run, "@0"), (run, "@call=1"))
    assert folded(result) == {("initial_weights", "replayed"): -0.25}


def test_two_epochs_of_a_training_that_two_calls_make(tmp_path):
    """`fit(initial_epoch=1)` says that it goes on: as two epochs of one call."""
    made = Made(tmp_path)
    for call, (first, last) in enumerate((("u", "v"), ("v", "w"))):
        begins = {"initial_epoch": 1} if call else {}
        arguments = {"epochs": 1 + call, **begins}
        weights = {"initial_weights": first, "final_weights": last}
        made.call(call, driver="fit", model=0, arguments=arguments, **weights)
        made.steps(np.full(3, 0.5 - 0.25 * call), call=call, epoch=call)
    run = made.close()
    result = ll.reconcile((run, "@0"), (run, "@call=1"))
    assert folded(result) == {("convention", "exact"): -0.25}
    assert "(steps 0 to 2 and 3 to 5)" in result.causes[0].evidence


def test_a_model_that_may_have_been_trained_as_part_of_another(tmp_path):
    """As a generator's, whose weights hold a discriminator that each program trained otherwise."""
    runs = []
    for name in ("u", "v"):
        made = Made(tmp_path, name)
        for call, first in enumerate(("same", name)):
            made.call(call, driver="train_on_batch", model=call, initial_weights=first)
            made.steps([0.5, 0.25 + 0.125 * call * (name == "u")], call=call, model=call)
        runs.append(made.close())
    verdict = ll.reconcile(*((run, "@model=1") for run in runs)).verdict
    assert "had trained other models before" in verdict
    assert "drawn at random" not in verdict


# --- May they be compared?


@pytest.mark.parametrize("masked", [True, False])
def test_sequences_that_are_padded_to_other_lengths(tmp_path, masked):
    """Under a mask the padding is in no loss."""
    runs = []
    for length in (8, 7):
        layers = [{"class": "Masking"} if masked else {"class": "Dense"}, {"class": "Dense"}]
        told = {"y": {"shape": [70, length, 1], "dtype": "float32"}}
        info = {"configuration": {"layers": layers}, "arguments": told}
        runs.append(recorded(tmp_path, f"of{length}", info=info))
    assert ll.reconcile(*runs).comparable == masked


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
