"""Lists of runs, and runs as JSON."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from rendered import LOSSES, VERSIONS, Trained, mean_of, row, write
from rich.cells import cell_len
from rich.text import Text

from lossledger.render.base import Listed, Listing, Options
from lossledger.render.json import JsonShow
from lossledger.render.listing import JsonList, TerminalList
from lossledger.request import Request


def test_the_json_object_has_the_documented_keys(tmp_path: Path) -> None:
    run = write(tmp_path, Trained(LOSSES, info={"arguments": {"epochs": 3}}))
    found = json.loads(JsonShow(Options(statistics=[Request.parse("last")])).render(run))
    assert list(found) == ["run", "calls", "statistics"]
    assert found["run"] == {
        "id": "2026-11-22_18-38-54-train",
        "name": "train",
        "path": str(run.path),
        "versions": VERSIONS,
        "complete": True,
    }
    (call,) = found["calls"]
    assert list(call)[:5] == ["driver", "model", "weight_kind", "arguments", "epochs"]
    assert (call["call"], call["steps"], call["epochs_from"]) == (0, 12, "driver")
    assert [each["agreement"] for each in call["reported"]] == ["equal"] * 3
    assert call["arguments"] == {"epochs": 3}
    names = "epoch steps rows epoch_mean batch_mean first last min max std running_std nonfinite"
    assert sorted(call["epochs"][0]) == sorted([*names.split(), "reported"])
    assert [epoch["epoch_mean"] for epoch in call["epochs"]] == [mean_of(x) for x in LOSSES]
    assert [epoch["reported"] for epoch in call["epochs"]] == pytest.approx(
        [mean_of(x) for x in LOSSES], rel=1e-7
    )
    assert found["statistics"] == {"last": [x[-1] for x in LOSSES]}


def test_json_writes_non_finite_numbers_as_text(tmp_path: Path) -> None:
    run = write(tmp_path, Trained([[math.nan, 1.0], [math.inf, 1.0]], reports=False))
    text = JsonShow(Options(statistics=[Request.parse("raw")])).render(run)
    found = json.loads(text, parse_constant=pytest.fail)
    assert [epoch["epoch_mean"] for epoch in found["calls"][0]["epochs"]] == ["nan", "inf"]
    assert found["calls"][0]["epochs"][0]["reported"] is None
    assert found["statistics"]["raw"] == ["nan", 1.0, "inf", 1.0]


def test_json_of_one_epoch_of_one_call(tmp_path: Path) -> None:
    run = write(tmp_path, Trained(LOSSES), Trained(LOSSES))
    options = Options(call=1, epoch=-1, statistics=[Request.parse("raw")])
    found = json.loads(JsonShow(options).render(run))
    assert [[e["epoch"] for e in call["epochs"]] for call in found["calls"]] == [[2]]
    assert found["statistics"]["raw"] == LOSSES[2]


def test_json_of_a_run_without_calls(tmp_path: Path) -> None:
    assert json.loads(JsonShow(Options()).render(write(tmp_path)))["calls"] == []


# list


def listing(*runs_: Listed, older: int = 0) -> Listing:
    return Listing("runs", runs_, older)


def listed(name: str = "train", **values: Any) -> Listed:
    id = f"2026-11-22_18-38-54-{name}"
    known = {"created": "2026-11-22T18:38:54+00:00", "complete": True, **values}
    return Listed(id, name, f"runs/{id}", **known)


def test_a_list_has_a_line_a_run() -> None:
    text = TerminalList(Options()).render(
        listing(
            listed(calls=2, steps=1200, epoch_mean=0.6931471),
            listed("big", calls=1, steps=3, epoch_mean=1234.5, complete=False),
        )
    )
    first = ["train", "2026-11-22", "18:38:54", "2", "1,200", "0.693147", "complete"]
    assert row(text, "train") == first
    assert row(text, "big")[-2:] == ["1234.50", "incomplete"]


def test_a_list_keeps_a_run_that_cannot_be_read() -> None:
    text = TerminalList(Options(width=200)).render(listing(listed(problem="no JSON object")))
    assert "unreadable" in text
    assert "no JSON object" in text


def test_a_list_says_how_many_are_left_out_and_when_there_are_none() -> None:
    assert "7 older runs left out" in TerminalList(Options()).render(listing(listed(), older=7))
    assert "no runs" in TerminalList(Options()).render(listing())


@pytest.mark.parametrize(
    "name",
    ["a-name-of-many-words-" * 4, "\N{CJK UNIFIED IDEOGRAPH-5B57}" * 45],
    ids=["narrow", "wide"],
)
@pytest.mark.parametrize("color", [False, True])
def test_a_long_name_is_cut_to_the_line(name: str, color: bool) -> None:
    runs_ = listing(listed(name, epoch_mean=0.5), listed("short", complete=False, epoch_mean=2.5))
    for width, columns in ((40, 2), (80, 6), (100, 6)):
        text = TerminalList(Options(width=width, color=color)).render(runs_)
        header, long, short = (Text.from_ansi(line).plain for line in text.splitlines())
        assert len(header.split()) == columns
        assert max(cell_len(line) for line in (header, long, short)) <= width
        assert ".. " in long
        assert long.endswith("complete") is (columns == 6)
        ends = [line.index(number) for line, number in ((long, "0.500000"), (short, " 2.50000"))]
        assert cell_len(long[: ends[0]]) == cell_len(short[: ends[1]])
    assert ("\x1b[" in text) is color


def test_a_huge_list_renders() -> None:
    text = TerminalList(Options()).render(listing(*(listed(f"n{n}") for n in range(5000))))
    assert len(text.splitlines()) == 5001


def test_a_list_as_json() -> None:
    found = json.loads(JsonList(Options()).render(listing(listed(epoch_mean=math.nan), older=1)))
    assert found["directory"] == "runs"
    assert found["older"] == 1
    assert found["runs"][0]["path"] == "runs/2026-11-22_18-38-54-train"
    assert found["runs"][0]["epoch_mean"] == "nan"
