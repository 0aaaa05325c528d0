"""Files of other tools: what each series is, what follows from it, and files that are none."""

import json
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lossledger.errors import LossLedgerError
from lossledger.explain import Explained, Series, read
from lossledger.explain.deaverage import losses_of
from lossledger.explain.records import crc32c, masked
from lossledger.render.base import Options
from lossledger.render.explain import JsonExplain, TerminalExplain

FILES = Path(__file__).with_name("files")
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
CSV_LOG = "epoch,loss,mae,val_loss,val_mae\n0,0.75,0.5,NA,NA\n1,0.5,0.25,NA,NA\n2,nan,inf,NA,NA\n"


def series_of(explained: Explained, name: str) -> Series:
    return next(each for each in explained.series if each.name == name)


def statistics(explained: Explained) -> dict[str, str | None]:
    return {each.name: each.statistic for each in explained.series}


@pytest.fixture
def write(tmp_path: Path):
    def write(content: str | bytes, name: str = "file.bin") -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


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
    ],
    ids=["dump", "pandas", "vars"],
)
def test_a_history_as_json(write, content: dict) -> None:
    found = read(write(json.dumps(content)))
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
    assert any("1.5 k ulp(m)" in text and "k = 5" in text for text in batch.recoverable)


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
@settings(max_examples=60, deadline=None)
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


def trainer_state(losses: list[float], stride: int, resumed: int = 0) -> dict:
    """As Trainer writes it: `train_loss` is over all steps, its losses since the resume."""
    steps = stride * np.arange(1, len(losses) + 1)
    log = [{"loss": x, "step": int(s), "epoch": 0.1} for x, s in zip(losses, steps, strict=True)]
    log.append({"eval_loss": 0.5, "step": int(steps[-1]), "epoch": 1.0})
    train = sum(losses[resumed:]) * stride / steps[-1]
    log.append({"train_loss": float(train), "step": int(steps[-1]), "epoch": 1.0})
    about = {"best_model_checkpoint": "x" * 5000, "global_step": int(steps[-1])}
    return {**about, "log_history": log}


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


def test_windows_of_unequal_length_are_weighted_by_their_steps(write) -> None:
    log = [{"loss": 4.0, "step": 1}, {"loss": 2.0, "step": 10}, {"loss": 1.0, "step": 20}]
    found = read(write(json.dumps(log)))
    mean = (4.0 + 9 * 2.0 + 10 * 1.0) / 20
    assert any(f"{mean:.7g}" in text for text in series_of(found, "loss").recoverable)
    assert any("not all windows are of 9" in note for note in found.notes)


# Files that are none, or damaged


class Bomb:
    def __reduce__(self):
        return os._exit, (7,)


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_is_refused_and_never_opened(write, protocol: int) -> None:
    for content in ({"loss": [1.0]}, Bomb()):
        with pytest.raises(LossLedgerError) as error:
            read(write(pickle.dumps(content, protocol)))
        assert error.value.slug == ("file-pickled" if protocol > 1 else error.value.slug)
    with pytest.raises(LossLedgerError, match=r"json\.dump"):
        read(write(pickle.dumps({"loss": [1.0]}, 4)))


@pytest.mark.parametrize(
    ("content", "slug"),
    [
        ("", "file-unknown"),
        ("hello\nworld\n", "file-unknown"),
        ("a,b\n1,2\n", "file-unknown"),
        ("[1, 2, 3]", "file-unknown"),
        ('{"model": {"layers": []}}', "file-unknown"),
        ('{"loss": 3}', "file-damaged"),
        ('{"loss": ["a"]}', "file-damaged"),
        ('{"loss": [1.0', "file-damaged"),
        ('{"loss": [' + "9" * 5000 + "]}", "file-damaged"),
        ('{"loss": ' + "[" * 100_000, "file-damaged"),
        ('{"log_history": 3}', "file-damaged"),
        ('{"log_history": [{"loss": 3}]}', "file-damaged"),
        ('{"log_history": []}', "file-unknown"),
        ("epoch,loss\n0,1.0,2.0\n", "file-damaged"),
        ("epoch,loss\nzero,1.0\n", "file-damaged"),
        ("epoch,loss\n0,1.0\n1\n2,1.0\n", "file-damaged"),
        ('epoch,loss\n0,"' + "1" * 200_000 + '"\n', "file-damaged"),
        (b"epoch,loss\n0,1.0\n" + b"1,1.0\n" * 1000 + b"\xff\xfe\n", "file-damaged"),
        (b"\x89HDF\r\n\x1a\n", "file-unknown"),
        (b"PK\x03\x04" + b"\0" * 20, "file-unknown"),
        (bytes(range(256)) * 4, "file-unknown"),
    ],
)
def test_other_files_are_one_clear_error(write, content: str | bytes, slug: str) -> None:
    with pytest.raises(LossLedgerError, match="Received: ") as error:
        read(write(content))
    assert error.value.slug == slug


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "run.json").write_text("{}")
    for path in (tmp_path / "absent", tmp_path / "pipe", Path("/dev/zero"), Path("a\0b")):
        with pytest.raises(LossLedgerError) as error:
            read(path)
        assert error.value.slug == "no-file"
    with pytest.raises(LossLedgerError, match="lossledger show"):
        read(tmp_path)


def test_a_large_file_is_refused_before_it_is_read(write) -> None:
    path = write('{"loss": [' + "1.0, " * 1000 + "1.0]}")
    os.truncate(path, 2**36)  # sparse: takes no space
    with pytest.raises(LossLedgerError) as error:
        read(path)
    assert error.value.slug == "file-too-large"


# Records


@pytest.mark.parametrize(
    ("data", "crc"),
    [
        # RFC 3720, B.4.
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (b"123456789", 0xE3069283),
    ],
)
def test_the_checksum_is_crc_32c(data: bytes, crc: int) -> None:
    assert crc32c(data) == crc


@given(st.binary(max_size=6000))
@settings(max_examples=40, deadline=None)
def test_the_checksum_of_long_data_is_that_of_its_bits(data: bytes) -> None:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    assert crc32c(data) == crc ^ 0xFFFFFFFF


def record(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    crcs = (struct.pack("<I", masked(crc32c(each))) for each in (length, data))
    return length + next(crcs) + data + next(crcs)


def test_a_file_that_still_grows_ends_at_its_last_whole_record(write) -> None:
    content = (FILES / "keras_train.events").read_bytes()
    found = read(write(content[:-5]))
    assert any("cut off" in note for note in found.notes)
    assert len(series_of(found, "batch_loss").values) == 15


def test_a_flipped_bit_is_found(write) -> None:
    content = bytearray((FILES / "keras_train.events").read_bytes())
    content[len(content) // 2] ^= 1
    with pytest.raises(LossLedgerError, match="checksum") as error:
        read(write(bytes(content)))
    assert error.value.slug == "file-damaged"


def test_a_huge_length_is_refused_before_it_is_allocated(write) -> None:
    first = (FILES / "keras_train.events").read_bytes()[:40]
    length = struct.pack("<Q", 2**40)
    huge = length + struct.pack("<I", masked(crc32c(length)))
    with pytest.raises(LossLedgerError):
        read(write(first[: 12 + first[0] + 4] + huge + b"x" * 100))


EVENTS = (FILES / "keras_train.events").read_bytes()
SEEDS = [
    EVENTS,
    (FILES / "lightning.csv").read_bytes(),
    CSV_LOG.encode(),
    b'{"loss": [0.5, 0.25], "val_loss": [1.0, 2.0]}',
    json.dumps(trainer_state([2.0, 1.0], 10)).encode(),
]


def answers(path: Path) -> None:
    """It is read, or it is one error of ours."""
    try:
        found = read(path)
    except LossLedgerError as error:
        slug = error.slug
        assert slug in ("file-unknown", "file-damaged", "file-too-large", "file-pickled")
    else:
        assert TerminalExplain(Options()).render(found)
        json.loads(JsonExplain(Options()).render(found))


FUZZ = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@given(st.data())
@FUZZ
def test_mutated_files_are_read_or_refused(write, data: st.DataObject) -> None:
    content = bytearray(data.draw(st.sampled_from(SEEDS)))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        other = data.draw(st.binary(max_size=6))
        content[place : place + data.draw(st.integers(0, 6))] = other
        content = content or bytearray(b" ")
    answers(write(bytes(content)))


@given(st.binary(max_size=300))
@FUZZ
def test_events_of_any_bytes_are_read_or_refused(write, data: bytes) -> None:
    first = record(b"\x09" + b"\0" * 8 + b"\x1a\x0dbrain.Event:2")
    summary = b"\x2a" + bytes([len(data) & 0x7F]) + data[: len(data) & 0x7F]
    answers(write(first + record(data) + record(summary)))


NUMBER = st.one_of(st.floats(), st.integers(), st.none(), st.text(max_size=3), st.booleans())
TREE = st.recursive(NUMBER, lambda x: st.lists(x) | st.dictionaries(st.text(max_size=5), x))


@given(st.dictionaries(st.sampled_from(["loss", "val_loss", "log_history", "history", "a"]), TREE))
@FUZZ
def test_json_of_any_shape_is_read_or_refused(write, content: dict) -> None:
    answers(write(json.dumps(content)))


@pytest.mark.parametrize("last", [3.4028235677973366e38, 1.7976931348142178e302, 1.79e308])
def test_the_largest_numbers_are_read(write, last: float) -> None:
    answers(write(json.dumps({"loss": [0.0, last, last, 0.015625]})))


@given(st.lists(st.lists(NUMBER.map(str), min_size=1, max_size=4), max_size=6))
@FUZZ
def test_tables_of_any_cells_are_read_or_refused(write, rows: list[list[str]]) -> None:
    for header in ("epoch,loss,val_loss", "epoch,step,loss_step"):
        answers(write("\n".join([header, *map(",".join, rows)])))


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
