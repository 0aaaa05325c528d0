"""Other batches, with weights and reductions beside them; against plain numpy."""

import numpy as np
import pytest
from made import Made
from trained import RNG, ROWS, X, Y, batches, causes, close, recorded, sgd

import lossledger as ll

ERRORS = (X @ np.random.default_rng(0).normal(size=3) - Y) ** 2
"""Each row's loss at the first weights of `trained.sgd`."""
WEIGHTS, OTHERS = RNG.random((2, 70)) * 3
BY_ROWS = {"arguments": {"sample_weight": {"shape": [70], "dtype": "float32"}}}
BY_CLASS = {"arguments": {"class_weight": {"0": 1.0, "1": 3.0}}}


def test_sample_weights_against_class_weights(tmp_path):
    """To a loss class weights are sample weights: the losses can't tell one from the other."""
    one = recorded(tmp_path, "rows", rate=0.0, weight=WEIGHTS, info=BY_ROWS)
    other = recorded(tmp_path, "classes", rate=0.0, weight=OTHERS, info=BY_CLASS)
    result = ll.reconcile(one, other)
    gap = float(((OTHERS - WEIGHTS) * ERRORS).mean())
    close(causes(result), {("sample_weight", "exact"): gap})
    assert "class weights" in result.causes[0].evidence


@pytest.mark.parametrize(("info", "cause"), [(BY_ROWS, "sample_weight"), (BY_CLASS, None)])
def test_weights_in_batches_of_another_size(tmp_path, info, cause):
    """At weights that stand still it is nothing how rows are cut: the weights are all there is."""
    plain = recorded(tmp_path, "plain", rate=0.0)
    other = recorded(tmp_path, "weighed", rate=0.0, size=10, weight=WEIGHTS, info=info)
    gap = float(((WEIGHTS - 1) * ERRORS).mean())
    close(causes(ll.reconcile(plain, other)), {(cause or "class_weight", "exact"): gap})


def test_rows_that_are_there_twice_instead_of_a_weight_of_two(tmp_path):
    """The one number is the other over the sum of its weights: nothing is left for more causes."""
    twice = np.arange(0, 40, 2)
    index, weight = np.append(np.arange(70), twice), np.ones(70)
    weight[twice] = 2.0
    rows = recorded(tmp_path, "rows", rate=0.0, size=10, x=X[index], y=Y[index])
    weighed = recorded(tmp_path, "weighed", rate=0.0, size=10, weight=weight, info=BY_CLASS)
    gap = (weight * ERRORS).sum() / 70 - ERRORS[index].mean()
    close(causes(ll.reconcile(rows, weighed)), {("class_weight", "exact"): gap})


def test_a_dtype_of_the_data_that_changed_no_row_is_no_cause(tmp_path):
    wide = {"arguments": {"x": {"shape": [70, 3], "dtype": "float64"}}}
    one, other = recorded(tmp_path, "one"), recorded(tmp_path, "two", size=16, info=wide)
    assert set(causes(ll.reconcile(one, other))) == {("hyperparameters", "replayed")}


def test_a_plain_mean_of_other_batches_weighs_their_last_one(tmp_path):
    """The last batch of 6 rows counts as much as one of 32, and holds others on each side."""
    orders = [np.random.default_rng(seed).permutation(70) for seed in (1, 2)]
    parts = batches(70, 32)
    runs = [recorded(tmp_path, "run", rate=0.0, order=lambda _, o=o: o) for o in orders]
    means = [np.mean([ERRORS[o[p]].mean() for p in parts]) for o in orders]
    result = ll.reconcile(*((run, "batch_mean") for run in runs))
    close(causes(result), {("weighting", "exact"): means[1] - means[0]})


def loop(directory, name, size, how):
    """A loop of the user's: no fingerprints, and nothing on record of its loss."""
    parts = batches(70, size)
    made = Made(directory, name)
    made.call(0, driver="custom", model=0, weight_kind="rows", arguments={})
    rows = np.array([len(ERRORS[part]) for part in parts])
    made.steps([how(ERRORS[part]) for part in parts], epoch=0, weight=rows, rows=rows)
    return made.close()


def by_rows(size, how):
    parts = batches(70, size)
    return np.average([how(ERRORS[p]) for p in parts], weights=[len(ERRORS[p]) for p in parts])


@pytest.mark.parametrize(
    ("one", "other"), [(np.mean, np.mean), (np.mean, np.sum), (np.sum, np.mean), (np.sum, np.sum)]
)
def test_loops_that_declare_no_reduction(tmp_path, one, other):
    """Only under one reduction of each are the means over all rows equal: it is that one."""
    runs = [loop(tmp_path, "one", 16, one), loop(tmp_path, "other", 32, other)]
    plain = [
        np.mean([how(ERRORS[p]) for p in batches(70, n)]) for n, how in ((16, one), (32, other))
    ]
    rows = by_rows(16, one), by_rows(32, other)
    wanted = {("weighting", "exact"): rows[0] - plain[0] + plain[1] - rows[1]}
    if {one, other} != {np.mean}:
        wanted["reduction", "exact"] = rows[1] - rows[0]
    result = ll.reconcile(*runs)
    assert {key: amount for key, amount in causes(result).items()} == pytest.approx(
        wanted, rel=5e-6
    )
    assert "batches of another size" in result.divergence.evidence


@pytest.mark.parametrize("rate", [0.0, 0.1])
def test_a_remainder_dropped_in_batches_of_another_size(tmp_path, rate):
    """The sums of fingerprints tell that 2 batches of 32 hold the rows of 4 of 16."""
    weighed = {} if rate else {"weight": WEIGHTS, "info": BY_ROWS}
    whole = recorded(tmp_path, "whole", rate=rate, size=16, epochs=1)
    dropped = recorded(tmp_path, "drops", rate=rate, epochs=1, drop=True, **weighed)
    losses, rows = sgd(rate=rate, size=16, epochs=1)[0]["loss"], np.array([16, 16, 16, 16, 6.0])
    mean = losses[:4].mean()
    result = ll.reconcile(whole, dropped)
    beside = ("hyperparameters", "replayed") if rate else ("sample_weight", "exact")
    unseen = mean - np.dot(rows, losses) / 70
    wanted = {("unseen_rows", "exact"): unseen, beside: result.b.value - mean}
    close(causes(result), wanted)


def test_a_remainder_left_out_last_decides_nothing_before(tmp_path):
    """In the first epoch the rows left out come last: what is left is the regularizer's replay."""
    l2 = {"configuration": {"layers": [{"class": "Dense", "units": 1, "kernel_regularizer": "L2"}]}}
    whole = recorded(tmp_path, "whole", epochs=1)
    other = recorded(tmp_path, "other", epochs=1, drop=True, penalty=0.05, info=l2)
    plain, regular = sgd(epochs=1)[0], sgd(epochs=1, penalty=0.05, drop=True)[0]
    mean = plain["loss"][:2].mean()
    wanted = {("unseen_rows", "exact"): mean - np.dot(ROWS, plain["loss"]) / 70}
    wanted["penalty", "exact"] = regular["penalty"].mean()
    wanted["penalty", "replayed"] = (regular["loss"] - regular["penalty"]).mean() - mean
    close(causes(ll.reconcile(whole, other)), wanted)


def test_a_training_that_began_within_another(tmp_path):
    """As a loop that loads what another saved after two epochs, and counts from 0 again."""
    columns = sgd(epochs=4)[0]

    def part(name, begin):
        made = Made(tmp_path, name)
        weights = {"initial_weights": name, "final_weights": "last"}
        made.call(0, driver="train_on_batch", model=0, weight_kind="rows", **weights)
        own = {name: column[begin:] for name, column in columns.items() if name != "epoch"}
        loss, epoch = own.pop("loss"), columns["epoch"][begin:] - columns["epoch"][begin]
        made.steps(loss, epoch=epoch, weight=own["rows"].astype("f8"), **own)
        return made.close()

    whole, resumed = part("whole", 0), part("resumed", 6)
    result = ll.reconcile(whole, resumed)
    assert result.gap == 0
    assert "b begins with step 6 of a" in result.verdict
    assert result.divergence is None
    mean = columns["loss"].reshape(4, 3).mean(1)
    result = ll.reconcile(resumed, whole, epoch=0)
    close(causes(result), {("convention", "exact"): mean[0] - mean[2]})
    assert "steps 6 to 8 and 0 to 2" in result.causes[0].evidence
    assert ll.reconcile(part("shorter", 11), whole).divergence.cause == "initial_weights"


@pytest.mark.parametrize(("how", "comparable"), [(np.sum, True), (np.median, False)])
def test_a_sum_that_a_user_wrote_is_the_same_function(tmp_path, how, comparable):
    """Nothing on record says that it is: each batch's loss is its rows times the other's."""
    one = recorded(tmp_path, "mse", rate=0.0, epochs=1)
    columns = sgd(rate=0.0, epochs=1)[0]
    made = Made(tmp_path, "own")
    info = {name: value for name, value in one.calls[0].info.items() if name != "call"}
    made.call(0, **{**info, "configuration": {"loss": "<lambda>"}})
    losses = [how(ERRORS[part]) for part in batches(70, 32)]
    ids = {"batch_id": columns["batch_id"], "penalty": np.zeros(3)}
    made.steps(losses, epoch=0, weight=ROWS, rows=ROWS, **ids)
    result = ll.reconcile(one, made.close())
    assert result.comparable is comparable
    if comparable:
        gap = np.dot(ROWS, losses) / 70 - ERRORS.mean()
        close(causes(result), {("reduction", "exact"): gap})


@pytest.mark.parametrize("rate", [0.0, 0.05])
@pytest.mark.parametrize(("size", "steps"), [(20, 4), (14, 6), (10, 9)])
def test_a_loop_that_begins_anew_in_its_data(tmp_path, rate, size, steps):
    """What it has more than the data are rows that it had before, wherever its batches end."""
    rows = np.arange(size * steps) % 70
    fit = recorded(tmp_path, "fit", rate=rate, size=10, epochs=1)
    loop = {"rate": rate, "size": size, "x": X[rows], "y": Y[rows], "epochs": 1}
    result = ll.reconcile(fit, (recorded(tmp_path, "loop", driver="loop", **loop), "epoch_mean"))
    if not rate:
        gap = float(ERRORS[rows].mean() - ERRORS.mean())
        close(causes(result), {("double_count", "exact"): gap})
    elif size != 10:  # another batch size, too
        assert {each.cause for each in result.causes} <= {"double_count"}
        assert "double_count, hyperparameters" in result.verdict
    else:
        losses = sgd(**loop)[0]["loss"]
        close(causes(result), {("double_count", "exact"): losses.mean() - losses[:7].mean()})


def test_a_remainder_dropped_of_rows_in_another_order(tmp_path):
    order = np.random.default_rng(4).permutation(70)
    whole = recorded(tmp_path, "whole", rate=0.0)
    dropped = recorded(tmp_path, "dropped", rate=0.0, drop=True, order=lambda _: order)
    gap = float(ERRORS[order[:64]].mean() - ERRORS.mean())
    close(causes(ll.reconcile(whole, dropped)), {("unseen_rows", "exact"): gap})


@pytest.mark.parametrize(("resets", "by_rows"), [(False, False), (False, True), (True, False)])
def test_a_step_that_returns_a_mean_of_its_own(tmp_path, resets, by_rows):
    """Its entries are what it returns; the other training's losses tell what that is."""
    custom = {"history_is": "last", "configuration": {"custom_train_step": True}}
    losses = sgd()[0]["loss"].astype("f4").astype("f8")
    weights = np.tile(ROWS, 2) if by_rows else np.ones(6)
    kept = [slice(0 if not resets else 3 * (step // 3), step + 1) for step in range(6)]
    means = [np.average(losses[part], weights=weights[part]) for part in kept]
    plain, own = recorded(tmp_path, "plain"), recorded(tmp_path, "own", info=custom, shows=means)
    result = ll.reconcile(plain, own)
    epoch = [np.average(losses[3:], weights=each[3:]) for each in (np.tile(ROWS, 2), weights)]
    wanted = {} if resets else {("state_not_reset", "exact"): means[-1] - epoch[1]}
    wanted |= {} if by_rows else {("weighting", "exact"): epoch[1] - epoch[0]}
    found = {key: amount for key, amount in causes(result).items() if abs(amount) > 1e-6}
    close(found, wanted)
    assert result.b.note.startswith("its train_step returns a mean")
    first = ll.reconcile(plain, own, epoch=0)
    assert "state_not_reset" not in {each.cause for each in first.causes if abs(each.amount) > 1e-6}


@pytest.mark.parametrize("rows", [None, ROWS])
@pytest.mark.parametrize("statistic", ["batch_mean", "epoch_mean", "last"])
def test_a_loop_that_gives_its_mean_so_far_as_a_steps_loss(tmp_path, rows, statistic):
    """Two epochs of a loop that prints what it hands on; it need not say its rows."""
    losses = sgd()[0]["loss"].astype("f4").astype("f8")
    means = np.concatenate([np.cumsum(part) / np.arange(1, 4) for part in losses.reshape(2, 3)])
    made = Made(tmp_path, "own")
    made.call(0, driver="custom", weight_kind="one" if rows is None else "rows")
    for epoch, part in enumerate(means.reshape(2, 3)):
        made.steps(
            part, epoch=epoch, weight=1.0 if rows is None else rows, batch_id=np.zeros(3, "u8"),
            rows=np.zeros(3) if rows is None else rows,
        )  # fmt: skip
    own = made.close()
    result = ll.reconcile(recorded(tmp_path, "plain"), (own, statistic))
    weights = {"epoch_mean": np.ones(3) if rows is None else rows}.get(statistic, np.ones(3))
    shown = means[-1] if statistic == "last" else np.average(means[3:], weights=weights)
    plain = np.average(losses[3:], weights=weights)
    weighting = plain - np.average(losses[3:], weights=ROWS)
    wanted = {("convention", "exact"): shown - plain, ("weighting", "exact"): weighting}
    found = {key: amount for key, amount in causes(result).items() if abs(amount) > 1e-6}
    close(found, {key: amount for key, amount in wanted.items() if abs(amount) > 1e-6})
    assert result.gap == pytest.approx(shown - np.average(losses[3:], weights=ROWS), abs=1e-6)
    assert result.b.note.startswith("it gives run.step a mean of its own")


def test_a_loop_that_says_no_batch_is_not_said_to_train_on_the_same(tmp_path):
    made = Made(tmp_path, "own")
    made.call(0, driver="custom", weight_kind="rows")
    order = np.random.default_rng(4).permutation(70)
    losses = sgd(x=X[order], y=Y[order], epochs=1)[0]["loss"]
    made.steps(losses, epoch=0, weight=ROWS, rows=ROWS, batch_id=np.zeros(3, "u8"))
    result = ll.reconcile(recorded(tmp_path, "plain", epochs=1), made.close())
    assert "of batches not both on record" in result.divergence.evidence
    assert "same batch" not in result.divergence.evidence


@pytest.mark.parametrize("divided", [False, True])
def test_a_step_that_returns_an_exponential_mean(tmp_path, divided):
    custom = {"history_is": "last", "configuration": {"custom_train_step": True}}
    losses = sgd()[0]["loss"].astype("f4").astype("f8")
    means, mean = [], 0.0
    for step, loss in enumerate(losses, 1):
        mean = 0.9 * mean + 0.1 * loss
        means.append(mean / (1 - 0.9**step) if divided else mean)
    means = np.array(means, "f4").astype("f8")
    plain, own = recorded(tmp_path, "plain"), recorded(tmp_path, "own", info=custom, shows=means)
    gap = means[-1] - float(ROWS @ losses[3:] / 70)
    result = ll.reconcile(plain, own)
    close(causes(result), {("convention", "exact"): gap})
    assert "fades by 0.9 a step" in result.causes[0].evidence
    other = recorded(tmp_path, "other", info=custom, shows=np.square(losses))
    assert ll.reconcile(plain, other).unexplained


# --- Sums over batches, and what is told beside another size or order of batches.


def test_sums_of_the_same_rows_in_another_order_are_equal(tmp_path):
    """A list of a batch's sums has one mean, however the rows were shuffled."""
    orders = [np.random.default_rng(seed).permutation(70) for seed in (1, 2)]
    runs = [
        recorded(tmp_path, "run", rate=0.0, reduction="sum", order=lambda _, o=o: o) for o in orders
    ]
    result = ll.reconcile(*((run, "batch_mean") for run in runs))
    assert result.a.value == pytest.approx(ERRORS.sum() / 3, rel=1e-6)
    assert not result.causes


@pytest.mark.parametrize("size", [7, 10])
def test_sums_that_are_weighted_stay_sums(tmp_path, size):
    """Batches of one size, in another order: the sums are as they are but for the weights."""
    order = np.random.default_rng(1).permutation(70)
    one = recorded(tmp_path, "one", rate=0.0, reduction="sum", size=10)
    other = recorded(
        tmp_path,
        "other",
        rate=0.0,
        reduction="sum",
        size=size,
        order=lambda _: order,
        weight=WEIGHTS,
        info=BY_ROWS,
    )
    sums = 10 * ERRORS.mean(), size * (WEIGHTS * ERRORS).mean()
    middle = (10 + size) / 2
    wanted = {("sample_weight", "exact"): middle * ((WEIGHTS - 1) * ERRORS).mean()}
    if size != 10:
        wanted["reduction", "exact"] = (middle / 10 - 1) * sums[0] + (1 - middle / size) * sums[1]
    close(causes(ll.reconcile(one, other)), wanted)


@pytest.mark.parametrize("rate", [0.0, 0.1])
@pytest.mark.parametrize("order", [None, np.random.default_rng(1).permutation(70)])
def test_weights_in_a_data_set_whose_batches_are_others(tmp_path, rate, order):
    """No record has them, and no batch is in both: only what they add to tells."""
    given = {"arguments": {"x": "DataSet"}}
    one = recorded(tmp_path, "one", rate=rate, size=10, info=given)
    choices = {"size": 14} if order is None else {"size": 10, "order": lambda _: order}
    other = recorded(tmp_path, "other", rate=rate, weight=WEIGHTS, info=given, **choices)
    result = ll.reconcile(one, other)
    if not rate:
        close(causes(result), {("sample_weight", "exact"): ((WEIGHTS - 1) * ERRORS).mean()})
        return
    assert not result.causes
    named = "hyperparameters, sample_weight" if order is None else "order, sample_weight"
    assert f"differ in {named}" in result.verdict


@pytest.mark.parametrize("shuffled", [False, True])
def test_sample_weights_against_class_weights_in_other_batches(tmp_path, shuffled):
    order = np.random.default_rng(1).permutation(70)
    choices = {"order": lambda _: order} if shuffled else {"size": 10}
    one = recorded(tmp_path, "rows", rate=0.0, weight=WEIGHTS, info=BY_ROWS)
    other = recorded(tmp_path, "cls", rate=0.0, weight=OTHERS, info=BY_CLASS, **choices)
    gap = float(((OTHERS - WEIGHTS) * ERRORS).mean())
    close(causes(ll.reconcile(one, other)), {("sample_weight", "exact"): gap})


BY_SUM_OF_WEIGHTS = {"configuration": {"reduction": "mean_with_sample_weight"}}


@pytest.mark.parametrize("rate", [0.0, 0.1])
def test_means_by_weights_and_by_rows_are_one_where_there_are_no_weights(tmp_path, rate):
    """Two reductions, of which the trainings know nothing: other rows are all that differs."""
    whole = recorded(tmp_path, "whole", rate=rate, epochs=1)
    part = recorded(
        tmp_path, "part", rate=rate, epochs=1, x=X[:50], y=Y[:50], info=BY_SUM_OF_WEIGHTS
    )
    ((cause, kind),) = causes(ll.reconcile(whole, part))
    assert cause == "unseen_rows"
    assert kind == ("replayed" if rate else "exact")


@pytest.mark.parametrize("beside", ["penalty", "reduction"])
def test_rows_left_out_beside_what_is_in_every_step(tmp_path, beside):
    """The batches that both have tell that nothing else is left, so the rest is of the rows."""
    changes = {"penalty": 0.01} if beside == "penalty" else {"reduction": "sum"}
    one = recorded(tmp_path, "one", rate=0.0, epochs=1)
    other = recorded(tmp_path, "other", rate=0.0, epochs=1, x=X[:50], y=Y[:50], **changes)
    found = causes(ll.reconcile(one, other))
    rows = ERRORS[:50].mean() - ERRORS.mean()
    if beside == "penalty":
        more = 0.01 * (np.random.default_rng(0).normal(size=3) ** 2).sum()
    else:
        more = (32 * ERRORS[:32].sum() + 18 * ERRORS[32:50].sum()) / 50 - ERRORS[:50].mean()
    close(found, {("unseen_rows", "exact"): rows, (beside, "exact"): more})
