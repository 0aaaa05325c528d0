"""Weights in the place of rows, losses times a factor, and weights that a program sets."""

import numpy as np
import pytest
from judged import ROWS, close, exact, folded
from made import Made
from trained import RNG, X, Y, batch_id, batches, causes, hashed, recorded, sgd

import lossledger as ll

KEPT = np.arange(70) % 3 > 0
TIMES = np.arange(70) % 4
THETA = np.random.default_rng(0).normal(size=3)
ERRORS = (X @ THETA - Y) ** 2


@pytest.mark.parametrize(
    ("weight", "rows", "info", "cause"),
    [
        (KEPT, KEPT, {}, "sample_weight"),
        (TIMES, np.repeat(np.arange(70), TIMES), {}, "sample_weight"),
        (KEPT, KEPT, {"arguments": {"class_weight": {"0": 0.0, "1": 1.0}}}, "class_weight"),
    ],
)
@pytest.mark.parametrize("size", [32, 10])
def test_weights_against_rows_that_are_left_out_or_there_twice(
    tmp_path, weight, rows, info, cause, size
):
    weighted = recorded(tmp_path, "weighted", rate=0.0, weight=weight.astype("f8"), info=info)
    chosen = recorded(tmp_path, "chosen", rate=0.0, x=X[rows], y=Y[rows], size=size)
    wanted = ERRORS[rows].mean() - (weight * ERRORS).mean()
    close(exact(ll.reconcile(weighted, chosen)), {cause: wanted})
    close(exact(ll.reconcile(chosen, weighted)), {cause: -wanted})


@pytest.mark.parametrize("size", [32, 10])
def test_a_mean_over_weights_of_0_and_1_is_weighed_by_rows(tmp_path, size):
    """`mean_with_sample_weight`: each batch's mean is over the rows that weigh 1 already."""
    parts = batches(70, 32)
    kept = [KEPT[part] for part in parts]
    losses = np.array([ERRORS[part][k].mean() for part, k in zip(parts, kept, strict=True)])
    made = Made(tmp_path, "weighted")
    said = {"loss": "mse", "reduction": "mean_with_sample_weight"}
    info = {"initial_weights": hashed(THETA), "final_weights": hashed(THETA)}
    made.call(0, driver="fit", model=0, weight_kind="rows", configuration=said, **info)
    made.steps(
        losses,
        epoch=0,
        weight=ROWS,
        penalty=np.zeros(3),
        batch_id=np.array([batch_id(X[part], Y[part]) for part in parts], "u8"),
        sample_weight=np.array([float(k.sum()) for k in kept]),
    )
    chosen = recorded(tmp_path, "chosen", rate=0.0, x=X[KEPT], y=Y[KEPT], size=size, epochs=1)
    wanted = ERRORS[KEPT].mean() - np.dot(ROWS, losses) / 70
    close(exact(ll.reconcile(made.close(), chosen)), {"weighting": wanted})


def test_weights_of_0_beside_a_penalty_and_a_batch_twice_beside_a_dropped_one(tmp_path):
    weight = KEPT.astype("f8")
    layers = [{"class": "Dense", "units": 1, "kernel_regularizer": "l2"}]
    extra = {"configuration": {"layers": layers}}
    regular = recorded(tmp_path, "regular", rate=0.0, weight=weight, penalty=0.05, info=extra)
    chosen = recorded(tmp_path, "chosen", rate=0.0, x=X[KEPT], y=Y[KEPT])
    wanted = {"sample_weight": ERRORS[KEPT].mean() - (weight * ERRORS).mean()}
    wanted["penalty"] = -0.05 * float(THETA @ THETA)
    close(exact(ll.reconcile(regular, chosen)), wanted)
    plain = recorded(tmp_path, "plain", rate=0.0)
    index = np.r_[:32, :32, 32:64]
    again = recorded(tmp_path, "again", rate=0.0, x=X[index], y=Y[index])
    wanted = {"unseen_rows": ERRORS[:64].mean() - ERRORS.mean()}
    wanted["double_count"] = ERRORS[index].mean() - ERRORS[:64].mean()
    close(exact(ll.reconcile(plain, again)), wanted)


def test_a_remainder_that_is_padded_with_rows_that_weigh_nothing(tmp_path):
    pad = np.zeros((26, 3))
    weight = np.append(np.ones(70), np.zeros(26))
    plain = recorded(tmp_path, "plain")
    padded = recorded(
        tmp_path, "padded", x=np.append(X, pad, 0), y=np.append(Y, np.zeros(26)), weight=weight
    )
    losses = sgd()[0]["loss"][:3]
    wanted = (32 * losses).sum() / 96 - 32 * losses[2] / 96 + 6 * losses[2] / 96
    wanted -= np.dot(ROWS, losses) / 70
    close(exact(ll.reconcile(plain, padded, epoch=0)), {"sample_weight": wanted})
    later = ll.reconcile(plain, padded, epoch=1)
    assert set(folded(later)) == {("sample_weight", "exact"), ("sample_weight", "replayed")}
    assert later.divergence.cause == "sample_weight"


def divided(directory, name, loss, rows, scale=1.0, *, penalty=True, driver="fit", **info):
    """One epoch of losses, of which each is its data term times a factor."""
    made = Made(directory, name)
    made.call(0, driver=driver, model=0, weight_kind="rows", epochs_said=True, **info)
    columns = {"penalty": scale * loss - loss} if penalty else {}
    made.steps(scale * loss, epoch=0, weight=np.asarray(rows, "f8"), **columns)
    return made.close()


@pytest.mark.parametrize("scale", [0.25, 0.3, 3.0])
def test_a_loss_that_a_model_scales_has_no_penalty(tmp_path, scale):
    loss = RNG.random(3)
    plain = divided(tmp_path, "plain", loss, ROWS)
    scaled = divided(tmp_path, "scaled", loss, ROWS, scale)
    result = ll.reconcile(plain, scaled)
    close(exact(result), {"accumulation_scaling": (scale - 1) * np.dot(ROWS, loss) / 70})
    assert result.divergence.cause == "accumulation_scaling"


def test_a_loss_scaled_with_its_penalty_is_not_taken_for_one(tmp_path):
    """Nothing says by how much: all of it stays unexplained, in a training beside it, too."""
    loss, regular = RNG.random(3), [{"class": "Dense", "kernel_regularizer": "l2"}]
    plain = divided(tmp_path, "plain", loss, ROWS, configuration={"layers": [{"class": "Dense"}]})
    said = {"custom_compute_loss": True, "layers": regular}
    made = Made(tmp_path, "scaled")
    made.call(0, driver="fit", model=0, weight_kind="rows", epochs_said=True, configuration=said)
    made.steps((loss + 0.1) / 4, epoch=0, weight=ROWS, penalty=(loss + 0.1) / 4 - loss)
    result = ll.reconcile(plain, made.close())
    assert not result.causes
    assert result.unexplained == result.gap


def test_gathered_steps_whose_losses_are_divided(tmp_path):
    """Four batches of 8 between two updates are one of 32, and each logs a quarter."""
    small = RNG.random(8)
    large = small.reshape(2, 4).mean(1)
    said = {"configuration": {"loss": "mse"}}  # else both could be sums over a batch
    whole = divided(tmp_path, "whole", large, [32, 32], penalty=False, **said)
    parts = divided(tmp_path, "parts", small, [8] * 8, 0.25, penalty=False, driver="custom")
    close(exact(ll.reconcile(whole, parts)), {"accumulation_scaling": -0.75 * large.mean()})
    other = divided(tmp_path, "other", small + RNG.random(8), [8] * 8, 0.25, penalty=False)
    found = {each.cause for each in ll.reconcile(whole, other).causes}
    assert "accumulation_scaling" not in found


def test_a_sum_over_the_values_of_a_target_is_a_reduction(tmp_path):
    loss, said = RNG.random(3), {"arguments": {"y": {"shape": [70, 4], "dtype": "float32"}}}
    mean = divided(tmp_path, "mean", loss, ROWS, penalty=False, **said)
    total = divided(tmp_path, "total", loss, ROWS, 4.0, penalty=False, **said)
    close(exact(ll.reconcile(mean, total)), {"reduction": 3 * np.dot(ROWS, loss) / 70})


@pytest.mark.parametrize("fits", [1, 2])
def test_a_metric_that_no_epoch_resets(tmp_path, fits):
    """As one that a model's `metrics` don't list: it goes on over epochs, and over calls."""
    losses = RNG.random((fits, 2, 3)).astype("f4").astype("f8")
    made = Made(tmp_path)
    for number in range(fits):
        made.call(number, driver="fit", model=0, weight_kind="one", initial_weights=f"{number}")
        made.steps(losses[number].ravel(), call=number, epoch=[0, 0, 0, 1, 1, 1], weight=1.0)
        seen = losses[: number + 1].ravel()
        made.history(number, "loss", [seen[:-3].mean(), seen.mean()])
    run = made.close()
    wanted = losses[-1, -1].mean() - losses.mean()
    close(exact(ll.reconcile((run, "reported"), (run, "epoch_mean"))), {"state_not_reset": wanted})


def test_a_metric_that_is_never_updated(tmp_path):
    made = Made(tmp_path)
    made.call(0, driver="fit", model=0, weight_kind="rows", history_is="last")
    made.steps([0.5, 0.25], epoch=0)
    made.history(0, "loss", [0.0])
    run = made.close()
    result = ll.reconcile((run, "reported"), (run, "epoch_mean"))
    close(exact(result), {"convention": 0.375})


@pytest.mark.parametrize("loads", [[3], []])
def test_weights_that_a_program_sets_between_two_steps(tmp_path, loads):
    columns = sgd()[0]
    straight = recorded(tmp_path, "straight")
    made = Made(tmp_path, "back")
    said = {key: straight.calls[0].info[key] for key in ("arguments", "configuration")}
    about = {"initial_weights": straight.calls[0].info["initial_weights"], "weight_kind": "rows"}
    made.call(0, driver="fit", model=0, loads=loads, **about, **said)
    once = {name: np.tile(column[:3], 2) for name, column in columns.items() if name != "epoch"}
    loss, rate = once.pop("loss"), np.full(6, 0.1)
    made.steps(
        loss,
        epoch=columns["epoch"],
        weight=once["rows"],
        learning_rate=rate,
        updated=np.ones(6, bool),
        **once,
    )
    result = ll.reconcile(straight, made.close())
    left = np.dot(ROWS, columns["loss"][:3] - columns["loss"][3:]) / 70
    close(folded(result), {("initial_weights", "replayed"): left} if loads else {})
    assert result.divergence.step == 3
    assert result.divergence.cause == ("initial_weights" if loads else "unexplained")


def test_weights_that_were_put_back_did_not_stand_still(tmp_path):
    """A training that ends with its first weights, as after a search for a learning rate."""
    moved = {"initial_optimizers": {"optimizer": {"iterations": 0}}, "final_weights": "same"}
    moved |= {"initial_weights": "same", "final_optimizers": {"optimizer": {"iterations": 6}}}
    runs = [recorded(tmp_path, f"{size}", size=size, info=None) for size in (32, 10)]
    for run in runs:
        with (run.path / "calls.jsonl").open("a") as file:
            print('{"call": 0, ' + str(moved).replace("'", '"')[1:], file=file)
    result = ll.reconcile(*map(str, (run.path for run in runs)))
    assert set(folded(result)) == {("hyperparameters", "replayed")}


def test_weights_that_were_evaluated_elsewhere(tmp_path):
    def evaluated(at):
        item = {"place": "evaluate", "name": "loss", "epoch": None, "value": 0.5, "weights": at}
        run = recorded(tmp_path, "evaluated", info={"reported": [item]})
        end = run.calls[0].info["final_weights"]
        return end, ll.reconcile(run, (run, "evaluate"))

    end, result = evaluated("others")
    assert not result.causes
    assert "the evaluated weights are not those that the training ended with" in result.verdict
    (cause,) = evaluated(end)[1].causes
    assert (cause.cause, cause.amount) == ("moving_weights", result.gap)


def test_a_call_that_goes_on_with_other_rows(tmp_path):
    _, first, last = sgd(x=X[:35], y=Y[:35], epochs=1)
    made = Made(tmp_path)
    for call, (part, begin) in enumerate(((slice(35), first), (slice(35, 70), last))):
        columns, _, end = sgd(x=X[part], y=Y[part], epochs=1)
        loss = columns.pop("loss")
        weights = {"initial_weights": hashed(begin), "final_weights": hashed(end)}
        made.call(call, driver="fit", model=0, weight_kind="rows", **weights)
        made.steps(loss, call=call, weight=columns["rows"].astype("f8"), **columns)
    run = made.close()
    result = ll.reconcile((run, "@0"), (run, "@1"))
    assert not result.causes
    assert "b goes on from the weights" in result.verdict


@pytest.mark.parametrize("rate", [0.0, 0.1])
def test_a_step_of_the_users_that_forgets_the_penalty(tmp_path, rate):
    """Its penalty isn't on record, but its first loss is the other's data term."""
    regular = recorded(tmp_path, "regular", rate=rate, penalty=0.05)
    columns = sgd(rate=rate)[0]
    made = Made(tmp_path, "forgets")
    made.call(0, **{**regular.calls[0].info, "driver": "fit"})
    loss, rows = columns.pop("loss"), columns["rows"].astype("f8")
    del columns["penalty"]
    made.steps(loss, weight=rows, learning_rate=np.full(6, rate), **columns)
    other = made.close()
    result = ll.reconcile(regular, other)
    whole = sgd(rate=rate, penalty=0.05)[0]
    left = np.dot(ROWS, loss[3:] - whole["loss"][3:]) / 70
    added = -np.dot(ROWS, whole["penalty"][3:]) / 70
    wanted = {("penalty", "exact"): added} | (
        {("penalty", "replayed"): left - added} if rate else {}
    )
    close(folded(result), wanted)
    assert result.divergence.cause == "penalty"


def test_epochs_that_go_on_past_the_end_of_the_data(tmp_path):
    """`repeat` before `batch`: three batches of 32 of 70 rows, and the epochs drift over them."""
    index = np.arange(3 * 96) % 70
    told = {"arguments": {"x": None, "steps_per_epoch": 3, "batch_size": None}}
    for rate in (0.0, 0.1):
        plain = recorded(tmp_path, "plain", rate=rate)
        wraps = recorded(tmp_path, "wraps", rate=rate, epochs=1, x=X[index], y=Y[index], info=told)
        columns = sgd(rate=rate, epochs=1, x=X[index], y=Y[index])[0]
        made = Made(tmp_path, "epochs")
        made.call(0, **{**wraps.calls[0].info, "driver": "fit"})
        rows = columns["rows"]
        loss = columns.pop("loss")
        columns.pop("epoch")
        made.steps(loss, epoch=np.repeat([0, 1, 2], 3), weight=rows.astype("f8"), **columns)
        result = ll.reconcile(plain, made.close(), epoch=0)
        kind = "replayed" if rate else "exact"
        wanted = loss[:3].mean() - np.dot(ROWS, sgd(rate=rate)[0]["loss"][:3]) / 70
        close(causes(result), {("double_count", kind): wanted})


def test_an_epoch_that_goes_on_where_the_other_begins_anew(tmp_path):
    """Of 70 rows: whole batches of 32, over and over, beside batches over the end of the data."""
    again, on = np.tile(np.arange(64), 2), np.arange(128) % 70
    runs, last = [], []
    for name, index in (("again", again), ("on", on)):
        columns = sgd(epochs=1, x=X[index], y=Y[index])[0]
        made = Made(tmp_path, name)
        told = {"x": "BatchDataset of RepeatDataset", "steps_per_epoch": 2}
        told = {"initial_weights": "one", "arguments": told}
        made.call(0, driver="fit", model=0, weight_kind="rows", **told)
        loss, rows = columns.pop("loss"), columns["rows"].astype("f8")
        made.steps(loss, weight=rows, **{**columns, "epoch": [0, 0, 1, 1]})
        runs.append(made.close())
        last.append(loss[2:].mean())
    close(causes(ll.reconcile(*runs)), {("unseen_rows", "replayed"): last[1] - last[0]})


def test_batches_that_are_shuffled_as_a_whole(tmp_path):
    cut = np.roll(np.arange(70), 6)
    parts = [cut[:6], *(cut[6:][part] for part in batches(64, 32))]
    plain = recorded(tmp_path, "plain", epochs=1)
    made = Made(tmp_path, "moved")
    whole = sgd(epochs=1)[0]
    theta, order = THETA.copy(), [2, 0, 1]
    losses = []
    for part in parts:
        error = X[part] @ theta - Y[part]
        losses.append((error**2).mean())
        theta = theta - 0.1 * 2 * X[part].T @ error / len(part)
    said = {k: v for k, v in plain.calls[0].info.items() if k not in ("call", "final_weights")}
    made.call(0, **said)
    made.steps(
        losses,
        epoch=0,
        weight=whole["rows"][order].astype("f8"),
        batch_id=whole["batch_id"][order],
        learning_rate=np.full(3, 0.1),
    )
    result = ll.reconcile(plain, made.close())
    left = np.dot(ROWS[order], losses) / 70 - np.dot(ROWS, whole["loss"]) / 70
    close(causes(result), {("order", "replayed"): left})
