"""Batches laid side by side by their fingerprints; the first step that differs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made import Made

from lossledger.reconciliation.align import match, order, same_rows
from lossledger.reconciliation.parting import parting

A = np.array([11, 12, 13, 14, 15], "u8")


@pytest.mark.parametrize(
    ("b", "how"),
    [
        (A, "same"),
        (A[[2, 3, 4, 0, 1]], "shifted"),
        (A[[1, 0, 2, 3, 4]], "permuted"),
        (A[:3], "truncated"),
        (A[[0, 1, 3, 4]], "truncated"),
        (np.append(A, A[:2]), "repeated"),
        (A[[0, 0, 1, 2, 3, 4]], "repeated"),
        (np.array([10, 13, 13, 14, 15], "u8"), "rebatched"),
        (np.array([11, 12, 13, 14, 16], "u8"), "other"),
        (np.array([0, 12, 13, 14, 15], "u8"), "unknown"),
    ],
)
def test_orders_are_recognised(b, how):
    assert order(A, b) == how
    assert order(b, A) == how


@given(*[st.lists(st.integers(1, 6), min_size=1, max_size=30)] * 2)
def test_the_nth_time_of_a_batch_goes_with_its_nth_time(one, other):
    a, b = np.array(one, "u8"), np.array(other, "u8")
    found = match(a, b)
    pairs = set()
    for batch in set(one) & set(other):
        places = [[k for k, each in enumerate(ids) if each == batch] for ids in (one, other)]
        pairs |= set(zip(*places, strict=False))
    assert set(zip(found.a.tolist(), found.b.tolist(), strict=True)) == pairs
    assert (np.diff(found.a) > 0).all()
    assert found.only_a.tolist() == [k not in {i for i, _ in pairs} for k in range(len(a))]
    left = {k for k in range(len(b)) if k not in {j for _, j in pairs}}
    assert found.again_b.tolist() == [k in left and each in one for k, each in enumerate(other)]


def test_lanes_add_modulo_2_to_the_32():
    high, low = np.uint64(1 << 32), np.uint64(1)
    a = np.array([(2**32 - 1) * high + np.uint64(7), 3 * high + low], "u8")
    assert same_rows(a, np.array([2 * high + np.uint64(8)], "u8"))
    assert not same_rows(a, np.array([2 * high + np.uint64(9)], "u8"))


def written(tmp_path, name, loss, **columns):
    made = Made(tmp_path, name, segment_rows=64)
    made.call(0, driver="fit", model=0)
    made.steps(loss, epoch=np.arange(len(loss)) // 50, **columns)
    run = made.close()
    return run, run.calls, len(loss)


@pytest.mark.parametrize(
    ("column", "place", "what"),
    [
        ("loss", 130, "loss"),
        ("batch_id", 3, "batch"),
        ("rows", 199, "rows"),
        ("learning_rate", 64, "learning_rate"),
        ("updated", 65, "updated"),
        (None, None, None),
    ],
)
def test_the_first_step_that_differs_across_segments(tmp_path, column, place, what):
    rng = np.random.default_rng(2)
    columns = {
        "loss": rng.random(200).astype("f4"),
        "batch_id": rng.integers(1, 2**60, 200).astype("u8"),
        "rows": np.full(200, 8),
        "learning_rate": np.full(200, 0.125),
        "updated": np.ones(200, bool),
    }
    other = {name: values.copy() for name, values in columns.items()}
    if column is not None:
        other[column][place:] = ~other[column][place:] if column == "updated" else 1
    found = parting(written(tmp_path, "a", **columns), written(tmp_path, "b", **other))
    assert (None, None) if found is None else (found.step, found.what) == (place, what)


def test_rounding_is_no_difference_but_is_counted(tmp_path):
    loss = np.full(120, 0.5, "f4")
    other = np.nextafter(loss, np.float32(1))
    other[100] = 0.5001
    found = parting(written(tmp_path, "a", loss), written(tmp_path, "b", other))
    assert found is not None
    assert (found.step, found.before) == (100, 100)
