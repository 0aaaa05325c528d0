"""The table's rows are whole, disjoint and name real statistics; the lookup finds them."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lossledger.conventions import CONVENTIONS, TOOLS, of, parse_version
from lossledger.errors import LossLedgerError
from lossledger.statistics import STATISTICS


def keys():
    return dict.fromkeys((row.tool, row.place) for row in CONVENTIONS)


@pytest.mark.parametrize(
    ("tool", "version", "place", "statistic", "weight_kind"),
    [
        ("keras", "3.0.0", "history", "epoch_mean", "one"),
        ("keras", "3.1.1", "history", "epoch_mean", "one"),
        ("keras", "3.2.0", "history", "epoch_mean", "rows"),
        ("keras", "3.15.1", "history", "epoch_mean", "rows"),
        ("keras", "3.14.1", "batch_logs", "running_mean", "rows"),
        ("keras", "3.10.0", "progress_bar", "progress_bar", "rows"),
        ("keras", "3.14.1", "progress_bar", "progress_bar", "rows"),
        ("keras", "3.15.0", "progress_bar", "running_mean", "rows"),
        ("keras", "3.1.0", "returned", "cumulative_mean", "one"),
        ("keras", "3.9.2", "returned", "cumulative_mean", "rows"),
        ("keras", "3.14.1", "returned", "cumulative_mean", "rows"),
        ("keras", "3.15.0", "returned", "raw", "rows"),
        ("keras", "3.15.1", "evaluate", "evaluate", "rows"),
        ("tf.keras", "2.1.4", "batch_logs", "raw", "rows"),
        ("tf.keras", "2.2.0", "batch_logs", "running_mean", "rows"),
        ("tf.keras", "2.15.0", "returned", "raw", "rows"),
        ("lightning", "2.4.0", "batch_logs", "raw", "rows"),
        ("lightning", "2.4.0", "history", "epoch_mean", "rows"),
        ("transformers", "4.45.2", "history", "window_mean", "one"),
        ("fastai", "2.7.12", "history", "ema", "one"),
        ("ignite", "0.5.1", "progress_bar", "ema", "one"),
        ("skorch", "1.1.0", "history", "epoch_mean", "rows"),
    ],
)
def test_known_facts(tool, version, place, statistic, weight_kind):
    row = of(tool, version, place)
    assert (row.statistic, row.weight_kind) == (statistic, weight_kind)


def test_rows_that_differ_in_more_than_the_statistic():
    assert of("keras", "3.10.0", "progress_bar").parameters == {"finalize": "counted"}
    assert of("keras", "3.11.0", "progress_bar").parameters == {"finalize": "replaced"}
    before = of("transformers", "4.45.2", "history")
    since = of("transformers", "4.46.0", "history")
    assert before.note != since.note
    assert of("fastai", "2.7", "batch_logs").parameters["debias"] is True
    assert of("ignite", "0.4", "progress_bar").parameters["debias"] is False


@pytest.mark.parametrize("row", CONVENTIONS, ids=lambda row: f"{row.tool}-{row.since}-{row.place}")
def test_every_row_is_whole_and_can_be_computed(row):
    assert row.note
    assert row.source
    assert of(row.tool, row.since, row.place) is row
    if row.statistic == "evaluate":
        assert not row.parameters
    else:
        computed = STATISTICS[row.statistic]([1.0, 2.0], [1, 1], [0, 0], **row.parameters)
        assert np.isfinite(computed).all()


@pytest.mark.parametrize("key", keys(), ids="-".join)
def test_ranges_follow_one_another_without_gap_or_overlap_to_today(key):
    rows = [row for row in CONVENTIONS if (row.tool, row.place) == key]
    for row, following in pairwise(rows):
        assert parse_version(row.since) < parse_version(row.until)
        assert row.until == following.since
    assert rows[-1].until == ("3.0" if key[0] == "tf.keras" else None)


def test_keras_is_covered_in_every_place():
    places = {"history", "batch_logs", "progress_bar", "returned", "evaluate"}
    assert {place for tool, place in keys() if tool == "keras"} == places
    assert TOOLS == ("keras", "tf.keras", "lightning", "transformers", "fastai", "ignite", "skorch")


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("3", (3, 0, 0)),
        ("3.15", (3, 15, 0)),
        ("v3.15.1", (3, 15, 1)),
        ("3.16.0.dev202608220403", (3, 16, 0)),
        ("3.15.0rc1", (3, 15, 0)),
        ("2.13.0+cpu", (2, 13, 0)),
    ],
)
def test_versions_are_read_without_their_suffix(version, expected):
    assert parse_version(version) == expected


@given(st.tuples(*[st.integers(0, 999)] * 3), st.tuples(*[st.integers(0, 999)] * 3))
def test_versions_compare_as_numbers(a, b):
    texts = [".".join(map(str, version)) for version in (a, b)]
    assert (parse_version(texts[0]) < parse_version(texts[1])) == (a < b)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("kers", "3.0", "history"), r"tool.*'kers'.*keras, tf\.keras"),
        (("keras", "3.0", "bar"), "place of keras.*'bar'.*history, batch_logs"),
        (("skorch", "1.0", "returned"), "place of skorch.*'returned'"),
        (("keras", "2.9", "history"), "version of keras.*'2.9'.*3.0 to 3.2, 3.2 to today"),
        (("keras", "latest", "history"), "version.*'latest'"),
    ],
)
def test_what_is_not_in_the_table_says_what_is(arguments, said):
    with pytest.raises(LossLedgerError, match=said) as error:
        of(*arguments)
    assert (error.value.slug, error.value.exit_code) == ("unknown-convention", 2)
