"""Files of other tools: what each series is, what follows from it, and files that are none."""

import json

import numpy as np
import pytest
from explained import CSV_LOG, FILES, series_of, statistics, trainer_state
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lossledger.explain import read
from lossledger.explain.deaverage import losses_of
from lossledger.render.base import Options
from lossledger.render.explain import JsonExplain, TerminalExplain

# The losses behind keras_train.events: train_on_batch of Keras 3.15.1 on the same five batches of
# equal rows, three epochs.
RAW = [
    [1.219733715057373, 0.8255082368850708, 1.4631943702697754, 1.2321757078170776,
     0.7542431354522705],
    [1.181797742843628, 0.8060088753700256, 1.4235529899597168, 1.1954684257507324,
     0.7282774448394775],
    [1.144806146621704, 0.7869998216629028, 1.384603500366211, 1.1595019102096558,
     0.7029201984405518],
]  # fmt: skip


# Keras, an epoch a row


def test_a_csv_log_is_epoch_means(write) -> None:
    found = read(write(CSV_LOG, "events.out.tfevents.1"))  # the name says nothing
    assert (found.kind, found.tool) == ("keras-csvlogger", "keras")
    assert statistics(found) == {"loss": "epoch_mean", "mae": None}
    loss = series_of(found, "loss")
    np.testing.assert_array_equal(loss.steps, [0, 1, 2])
    np.testing.assert_array_equal(loss.values, [0.75, 0.5, np.nan])
    assert (loss.per, loss.nonfinite) == ("epoch", 1)
    assert any("val_loss has no number" in note for note in found.notes)


@pytest.mark.parametrize(
    ("version", "tool", "weight"),
    [
        ("3.0.5", "keras", "one"),
        ("3.1.1", "keras", "one"),
        ("3.2.0", "keras", "rows"),
        ("3.15.1", "keras", "rows"),
        ("2.12", "tf.keras", "rows"),
        ("2.1", "tf.keras", "rows"),
    ],
)
def test_a_version_settles_the_convention(write, version: str, tool: str, weight: str) -> None:
    loss = series_of(read(write(CSV_LOG), {"keras": version}), "loss")
    assert [(row.tool, row.weight_kind) for row in loss.conventions] == [(tool, weight)]
    assert loss.settled


def test_without_a_version_every_convention_is_given(write) -> None:
    loss = series_of(read(write(CSV_LOG)), "loss")
    assert {row.tool for row in loss.conventions} == {"keras", "tf.keras"}
    assert {row.weight_kind for row in loss.conventions} == {"rows", "one"}
    assert not loss.settled


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_csv_logs_with_another_separator_appended_or_cut(write, separator: str) -> None:
    text = "epoch,loss,val_loss\n0,3.0,4.0\n1,2.0,3.0\n0,1.5,2.0\n1,1.0"
    found = read(write(text.replace(",", separator)))
    np.testing.assert_array_equal(series_of(found, "loss").values, [3.0, 2.0, 1.5])
    assert statistics(found)["val_loss"] == "evaluate"
    notes = " ".join(found.notes)
    assert "epochs go back 1 time:" in notes
    assert "cut off" in notes


@pytest.mark.parametrize(
    "content",
    [
        {"loss": [0.5, 0.25], "val_loss": [1.0, 2.0], "accuracy": [0.1, 0.2]},
        {"loss": {"0": 0.5, "1": 0.25}, "val_loss": {"0": 1.0, "1": 2.0}},
        {"history": {"loss": [0.5, 0.25], "val_loss": [1, 2]}, "epoch": [0, 1], "params": {}},
        {"loss": ["0.5", "0.25"], "val_loss": ["1.0", "2.0"]},
        [{"loss": 0.5, "val_loss": 1.0}, {"loss": 0.25, "val_loss": 2.0, "note": "best"}],
        '{"loss":0.5,"val_loss":1.0}\n{"loss":0.25,"val_loss":2.0}\n',
    ],
    ids=["dump", "pandas", "vars", "text", "records", "lines"],
)
def test_a_history_as_json(write, content: dict | list | str) -> None:
    found = read(write(content if isinstance(content, str) else json.dumps(content)))
    assert found.kind == "keras-history"
    assert {name: value for name, value in statistics(found).items() if value} == {
        "loss": "epoch_mean",
        "val_loss": "evaluate",
    }
    np.testing.assert_array_equal(series_of(found, "loss").values, [0.5, 0.25])
    np.testing.assert_array_equal(series_of(found, "val_loss").steps, [0, 1])


def test_nan_and_infinity_in_json(write) -> None:
    found = read(write('{"loss": [0.5, NaN, Infinity, -Infinity, null]}'))
    loss = series_of(found, "loss")
    np.testing.assert_array_equal(loss.values, [0.5, np.nan, np.inf, -np.inf, np.nan])
    printed = json.loads(JsonExplain(Options()).render(found))["series"][0]
    assert (printed["first"], printed["last"], printed["nonfinite"]) == (0.5, "nan", 4)
    assert (printed["min"], printed["max"]) == (0.5, 0.5)


def test_a_pandas_table_of_a_history(write) -> None:
    found = read(write(",loss,accuracy\n0,0.5,0.1\n1,0.25,0.2\n"))
    assert statistics(found) == {"loss": "epoch_mean", "accuracy": None}


@pytest.mark.parametrize(
    "content",
    [
        {"epoch": [3, 4], "loss": [0.5, 0.25], "val_loss": [1.0, 2.0]},
        [{"epoch": 3, "loss": 0.5}, {"epoch": 4, "loss": 0.25, "val_loss": 2.0}],
    ],
    ids=["lists", "records"],
)
def test_epochs_are_counted_as_the_file_counts_them(write, content) -> None:
    found = read(write(json.dumps(content)))
    np.testing.assert_array_equal(series_of(found, "loss").steps, [3, 4])
    assert series_of(found, "val_loss").steps[-1] == 4
    assert "epoch" not in statistics(found)


def test_a_table_of_a_history_without_its_index(write) -> None:
    found = read(write("accuracy,loss,val_loss\n0.1,0.5,1.0\n0.2,0.25,2.0\n"))
    assert statistics(found)["loss"] == "epoch_mean"
    np.testing.assert_array_equal(series_of(found, "val_loss").steps, [0, 1])
    assert any("taken for epochs" in note for note in found.notes)


# What a running mean keeps


def test_the_event_file_of_keras(write) -> None:
    found = read(FILES / "keras_train.events", {"keras": "3.15.1"})
    assert (found.kind, found.tool) == ("tensorboard", "keras")
    assert statistics(found) == {
        "batch_loss": "running_mean",
        "epoch_loss": "epoch_mean",
        "batch_mae": None,
        "epoch_mae": None,
        "epoch_learning_rate": None,
    }
    means = [np.cumsum(epoch) / np.arange(1, 6) for epoch in RAW]
    batch, epoch = series_of(found, "batch_loss"), series_of(found, "epoch_loss")
    np.testing.assert_allclose(batch.values, np.concatenate(means), rtol=2e-7)
    np.testing.assert_allclose(epoch.values, [mean[-1] for mean in means], rtol=2e-7)
    np.testing.assert_array_equal(batch.steps, np.arange(1, 16))
    np.testing.assert_array_equal(epoch.steps, [0, 1, 2])
    assert any("1.5 to 2 k ulp(m)" in text and "k = 5" in text for text in batch.recoverable)


def test_losses_of_running_means_are_as_near_as_it_says() -> None:
    means = series_of(read(FILES / "keras_train.events"), "batch_loss").values.reshape(3, 5)
    for mean, raw in zip(means, RAW, strict=True):
        losses, bounds = losses_of(mean)
        assert (np.abs(losses - raw) <= bounds).all()
        assert bounds.max() < 2e-6


@given(
    st.lists(st.floats(0, 1e6, width=32), min_size=1, max_size=300),
    st.sampled_from([1, 3, 10, 32]),
)
@example([0.0, 0.0, 0.0, 1.5, 421935.5, 999999.5, 999999.5, 999999.5, 0.21875], 10)
@settings(max_examples=60)
def test_the_bound_holds_for_any_losses(losses: list[float], rows: int) -> None:
    """Keras's accumulator, repeated in float32: total and count, then their quotient."""
    total = count = np.float32(0)
    means = []
    for loss in losses:
        total += np.float32(loss) * np.float32(rows)
        count += np.float32(rows)
        means.append(float(total / count))
    found, bounds = losses_of(np.array(means))
    # One rounding more: that of the product of loss and rows.
    more = np.spacing(np.float32(losses)).astype(np.float64)
    assert (np.abs(found - np.array(losses)) <= bounds + more).all()


def test_the_validation_file_is_told_by_its_tags() -> None:
    found = read(FILES / "keras_validation.events")
    assert statistics(found)["epoch_loss"] == "evaluate"
    np.testing.assert_array_equal(
        series_of(found, "evaluation_loss_vs_iterations").values,
        series_of(found, "epoch_loss").values,
    )
    np.testing.assert_array_equal(
        series_of(found, "evaluation_loss_vs_iterations").steps, [5, 10, 15]
    )


# Lightning and transformers


@pytest.mark.parametrize("name", ["lightning.csv", "lightning.events"])
def test_lightning_in_both_its_files(name: str) -> None:
    found = read(FILES / name)
    assert found.tool == "lightning"
    named = statistics(found)
    named.pop("epoch", None)
    assert named == {
        "train_loss_step": "raw",
        "bare_loss": "raw",
        "val_loss": "evaluate",
        "train_loss_epoch": "epoch_mean",
    }
    step = series_of(found, "train_loss_step")
    np.testing.assert_array_equal(step.steps, [4, 9, 14, 19, 24, 29, 34])
    assert any("28 of the 35 steps" in text for text in step.not_recoverable)
    epoch = series_of(found, "train_loss_epoch")
    assert epoch.per == "epoch"
    np.testing.assert_array_equal(epoch.steps, [0, 1, 2])
    np.testing.assert_allclose(epoch.values, [0.53778040, 0.22601265, 0.13383408], rtol=1e-7)


def test_what_lightning_logged_once_an_epoch_is_not_told(write) -> None:
    found = read(write("epoch,step,loss\n0,12,0.5\n1,25,0.25\n"))
    loss = series_of(found, "loss")
    assert loss.statistic is None
    assert any("logged once an epoch" in text for text in loss.not_recoverable)
    assert not any("no loss" in text for text in loss.not_recoverable)


def test_a_trainer_state(write) -> None:
    losses = [2.1234, 1.5001, 1.2503, 1.1]
    found = read(write(json.dumps(trainer_state(losses, 50))), {"transformers": "4.50"})
    assert (found.kind, found.tool) == ("trainer-state", "transformers")
    assert statistics(found) == {
        "loss": "window_mean",
        "eval_loss": "evaluate",
        "train_loss": "cumulative_mean",
    }
    loss = series_of(found, "loss")
    assert loss.conventions[0].parameters == {"n": 50}
    np.testing.assert_array_equal(loss.steps, [50, 100, 150, 200])
    assert any(f"{np.mean(losses):.7g}" in text for text in loss.recoverable)
    assert any("5e-05" in text for text in loss.recoverable)
    assert any("each of 200 steps" in text for text in loss.not_recoverable)
    assert any("train_loss is the mean of all" in note for note in found.notes)


def test_a_resumed_training_shows_in_its_train_loss(write) -> None:
    losses = [2.1234, 1.5001, 1.2503, 1.1]
    found = read(write(json.dumps(trainer_state(losses, 50, resumed=2))))
    assert any("resumed at step 100" in note for note in found.notes)
    assert any(f"{(1.2503 + 1.1) / 2:.6g}" in note for note in found.notes)


def test_a_training_resumed_between_two_logged_steps(write) -> None:
    """From step 39 on; the mean that was logged at step 40 is of the one step since then."""
    losses = [4.0312345, 2.0471938, 1.5113672]
    log = [{"loss": x, "step": step} for step, x in zip((36, 40, 44), losses, strict=True)]
    since = losses[1] + 4 * losses[2]
    log.append({"train_loss": since / 44, "step": 44})
    found = read(write(json.dumps(log)))
    assert any("resumed at step 39" in note for note in found.notes)
    assert any(f"mean is {since / 5:.6g}" in note for note in found.notes)


@pytest.mark.parametrize(("first", "steps"), [(32, 8), (30, 10)])
def test_a_resume_since_transformers_5_19_shows_too(write, first: int, steps: int) -> None:
    """`train_loss` is the mean of the steps since the resume; the first window is shorter."""
    losses = [0.7081642, 0.7016821, 0.7051996, 0.7093235, 0.7046464, 0.7028827]
    log = [{"loss": x, "step": 10 * (place + 1)} for place, x in enumerate(losses)]
    mean = float(np.average(losses[3:], weights=[steps, 10, 10]))
    log.append({"train_loss": mean, "step": 60})
    found = read(write(json.dumps(log)))
    assert any(f"the mean of the losses since step {first}:" in note for note in found.notes)


def test_steps_after_the_last_window_are_in_the_total(write) -> None:
    losses = [2.1, 1.5, 1.2]
    log = [{"loss": x, "step": 10 * (place + 1)} for place, x in enumerate(losses)]
    log.append({"train_loss": (10 * sum(losses) + 4 * 0.9) / 34, "step": 34})
    found = read(write(json.dumps({"log_history": log, "global_step": 34})))
    assert any("steps 31 to 34 are in no logged mean" in note for note in found.notes)
    assert any("their mean is 0.9" in note and "resumed" in note for note in found.notes)


def test_transformers_in_an_event_file() -> None:
    """Trained for 3 epochs of 13 steps with logging_steps=3."""
    found = read(FILES / "transformers.events")
    loss = series_of(found, "train/loss")
    assert (found.tool, loss.statistic) == ("transformers", "window_mean")
    assert {row.parameters["n"] for row in loss.conventions} == {3}
    np.testing.assert_array_equal(loss.steps, np.arange(3, 40, 3))
    assert any("each of 39 steps" in text for text in loss.not_recoverable)
    assert series_of(found, "eval/loss").statistic == "evaluate"
    assert series_of(found, "train/train_loss").statistic == "cumulative_mean"
    total = series_of(found, "train/train_loss").values[0]
    assert loss.values.mean() == pytest.approx(total, rel=1e-6)


def test_windows_of_unequal_length_are_weighted_by_their_steps(write) -> None:
    log = [{"loss": 4.0, "step": 1}, {"loss": 2.0, "step": 10}, {"loss": 1.0, "step": 20}]
    found = read(write(json.dumps(log)))
    mean = (4.0 + 9 * 2.0 + 10 * 1.0) / 20
    assert any(f"{mean:.7g}" in text for text in series_of(found, "loss").recoverable)
    assert any("not all windows are of 9" in note for note in found.notes)


# What is printed


def test_the_page_says_what_holds_and_what_is_lost(write) -> None:
    found = read(write(CSV_LOG), {"keras": "3.8"})
    page = TerminalExplain(Options(width=100)).render(found)
    assert "loss is epoch_mean" in page
    assert "keras 3.2 and newer" in page
    assert "an epoch's mean is one number for all of its steps" in page
    assert "\x1b" not in page
    many = TerminalExplain(Options(width=100)).render(read(write(CSV_LOG)))
    assert "--keras VERSION" in many


def test_the_object_has_every_series(write) -> None:
    found = read(write(CSV_LOG), {"keras": "3.8"})
    printed = json.loads(JsonExplain(Options()).render(found))
    assert printed["kind"] == "keras-csvlogger"
    loss = printed["series"][0]
    assert {k: loss[k] for k in ("name", "statistic", "per", "count", "at", "min", "max")} == {
        "name": "loss",
        "statistic": "epoch_mean",
        "per": "epoch",
        "count": 3,
        "at": [0, 2],
        "min": 0.5,
        "max": 0.75,
    }
    assert loss["convention"].startswith("keras 3.2 and newer: epoch_mean, by rows")


@pytest.mark.parametrize("width", [20, 80])
def test_a_file_with_many_series_is_cut_to_a_page(write, width: int) -> None:
    names = [f"out{place}_loss" for place in range(500)]
    content = {name: [0.5, 0.25] for name in names}
    page = TerminalExplain(Options(width=width)).render(read(write(json.dumps(content))))
    assert len(page.splitlines()) < 600
    assert "--json has them all" in page.replace("\n", " ")
