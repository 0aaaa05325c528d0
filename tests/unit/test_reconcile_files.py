"""A number in another tool's file against a run's: as far as a file without entries goes."""

import json
import math
from pathlib import Path
from shutil import copy

import numpy as np
import pytest
from explained import FILES, series_of
from made import Made
from trained import recorded, sgd

import lossledger as ll
from lossledger import explain
from lossledger.cli import main
from lossledger.errors import LossLedgerError
from lossledger.reconciliation.files import with_files

LAST = slice(3, 6)  # the second of two epochs of three batches: 32, 32 and 6 rows
ROWS = np.array([32.0, 32.0, 6.0])


@pytest.fixture
def run(tmp_path):
    return recorded(tmp_path, "fit")


@pytest.fixture
def means():
    """What `fit` logs: the mean of each epoch, in float32."""
    losses = sgd()[0]["loss"].astype("f4").astype("f8").reshape(2, 3)
    return np.float32(np.average(losses, axis=1, weights=ROWS)).astype("f8")


@pytest.fixture
def log(tmp_path, means):
    path = tmp_path / "training.log"
    path.write_text(
        "epoch,loss,val_loss\n" + "".join(f"{e},{m},9.5\n" for e, m in enumerate(means))
    )
    return path


def sums(result):
    total = math.fsum((*(cause.amount for cause in result.causes), result.unexplained))
    assert total == pytest.approx(result.gap, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("turned", [False, True])
def test_a_runs_own_log_leads_over_its_entries(run, log, means, turned) -> None:
    losses = sgd()[0]["loss"].astype("f4").astype("f8")[LAST]
    pair = (log, (run, "batch_mean"))
    result = ll.reconcile(*(reversed(pair) if turned else pair))
    sums(result)
    sign = -1 if turned else 1
    amounts = {cause.cause: cause.amount for cause in result.causes}
    weighting = losses.mean() - np.average(losses, weights=ROWS)
    assert amounts.pop("weighting") == pytest.approx(sign * weighting, rel=1e-6)
    rounding = np.average(losses, weights=ROWS) - means[1]
    assert amounts.pop("float32_accumulation", 0.0) == pytest.approx(sign * rounding, abs=1e-15)
    assert not amounts
    assert result.unexplained == 0
    assert "The file's number is the run's epoch_mean" in result.verdict
    side = result.b if turned else result.a
    assert (side.value, side.epoch, side.note) == (means[1], 1, "keras-csvlogger")


def test_an_epoch_is_chosen_in_both(run, log, means) -> None:
    result = ll.reconcile(log, run, epoch=0)
    assert (result.a.value, result.a.epoch) == (means[0], 0)
    assert {cause.cause for cause in result.causes} <= {"float32_accumulation"}
    assert abs(result.gap) < 1e-6


def test_a_log_of_another_training_stays_unexplained(run, tmp_path) -> None:
    path = tmp_path / "other.json"
    path.write_text(json.dumps({"loss": [5.0, 4.0]}))
    result = ll.reconcile(path, (run, "batch_mean"))
    sums(result)
    own = ll.reconcile((run, "epoch_mean"), (run, "batch_mean"))
    assert [cause.cause for cause in result.causes] == ["weighting"]
    assert result.causes[0].amount == own.causes[0].amount
    assert result.unexplained == pytest.approx(own.a.value - 4.0)
    assert "is not the run's epoch_mean" in result.verdict


def test_a_rounded_log_is_known_as_far_as_it_goes(run, tmp_path, means) -> None:
    path = tmp_path / "rounded.json"
    path.write_text(json.dumps({"loss": [round(float(each), 3) for each in (*means, means[1])]}))
    result = ll.reconcile(path, run, epoch=1)
    assert "rounded" in result.verdict
    assert abs(result.unexplained) <= 5e-4


def test_two_files_have_a_gap_but_no_causes(log, tmp_path) -> None:
    result = ll.reconcile(f"{log}:val_loss", f"{log}:loss")
    sums(result)
    assert not result.causes
    assert "different things: evaluate in a, epoch_mean in b" in result.verdict
    assert "No gap" in ll.reconcile(log, str(log)).verdict
    (other := tmp_path / "history.json").write_text(json.dumps({"loss": [5.0, 4.0, 3.0]}))
    verdict = ll.reconcile(log, other).verdict
    assert "Both are epoch_mean, of other epochs: 1 in a, 2 in b." in verdict
    assert verdict.startswith("A file holds no entries")


def test_what_the_run_does_not_have_is_no_crash(run, log) -> None:
    result = ll.reconcile((log, "val_loss"), run)
    sums(result)
    assert not result.causes
    assert "The run has no val_loss" in result.verdict


def test_a_table_without_rows_has_no_number(run, tmp_path) -> None:
    path = tmp_path / "training.log"
    path.write_text("epoch,loss,val_loss\n")
    with pytest.raises(LossLedgerError, match=r"its loss of .*It has: no number at all"):
        ll.reconcile(path, run)


def test_one_error_for_what_is_not_in_the_file(run, log) -> None:
    with pytest.raises(LossLedgerError, match="It has: loss, val_loss") as error:
        ll.reconcile(f"{log}:acuracy", run)
    assert error.value.slug == "no-series"
    for epoch in (7, -7):
        with pytest.raises(LossLedgerError, match="no such epoch"):
            ll.reconcile(log, run, epoch=epoch)


def test_on_the_command_line(run, log, capsys) -> None:
    assert main(["reconcile", str(log), f"{run.path}:batch_mean", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["a"]["run"] == str(log)
    assert printed["causes"][0]["cause"] == "weighting"
    assert main(["reconcile", str(log), f"{run.path}:batch_mean", "--fail-over", "1e-9"]) == 3
    assert "keras-csvlogger" in capsys.readouterr().out


def windows(path, losses, steps):
    """What transformers logs: a mean of the steps since it logged last."""
    begins = [0, *steps]
    means = [float(losses[begin:end].mean()) for begin, end in zip(begins, steps, strict=False)]
    logged = [{"step": step, "loss": mean} for step, mean in zip(steps, means, strict=True)]
    path.write_text(json.dumps({"log_history": logged, "global_step": len(losses)}))
    return means


@pytest.mark.parametrize("steps", [(2, 4), (2, 4, 6), (4, 6), (4, 5)])
def test_a_number_of_a_step_is_set_beside_that_step(run, tmp_path, steps) -> None:
    losses = sgd()[0]["loss"].astype("f4").astype("f8")
    path = tmp_path / "trainer_state.json"
    means = windows(path, losses, steps)
    result = ll.reconcile(path, (run, "batch_mean"))
    sums(result)
    assert (result.a.value, result.b.value) == pytest.approx((means[-1], losses[LAST].mean()))
    assert result.unexplained == pytest.approx(0, abs=1e-12)
    assert "The file's number is the run's window_mean" in result.verdict


def test_a_train_loss_weighs_each_step_the_same(run, tmp_path) -> None:
    losses = sgd()[0]["loss"].astype("f4").astype("f8")
    path = tmp_path / "trainer_state.json"
    path.write_text(json.dumps([{"step": 6, "train_loss": losses.mean()}]))
    result = ll.reconcile((path, "train_loss"), (run, "cumulative_mean"))
    sums(result)
    rows = np.average(losses, weights=np.tile(ROWS, 2))
    assert result.gap == pytest.approx(rows - losses.mean())
    assert [cause.cause for cause in result.causes] == ["weighting"]
    assert result.unexplained == pytest.approx(0, abs=1e-12)


def test_a_folder_is_its_event_file_of_the_training(tmp_path) -> None:
    """Three epochs of five batches; with executions of two steps, the file counts these."""
    for name in ("train", "validation"):
        (tmp_path / "logs" / name).mkdir(parents=True)
        copy(FILES / f"keras_{name}.events", tmp_path / "logs" / name / "events.out.tfevents.1")
    means = series_of(explain.read(tmp_path / "logs"), "batch_loss").values
    made = Made(tmp_path / "runs")
    made.call(0, driver="fit", model=0, configuration={"steps_per_execution": 2})
    epoch = np.repeat(np.arange(5), 5)
    # Of five steps three executions; where all losses are one, so are their running means.
    made.steps(np.repeat(means[2::3], 5), epoch=epoch)
    run = made.close()
    result = ll.reconcile(f"{tmp_path / 'logs'}:batch_loss", (run, "@epoch=4:running_mean"))
    assert result.unexplained == pytest.approx(0, abs=1e-7)
    assert "running_mean (batch=4) of epoch 4" in result.verdict
    more = tmp_path / "logs" / "more" / "train"
    more.mkdir(parents=True)
    copy(FILES / "keras_train.events", more / "events.out.tfevents.2")
    with pytest.raises(LossLedgerError, match="Name one of its event files"):
        explain.read(tmp_path / "logs")


def test_a_step_that_the_run_has_not(run, tmp_path) -> None:
    windows(path := tmp_path / "trainer_state.json", np.ones(9), (4, 8))
    result = ll.reconcile(path, run)
    assert not result.causes
    assert "The run has no such step. Received: step 8. It has 6." in result.verdict


def two_calls_and_the_first_ones_log(tmp_path):
    made = Made(tmp_path)
    for call in (0, 1):
        made.call(call, driver="fit", model=0)
        made.steps([1.0 + call, 2.0, 5.0], call=call, epoch=0, weight=[8, 8, 2])
    run = made.close()
    path = tmp_path / "history.json"
    path.write_text(json.dumps({"loss": [34 / 18]}))
    return run, path


def test_the_call_that_is_chosen_is_the_one_that_is_read(tmp_path) -> None:
    run, path = two_calls_and_the_first_ones_log(tmp_path)
    result = ll.reconcile(path, f"{run.path}@0:batch_mean")
    assert "The file's number is the run's epoch_mean" in result.verdict
    assert {cause.cause for cause in result.causes} <= {"weighting", "float32_accumulation"}


def test_the_log_of_an_earlier_call(tmp_path) -> None:
    """The number beside it is of the last call, as always; the file's is found where it is."""
    run, path = two_calls_and_the_first_ones_log(tmp_path)
    result = ll.reconcile(path, run)
    sums(result)
    assert (result.b.call, result.b.value) == (1, 42 / 18)
    assert "The file's number is the run's epoch_mean of epoch 0 of call 0, 1.88889." in (
        result.verdict
    )
    path.write_text(json.dumps({"loss": [7.0]}))
    verdict = ll.reconcile(path, (run, "batch_mean")).verdict
    assert "is not the run's epoch_mean of epoch 0, 2.33333" in verdict
    assert "Between the run's own two numbers: All of the gap is weighting." in verdict


def test_a_number_that_no_call_has_costs_one_reconciliation(tmp_path) -> None:
    """Calls are looked at for the file's number alone; between two of them it is reckoned once."""
    made = Made(tmp_path)
    for call in range(20):
        made.call(call, driver="fit", model=0)
        made.steps([1.0 + call, 2.0, 5.0], call=call, epoch=0, weight=[8, 8, 2])
    run = made.close()
    path = tmp_path / "history.json"
    asked = []

    def between(a, b):
        asked.append(a)
        return ll.reconcile(a, b)

    of_call_9 = (8 * (1 + 9) + 8 * 2 + 2 * 5) / 18
    for number, place in ((50.123, "@epoch=0"), (round(of_call_9, 2), "@call=9,epoch=0")):
        path.write_text(json.dumps({"loss": [number, number, number]}))
        result = with_files((path, run), ((path, ""), None), 0, ll.open, between)
        assert [own for _, own in asked] == [f"{place}:epoch_mean"]
        asked.clear()
        assert result.b.call == 19
    assert "rounded" in result.verdict


@pytest.mark.parametrize("series", ["epoch_loss", "evaluation_loss_vs_iterations"])
def test_tensorboards_validation_is_the_runs_val_loss(tmp_path, series) -> None:
    path = FILES / "keras_validation.events"
    losses = series_of(explain.read(path), series)
    count = int(series_of(explain.read(path), "evaluation_loss_vs_iterations").steps[0])
    epochs = len(losses.values)
    made = Made(tmp_path)
    made.call(0, driver="fit", model=0)
    made.history(0, "val_loss", losses.values)
    made.steps(np.ones(count * epochs), epoch=np.repeat(np.arange(epochs), count))
    result = ll.reconcile(f"{path}:{series}", (made.close(), "val_loss"))
    assert (result.gap, result.causes, result.unexplained) == (0, (), 0)
    assert f"The file's number is the run's val_loss of epoch {epochs - 1}" in result.verdict


def test_other_tools_validation_is_set_beside_val_loss_or_evaluate(tmp_path) -> None:
    made = Made(tmp_path)
    made.call(0, driver="fit", model=0)
    made.history(0, "val_loss", [0.5, 0.25])
    made.steps(np.ones(6), epoch=np.repeat([0, 1], 3))
    run = made.close()
    path = tmp_path / "trainer_state.json"
    path.write_text(json.dumps([{"step": 3, "eval_loss": 0.5}, {"step": 6, "eval_loss": 0.25}]))
    for epoch, number in ((-1, 0.25), (-2, 0.5)):
        result = ll.reconcile(path, (run, "val_loss"), epoch=epoch)
        assert (result.a.value, result.gap) == (number, 0)
        assert "is the run's val_loss" in result.verdict


def test_a_history_counts_from_the_calls_first_epoch(tmp_path, means) -> None:
    columns = sgd()[0]
    made = Made(tmp_path)
    made.call(0, driver="fit", model=0, weight_kind="rows")
    made.history(0, "loss", means, first=5)
    made.steps(columns["loss"], epoch=columns["epoch"] + 5, weight=columns["rows"].astype("f8"))
    run = made.close()
    path = tmp_path / "history.json"
    path.write_text(json.dumps({"loss": means.tolist()}))
    for epoch, number in ((-1, means[1]), (-2, means[0])):
        result = ll.reconcile(path, (run, "reported"), epoch=epoch)
        assert (result.a.value, result.b.value) == (number, number)
        assert (result.gap, result.causes, result.unexplained) == (0, (), 0)
        assert f"is the run's epoch_mean of epoch {7 + epoch}" in result.verdict


def test_an_epochs_number_goes_before_a_batchs() -> None:
    path = Path(__file__).parent / "files" / "keras_train.events"
    assert ll.reconcile(path, path).a.statistic == "epoch_loss, epoch_mean"


def test_of_a_validations_file_it_is_the_epochs_numbers() -> None:
    """TensorBoard's callback writes the same losses by step, too."""
    path = FILES / "keras_validation.events"
    losses = {each.name: each for each in explain.read(path).losses}
    assert losses["evaluation_loss_vs_iterations"].per == "step"
    side = ll.reconcile(path, path, epoch=0).a
    assert (side.epoch, side.value) == (0, losses["epoch_loss"].values[0])


def test_a_number_that_is_not_finite_in_both(tmp_path) -> None:
    made = Made(tmp_path, "diverged")
    made.call(0, driver="fit", model=0, weight_kind="rows")
    made.steps([0.5, math.nan], epoch=0)
    log = tmp_path / "training.log"
    log.write_text("epoch,loss\n0,nan\n")
    result = ll.reconcile(log, made.close())
    assert result.gap == 0
    assert not result.causes
    assert result.verdict.startswith("The file's number is the run's epoch_mean of epoch 0, nan.")
