"""Outputs, of runs written in the test: what they say is what numpy says of the same arrays."""

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rendered import LOSSES, Trained, mean_of, row, rows_of, show, write

from lossledger import run as runs
from lossledger.errors import LossLedgerError
from lossledger.folder import append_line, write_json
from lossledger.render.base import Options
from lossledger.render.json import JsonShow
from lossledger.render.show import TerminalShow
from lossledger.request import Request

# show


def test_a_row_says_what_numpy_says(tmp_path: Path) -> None:
    text = show(write(tmp_path, Trained(LOSSES)), width=200)
    header = row(text, "epoch")
    for epoch, losses in enumerate(LOSSES):
        cells = dict(zip(header, [*row(text, str(epoch))], strict=False))
        # "raw losses" is two words of the header and one of the row.
        values = row(text, str(epoch))
        named = dict(zip([n for n in header if n != "losses"], values, strict=True))
        running = np.cumsum(np.multiply(losses, rows_of(losses))) / np.cumsum(rows_of(losses))
        expected = {
            "min": min(losses),
            "max": max(losses),
            "first": losses[0],
            "last": losses[-1],
            "std": np.std(losses),
            "running_std": np.std(running),
            "batch_mean": np.mean(losses),
            "epoch_mean": mean_of(losses),
            "reported": mean_of(losses),
        }
        assert {name: float(named[name]) for name in expected} == pytest.approx(expected, abs=5e-6)
        assert (named["steps"], named["rows"]) == ("4", "14")
        assert len(cells) > 5


def test_the_reported_number_is_named_with_its_keras(tmp_path: Path) -> None:
    text = " ".join(show(write(tmp_path, Trained(LOSSES)), width=80).split())
    assert "loss in History is epoch_mean = sum(w l) / sum(w) under Keras 3.15.1: 3 numb" in text


def test_notes_count_what_equals_the_entries_and_name_the_worst_of_the_rest(tmp_path: Path) -> None:
    run = write(tmp_path, Trained(LOSSES, reports=False))
    values = [float(np.float32(mean_of(x))) for x in LOSSES]
    for epoch, value in enumerate(values):
        item = {"place": "history", "name": "loss", "epoch": epoch, "value": value}
        append_line(run.path / "calls.jsonl", {"call": 0, "reported": [item]})
    agreed = " ".join(show(runs.open(run.path)).split())
    assert "3 numbers. All equal the entries' value, rounded to float32." in agreed
    gaps = (0.0, 0.25, -0.5)
    for epoch, gap in enumerate(gaps):
        item = {"place": "history", "name": "loss", "epoch": epoch, "value": values[epoch] + gap}
        append_line(run.path / "calls.jsonl", {"call": 0, "reported": [item]})
    text = " ".join(show(runs.open(run.path)).split())
    assert "6 numbers. 2 are off by at most -0.5, in epoch 2. Differs" in text
    assert "4 equal the entries' value, rounded to float32." in text


def test_a_number_that_does_not_agree_shows_its_difference(tmp_path: Path) -> None:
    item = {"place": "history", "name": "loss", "epoch": 0, "value": 2.5}
    run = write(tmp_path, Trained(LOSSES[:1], reports=False))
    append_line(run.path / "calls.jsonl", {"call": 0, "reported": [item]})
    text = show(runs.open(run.path), width=120)
    gap = 2.5 - mean_of(LOSSES[0])
    assert float(row(text, "0")[-1]) == pytest.approx(gap, rel=1e-3)
    assert f"{gap:+.4g}" in text.split("reported  ")[-1]


@pytest.mark.parametrize("width", [30, 60, 80, 100, 120, 250])
def test_lines_fit_and_rows_stay_whole(tmp_path: Path, width: int) -> None:
    run = write(tmp_path, Trained(LOSSES, info={"arguments": {"epochs": 3, "x": "y" * 300}}))
    lines = show(run, width=width).splitlines()
    assert all(len(line) <= width for line in lines if not line.startswith("folder"))
    assert not any(line.endswith(" ") for line in lines)
    for epoch, losses in enumerate(LOSSES):
        assert f"{mean_of(losses):.5f}" in " ".join(row("\n".join(lines), str(epoch)))


def test_wider_terminals_get_more_columns(tmp_path: Path) -> None:
    run = write(tmp_path, Trained(LOSSES))
    headers = [row(show(run, width=width), "epoch") for width in (40, 60, 80, 120, 200)]
    assert [len(header) for header in headers] == sorted({len(header) for header in headers})
    assert {"steps", "min", "max", "epoch_mean", "batch_mean", "reported"} <= set(headers[2])
    assert {"std", "running_std", "difference"} <= set(headers[3])
    narrow, wide = show(run, width=80), show(run, width=200)
    assert "in a wider terminal: rows" in narrow
    assert "in a wider terminal" not in wide


def test_plain_text_has_no_escapes_and_no_drawing(tmp_path: Path) -> None:
    run = write(tmp_path, Trained(LOSSES))
    plain, colored = show(run), show(run, color=True)
    assert "\x1b" not in plain
    assert re.sub(r"\x1b\[[0-9;]*m", "", colored) == plain
    assert colored != plain
    assert show(run, blocks=False).isascii()
    assert not set(plain) & set("│─┌┐└┘├┤┃━")


def test_arguments_read_well(tmp_path: Path) -> None:
    arguments = {"x": {"shape": [200, 4], "dtype": "float32"}, "y": None, "epochs": 3}
    text = show(write(tmp_path, Trained(LOSSES, info={"arguments": arguments})))
    assert "arguments  x=float32[200,4], epochs=3\n" in text


def test_markup_in_names_is_text(tmp_path: Path) -> None:
    run = write(tmp_path, name="[red]x[/red]", command=["a b.py", "[bold]", ":smile:"])
    text = show(run)
    assert "[red]x[/red]" in text
    assert "'a b.py' '[bold]' :smile:" in text


def test_what_is_not_finite_is_said_in_words(tmp_path: Path) -> None:
    losses = ([1.0, 0.5], [math.nan, 0.5], [math.inf, -math.inf])
    text = show(write(tmp_path, Trained(losses, reports=False)), width=200)
    assert row(text, "0")[-1] == "all"
    assert row(text, "1")[-4:] == ["nan", "1", "of", "2", "finite"][-4:]
    assert "0 of 2 finite" in text
    assert "!" in row(text, "1")[3]


def test_the_first_loss_that_is_not_finite_is_named(tmp_path: Path) -> None:
    run = write(tmp_path, Trained([[1.0, 2.0], [3.0, math.inf, math.nan]], reports=False))
    assert "the first that is not finite is inf in epoch 1, at step 3 of the run" in show(run)
    assert "not finite" not in show(write(tmp_path / "other", Trained(LOSSES)))


def test_a_reported_number_whose_entries_were_cut_off_says_so(tmp_path: Path) -> None:
    run = write(tmp_path, Trained(LOSSES, reports=False))
    for epoch in (0, 2):
        item = {"place": "history", "name": "loss", "epoch": epoch, "value": 7.0}
        append_line(run.path / "calls.jsonl", {"call": 0, "reported": [item]})
    early, late = runs.open(run.path).reported()
    assert "hidden steps" in early.why
    assert "hidden steps" in late.why
    info = json.loads((run.path / "run.json").read_text())
    write_json(run.path / "run.json", {**info, "complete": False})
    early, late = runs.open(run.path).reported()
    assert "hidden steps" in early.why
    assert "may not have been written" in late.why


def test_a_run_that_grows_shows_what_was_flushed(tmp_path: Path) -> None:
    text = show(write(tmp_path, Trained(LOSSES), complete=False))
    assert "incomplete: it still runs" in " ".join(text.split())
    assert row(text, "2")[1] == "4"


def test_a_run_without_calls(tmp_path: Path) -> None:
    assert "Nothing was trained" in show(write(tmp_path))


def test_a_call_without_steps(tmp_path: Path) -> None:
    text = show(write(tmp_path, Trained([], info={"failed": "ValueError"})))
    assert "ValueError" in text
    assert "none was recorded" in text


def test_a_run_that_says_nothing_of_itself(tmp_path: Path) -> None:
    run = write(tmp_path, Trained(LOSSES, reports=False))
    (run.path / "run.json").write_text("{}")
    (run.path / "calls.jsonl").write_text("")
    assert f"{mean_of(LOSSES[0]):.5f}" in show(runs.open(run.path))


def test_warnings_and_what_was_not_seen_are_shown(tmp_path: Path) -> None:
    warnings = [{"slug": "not-tapped", "message": f"model {n}"} for n in range(12)]
    unseen = [{"what": "a loop of its own", "where": "train.py:7"}]
    text = show(write(tmp_path, warnings=warnings, unseen=unseen))
    assert "[not-tapped] model 0" in text
    assert "and 4 warnings more" in text
    assert "a loop of its own, train.py:7" in text


def test_many_epochs_are_shortened_and_counted(tmp_path: Path) -> None:
    losses = [[1 / (epoch + 1), 1.0] for epoch in range(1000)]
    text = show(write(tmp_path, Trained(losses, reports=False)))
    shown = [int(line.split()[0]) for line in text.splitlines() if re.match(r" *\d+ ", line)]
    assert shown == [*range(12), *range(988, 1000)]
    assert "976 epochs left out, 12 to 987: --epoch E shows one" in text


def test_fifty_models_are_shortened(tmp_path: Path) -> None:
    text = show(write(tmp_path, *(Trained(LOSSES, model=n) for n in range(50))))
    sections = [int(n) for n in re.findall(r"^call (\d+):", text, re.MULTILINE)]
    assert sections == [0, 1, 2, 3, 4, 5, 44, 45, 46, 47, 48, 49]
    assert text.index("call 5:") < text.index("38 calls left out here") < text.index("call 44:")
    assert len(text.splitlines()) < 200


def test_one_call_or_one_model(tmp_path: Path) -> None:
    run = write(tmp_path, *(Trained(LOSSES, model=n % 2) for n in range(4)))
    assert re.findall(r"^call (\d)", show(run, call=2), re.MULTILINE) == ["2"]
    assert re.findall(r"^call (\d)", show(run, model=1), re.MULTILINE) == ["1", "3"]
    with pytest.raises(LossLedgerError, match="no such call"):
        show(run, call=9)


@pytest.mark.parametrize("epoch", [1, -2])
def test_one_epoch_is_shown_step_by_step(tmp_path: Path, epoch: int) -> None:
    text = show(write(tmp_path, Trained(LOSSES)), epoch=epoch)
    table = text.split("step by step")[1]
    rows = rows_of(LOSSES[1])
    running = np.cumsum(np.multiply(LOSSES[1], rows)) / np.cumsum(rows)
    for batch, (loss, mean) in enumerate(zip(LOSSES[1], running, strict=True)):
        assert [float(cell) for cell in row(table, str(batch))] == pytest.approx(
            [batch, loss, mean], abs=1e-5
        )
    assert text.count("from the entries. Equal") == 1


def test_a_long_epoch_is_shortened(tmp_path: Path) -> None:
    text = show(write(tmp_path, Trained([[1.0] * 500])), epoch=0)
    assert "460 steps left out" in text
    assert row(text.split("step by step")[1], "499")


@pytest.mark.parametrize("epoch", [3, -4])
def test_an_epoch_that_is_not_there(tmp_path: Path, epoch: int) -> None:
    run = write(tmp_path, Trained(LOSSES))
    for renderer in (TerminalShow, JsonShow):
        with pytest.raises(LossLedgerError, match="3 epochs in call 0") as caught:
            renderer(Options(epoch=epoch)).render(run)
        assert caught.value.slug == "no-epoch"


def test_statistics_are_listed(tmp_path: Path) -> None:
    run = write(tmp_path, Trained(LOSSES))
    requests = [Request.parse("window_mean:n=2"), Request.parse("batch_mean")]
    text = show(run, statistics=requests)
    flat = np.concatenate(LOSSES)
    windows = text.split("window_mean:n=2: ")[1]
    assert cells(windows)[7] == ["1", "3", pytest.approx(flat[6:8].mean())]
    means = text.split("batch_mean: ")[1].split("window_mean:n=2: ")[0]
    assert float(row(means, "2")[1]) == pytest.approx(np.mean(LOSSES[2]), abs=1e-5)


def cells(text: str) -> list[list[Any]]:
    """The rows of a statistic's table: what each is of, and the number."""
    table = text.split("\n\n")[1].splitlines()[1:]
    return [[*line.split()[:-1], float(line.split()[-1])] for line in table]


@pytest.mark.parametrize(("epoch", "batches"), [(2, LOSSES[2]), (-2, LOSSES[1])])
def test_a_statistic_of_one_epoch_is_under_its_number(
    tmp_path: Path, epoch: int, batches: list[float]
) -> None:
    run = write(tmp_path, Trained(LOSSES))
    requests = [Request.parse("last"), Request.parse("raw")]
    last, raw = show(run, epoch=epoch, statistics=requests).split("last: ")[1].split("raw: ")
    number = str(epoch % 3)
    assert cells(last) == [[number, batches[-1]]]
    assert cells(raw) == [[number, str(batch), loss] for batch, loss in enumerate(batches)]


def test_a_statistic_of_several_calls_says_of_which(tmp_path: Path) -> None:
    run = write(tmp_path, Trained(LOSSES[:2]), Trained(LOSSES[2:]))
    last, raw = (
        show(run, statistics=[Request.parse("last"), Request.parse("raw")])
        .split("last: ")[1]
        .split("raw: ")
    )
    assert cells(last) == [["0", "0", 1.0], ["0", "1", 0.25], ["1", "0", 0.125]]
    assert cells(raw)[7:9] == [["0", "1", "3", 0.25], ["1", "0", "0", 1.0]]
    (only,) = cells(show(run, epoch=-1, statistics=[Request.parse("last")]).split("last: ")[1])
    assert only == ["1", "0", 0.125]


def test_an_evaluate_outside_of_fit_is_of_no_epoch(tmp_path: Path) -> None:
    inside = {"place": "evaluate", "name": "loss", "value": 0.5, "epoch": 1}
    after = {"place": "evaluate", "name": "loss", "value": 0.25, "epoch": None}
    run = write(tmp_path, Trained(LOSSES, reports=False, info={"reported": [inside, after]}))
    shown = show(run, statistics=[Request.parse("evaluate")]).split("evaluate: ")[1]
    assert cells(shown) == [["1", 0.5], [0.25]]
    assert run.statistic("evaluate", epoch=-1).tolist() == [0.25]
    assert run.statistic("evaluate", epoch=1).tolist() == [0.5]
    assert run.statistic("evaluate", epoch=-3).tolist() == []


def test_validation_data_stand_by_shape(tmp_path: Path) -> None:
    arrays = [{"shape": [100, 10], "dtype": "float32"}, {"shape": [100, 1], "dtype": "int32"}]
    run = write(tmp_path, Trained(LOSSES, info={"arguments": {"validation_data": arrays}}))
    assert "validation_data=[float32[100,10], int32[100,1]]" in " ".join(show(run).split())


def test_a_statistic_of_several_models_asks_for_one(tmp_path: Path) -> None:
    run = write(tmp_path, Trained(LOSSES), Trained(LOSSES, model=1))
    with pytest.raises(LossLedgerError) as caught:
        show(run, statistics=[Request.parse("raw")])
    assert caught.value.slug == "several-models"


def test_train_on_batch_says_how_its_epochs_are_known(tmp_path: Path) -> None:
    run = write(tmp_path, Trained(LOSSES, driver="train_on_batch", reports=False))
    assert "so all steps stand as epoch 0; --steps" in " ".join(show(run).split())
    said = show(runs.open(run.path, steps_per_epoch=6))
    assert "as said by the script" in said
    assert row(said, "1")[1] == "6"
