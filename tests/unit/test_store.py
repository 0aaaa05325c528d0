"""What is written into a run's folder is read from it."""

import math

import numpy as np
import pytest
from blocks import block, names, scanned
from hypothesis import given, settings
from hypothesis import strategies as st

from lossledger import LossLedgerError, entry, store

FILL = {"f": math.nan, "i": 0, "u": 0, "b": True}


def any_values(name, rows):
    dtype = entry.dtype_of(name)
    if dtype.kind == "f":
        values = st.floats(width=8 * dtype.itemsize, allow_nan=True)
    elif dtype.kind == "b":
        values = st.booleans()
    else:
        bounds = np.iinfo(dtype)
        values = st.integers(int(bounds.min), int(bounds.max))
    return st.lists(values, min_size=rows, max_size=rows).map(lambda v: np.array(v, dtype))


@st.composite
def blocks_of_any_kind(draw):
    rows = draw(st.integers(0, 5))
    chosen = draw(st.sets(st.sampled_from([*entry.NAMES, "a_loss", "b_loss"])))
    return {name: draw(any_values(name, rows)) for name in sorted({"step", *chosen})}


@settings(max_examples=60)
@given(
    blocks=st.lists(blocks_of_any_kind(), max_size=8),
    flushes=st.sets(st.integers(0, 8)),
    segment_rows=st.integers(1, 12),
    sealed=st.booleans(),
)
def test_every_column_comes_back(tmp_path_factory, blocks, flushes, segment_rows, sealed):
    path = tmp_path_factory.mktemp("run")
    writer = store.Writer(path, segment_rows=segment_rows)
    for place, each in enumerate(blocks):
        writer.append(each)
        if place in flushes:
            writer.flush()
    writer.flush()
    if sealed:
        writer.close()
    rows = [len(each["step"]) for each in blocks]
    assert writer.rows == sum(rows)
    table = store.table(path)
    assert table.num_rows == sum(rows)
    found = scanned(path)
    for name in table.column_names:
        dtype = entry.dtype_of(name)
        given_to = [name in each for each, n in zip(blocks, rows, strict=True) for _ in range(n)]
        fill = FILL[dtype.kind]
        expected = np.concatenate(
            [each.get(name, np.full(n, fill, dtype)) for each, n in zip(blocks, rows, strict=True)]
            or [np.empty(0, dtype)]
        )
        assert table[name].is_valid().to_pylist() == given_to
        if sum(rows):
            assert found[name].dtype == dtype
            np.testing.assert_array_equal(found[name], expected)
    assert set(entry.NAMES) <= set(table.column_names)
    writer.close()


def test_nan_is_no_null(tmp_path):
    writer = store.Writer(tmp_path)
    writer.append({"step": np.arange(3), "loss": np.array([np.nan, np.inf, 1], "f4")})
    writer.close()
    table = store.table(tmp_path)
    assert table["loss"].null_count == 0
    assert table["penalty"].null_count == 3
    np.testing.assert_array_equal(table["loss"].to_numpy(), np.array([np.nan, np.inf, 1], "f4"))


def test_a_block_is_copied(tmp_path):
    writer = store.Writer(tmp_path)
    given_block = block(0, 3)
    writer.append(given_block)
    given_block["loss"][:] = -1
    writer.close()
    np.testing.assert_array_equal(scanned(tmp_path)["loss"], [0, 0.25, 0.5])


def test_columns_of_unequal_length_are_refused(tmp_path):
    writer = store.Writer(tmp_path)
    with pytest.raises(ValueError, match="one length"):
        writer.append({"step": np.arange(3), "loss": np.zeros(2, "f4")})
    assert writer.rows == 0
    writer.close()


def test_a_run_without_entries(tmp_path):
    assert list(store.scan(tmp_path)) == []
    assert store.table(tmp_path).num_rows == 0
    assert store.outputs(tmp_path) == ()
    writer = store.Writer(tmp_path)
    writer.append(block(0, 0))
    writer.close()
    assert names(tmp_path) == []
    assert list(store.scan(tmp_path)) == []


def test_scan_gives_blocks_of_bounded_size(tmp_path):
    writer = store.Writer(tmp_path, segment_rows=150_000)
    writer.append(block(0, 400_000))
    for start in range(400_000, 400_500, 5):
        writer.append(block(start, 5))
        writer.flush()
    sizes = [len(each["step"]) for each in store.scan(tmp_path, ["step"])]
    assert max(sizes) <= 65_536
    assert len(sizes) < 15  # a hundred small flushes are one block
    np.testing.assert_array_equal(scanned(tmp_path, ["step"])["step"], np.arange(400_500))
    writer.close()


def test_an_unknown_column_is_an_error(tmp_path):
    writer = store.Writer(tmp_path)
    writer.append(block(0, 3, a_loss=np.ones(3)))
    writer.close()
    with pytest.raises(LossLedgerError, match=r"b_loss.*a_loss") as caught:
        list(store.scan(tmp_path, ["loss", "b_loss"]))
    assert caught.value.slug == "no-column"
