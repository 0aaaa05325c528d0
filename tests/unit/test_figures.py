"""Figures of a column, sketches, shortened lists, and requests."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lossledger.errors import LossLedgerError
from lossledger.render import figures, sketch
from lossledger.render.figures import Format, shorten
from lossledger.render.sketch import Sketch
from lossledger.render.terminal import Column, fitting
from lossledger.request import Request
from lossledger.words import counted

losses = st.floats(min_value=1e-30, max_value=1e30)


@given(st.lists(losses, min_size=1))
def test_numbers_of_a_column_read_back_to_three_digits(values: list[float]) -> None:
    form = Format.of(values)
    for value in values:
        assert float(form.text(value)) == pytest.approx(value, rel=6e-3)
    assert float(form.text(max(values))) == pytest.approx(max(values), rel=6e-4)


@given(st.lists(st.floats(0.1, 99.0), min_size=2))
def test_numbers_of_a_column_align(values: list[float]) -> None:
    form = Format.of(values)
    assert len({form.text(value)[::-1].index(".") for value in values}) == 1


def test_numbers_that_are_none() -> None:
    form = Format.of([None, math.nan, 0.0])
    found = [form.text(value) for value in (None, math.nan, -math.inf, 0.0)]
    assert found == ["", "nan", "-inf", "0.000000"]


def test_differences_read_well() -> None:
    values = (None, 0.0, 3.04e-8, -0.0123456, 12.0, math.nan)
    expected = ["", "0", "+3.0e-08", "-0.01235", "+12", "+nan"]
    assert [figures.difference(value) for value in values] == expected


@given(st.lists(losses, min_size=1, max_size=60), st.integers(1, 60), st.integers(1, 20))
def test_a_sketch_does_not_tell_in_which_pieces_it_was_added(
    values: list[float], cut: int, width: int
) -> None:
    whole, pieces = Sketch(len(values), width), Sketch(len(values), width)
    whole.add(np.array(values))
    for begin in range(0, len(values), cut):
        pieces.add(np.array(values[begin : begin + cut]))
    assert pieces.text() == whole.text()
    assert len(whole.text()) == min(width, len(values))


def test_a_sketch_rises_with_the_loss() -> None:
    line = Sketch(8, 12)
    line.add(np.arange(8.0))
    assert line.text() == sketch.BLOCKS
    assert line.text(blocks=False) == sketch.ASCII


@pytest.mark.parametrize("value", [1.0, math.nan, math.inf])
def test_a_sketch_of_one_value(value: float) -> None:
    sketch = Sketch(3, 12)
    sketch.add(np.full(3, value))
    assert len(set(sketch.text())) == 1


@given(st.integers(0, 200), st.integers(1, 50).map(lambda n: 2 * n))
def test_a_shortened_list_keeps_both_ends(length: int, limit: int) -> None:
    places, left_out = shorten(length, limit)
    assert len(places) + left_out == length
    assert len(places) == min(length, limit)
    assert sorted(set(places)) == list(places)
    if length:
        assert (places[0], places[-1]) == (0, length - 1)


def test_columns_of_one_rank_come_together() -> None:
    columns = [Column("aaaa", ["1"]), Column("bb", ["1"], 2), Column("cc", ["1"], 1)]
    columns.append(Column("dd", ["1"], 2))
    names = [[c.header for c in fitting(columns, width)] for width in (1, 8, 15, 16)]
    assert names == [["aaaa"], ["aaaa", "cc"], ["aaaa", "cc"], ["aaaa", "bb", "cc", "dd"]]


# requests


def test_requests_are_read_with_their_parameters() -> None:
    assert Request.parse("raw") == Request("raw", "raw", {})
    found = Request.parse("ema:beta=0.9,debias=false,n=3,x=y")
    assert found.name == "ema"
    assert found.parameters == {"beta": 0.9, "debias": False, "n": 3, "x": "y"}
    assert isinstance(found.parameters["n"], int)


@pytest.mark.parametrize("text", ["ema:0.9", "ema:=1", "ema:beta=", "ema:beta=1,"])
def test_a_request_that_is_written_otherwise(text: str) -> None:
    with pytest.raises(LossLedgerError) as caught:
        Request.parse(text)
    assert (caught.value.slug, caught.value.exit_code) == ("statistic-parameter", 2)


def test_things_are_counted_in_words() -> None:
    told = [
        counted(n, noun) for n, noun in ((1, "batch"), (2, "batch"), (9, "series"), (0, "step"))
    ]
    assert told == ["1 batch", "2 batches", "9 series", "0 epochs"]
    assert counted(1000, "loss") == "1,000 losses"
