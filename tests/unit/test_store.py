import math
import multiprocessing
import subprocess
import sys
from datetime import datetime

import numpy as np
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lossledger import LossLedgerError, entry, lock, store
from lossledger.segments import sealed, segment, stream, tables

OURS = {module.__file__ for module in (store, sealed, stream, tables)}
NOW = datetime(2026, 11, 22, 18, 38, 54)


def block(start, rows, **more):
    steps = np.arange(start, start + rows)
    loss = (steps * 0.25).astype("f4")
    return {"step": steps, "call": np.zeros(rows, "i4"), "loss": loss, **more}


def scanned(path, columns=None):
    blocks = list(store.scan(path, columns))
    return {
        name: np.concatenate([b[name] for b in blocks]) for name in (blocks[0] if blocks else ())
    }


def names(path):
    return sorted(found.name for found in (path / "entries").iterdir())


# --- What is written is read.

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


# --- Segments.


def test_segments_are_sealed_at_their_size(tmp_path):
    writer = store.Writer(tmp_path, segment_rows=10)
    for start in range(0, 25, 5):
        writer.append(block(start, 5))
        writer.flush()
    assert names(tmp_path) == ["000000.parquet", "000001.parquet", "000002.arrows"]
    writer.close()
    assert names(tmp_path) == ["000000.parquet", "000001.parquet", "000002.parquet"]


def test_a_long_stream_of_small_flushes_is_sealed(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "STREAM_BYTES", 20_000)
    writer = store.Writer(tmp_path)
    for start in range(40):
        writer.append(block(start, 1))
        writer.flush()
    assert names(tmp_path)[0] == "000000.parquet"
    np.testing.assert_array_equal(scanned(tmp_path)["step"], np.arange(40))
    writer.close()


def test_a_new_output_starts_a_segment_and_old_ones_do_not(tmp_path):
    writer = store.Writer(tmp_path)
    writer.append(block(0, 2))
    writer.append(block(2, 2, a_loss=np.ones(2)))
    writer.flush()
    writer.append(block(4, 2, b_loss=np.ones(2)))
    writer.flush()
    for start in (6, 8):  # two models in turn
        writer.append(block(start, 1, a_loss=np.ones(1)))
        writer.append(block(start + 1, 1, b_loss=np.ones(1)))
        writer.flush()
    assert names(tmp_path) == ["000000.parquet", "000001.arrows"]
    assert store.outputs(tmp_path) == ("a_loss", "b_loss")
    found = scanned(tmp_path, ["step", "b_loss"])
    np.testing.assert_array_equal(found["step"], np.arange(10))
    np.testing.assert_array_equal(np.isnan(found["b_loss"]), [1, 1, 1, 1, 0, 0, 1, 0, 1, 0])
    assert store.table(tmp_path)["a_loss"].null_count == 6
    writer.close()


def test_a_new_writer_starts_a_new_segment(tmp_path):
    for start in (0, 5):
        writer = store.Writer(tmp_path)
        writer.append(block(start, 5))
        writer.flush()
        writer._stream.close()  # as a crash leaves it
        writer._lock.release()
    writer = store.Writer(tmp_path)
    writer.append(block(10, 5))
    writer.close()
    assert names(tmp_path) == ["000000.arrows", "000001.arrows", "000002.parquet"]
    np.testing.assert_array_equal(scanned(tmp_path)["step"], np.arange(15))


def test_parquet_goes_before_a_stream_that_was_left(tmp_path):
    writer = store.Writer(tmp_path)
    writer.append(block(0, 5))
    writer.flush()
    stream = (tmp_path / "entries" / "000000.arrows").read_bytes()[:-9]  # lost its end since
    writer.close()
    (tmp_path / "entries" / "000000.arrows").write_bytes(stream)
    (tmp_path / "entries" / "000001.parquet.tmp").write_bytes(b"PAR1")
    np.testing.assert_array_equal(scanned(tmp_path)["step"], np.arange(5))
    store.Writer(tmp_path).close()
    assert names(tmp_path) == ["000000.parquet"]


def test_a_segment_that_is_sealed_while_it_is_looked_for(tmp_path, monkeypatch):
    writer = store.Writer(tmp_path)
    writer.append(block(0, 5))
    writer.flush()
    original = segment.content_of

    def content_of(path, most):
        if path.suffix == ".arrows":
            writer.close()
        return original(path, most)

    monkeypatch.setattr(segment, "content_of", content_of)
    np.testing.assert_array_equal(scanned(tmp_path, ["step"])["step"], np.arange(5))
    assert names(tmp_path) == ["000000.parquet"]


def test_filters(tmp_path):
    writer = store.Writer(tmp_path, segment_rows=10)
    for start in range(0, 25, 5):
        writer.append(block(start, 5, a_loss=np.full(5, start)))
        writer.flush()
    rule = (pc.field("step") >= 8) & (pc.field("a_loss") < 20)
    found = store.table(tmp_path, columns=["loss"], filter=rule)
    assert found.column_names == ["loss"]
    np.testing.assert_array_equal(found["loss"], (np.arange(8, 20) * 0.25).astype("f4"))
    spans = store.steps_of({0: (3, 21), 7: None})
    np.testing.assert_array_equal(store.table(tmp_path, filter=spans)["step"], np.arange(3, 22))
    nothing = store.table(tmp_path, filter=pc.field("call") == 5)
    assert nothing.num_rows == 0
    assert nothing.column_names == store.table(tmp_path).column_names
    writer.close()


def test_links_are_not_written_through(tmp_path):
    (tmp_path / "entries").mkdir()
    outside = tmp_path / "outside"
    (tmp_path / "entries" / "000000.arrows").symlink_to(outside)
    writer = store.Writer(tmp_path)
    writer.append(block(0, 5))
    writer.flush()
    assert not outside.exists()
    writer.close()


# --- One writer.


def test_a_second_writer_is_refused(tmp_path):
    writer = store.Writer(tmp_path)
    with pytest.raises(LossLedgerError, match="one writer") as caught:
        store.Writer(tmp_path / ".." / tmp_path.name)
    assert caught.value.slug == "folder-in-use"
    other = (
        "import sys, pathlib; from lossledger import store; store.Writer(pathlib.Path(sys.argv[1]))"
    )
    command = [sys.executable, "-c", other, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert "one writer" in done.stderr
    writer.close()
    assert names(tmp_path) == []
    assert not (tmp_path / "writer.lock").exists()
    store.Writer(tmp_path).close()


def test_a_closed_writer(tmp_path):
    writer = store.Writer(tmp_path)
    writer.append(block(0, 5))
    writer.close()
    writer.close()
    for use in (writer.flush, lambda: writer.append(block(5, 1))):
        with pytest.raises(ValueError, match="closed"):
            use()


def _write_in_child(writer, results):
    slugs = []
    for use in (writer.flush, lambda: writer.append(block(5, 1))):
        try:
            use()
        except LossLedgerError as error:
            slugs.append(error.slug)
    writer.close()
    results.put(slugs)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*fork.*:RuntimeWarning")
def test_a_forked_child_neither_writes_nor_frees_the_folder(tmp_path):
    context = multiprocessing.get_context("fork")
    writer = store.Writer(tmp_path)
    writer.append(block(0, 5))
    results = context.SimpleQueue()
    child = context.Process(target=_write_in_child, args=(writer, results))
    child.start()
    assert results.get() == ["folder-in-use"] * 2
    child.join()
    with pytest.raises(LossLedgerError, match="one writer"):
        store.Writer(tmp_path)
    writer.close()
    np.testing.assert_array_equal(scanned(tmp_path)["step"], np.arange(5))


@pytest.mark.parametrize("after", range(1, 150))
def test_an_interrupt_neither_loses_nor_doubles(tmp_path, after):
    writer = store.Writer(tmp_path, segment_rows=20)
    left = after

    def trace(frame, event, _):
        nonlocal left
        if frame.f_code.co_filename not in OURS:
            return None
        if event == "line":
            left -= 1
            if left == 0:
                raise KeyboardInterrupt
        return trace

    writer.append(block(0, 15))
    writer.append(block(15, 15))
    before = sys.gettrace()
    try:
        sys.settrace(trace)
        writer.flush()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(before)
    writer.append(block(30, 10))
    writer.close()
    np.testing.assert_array_equal(scanned(tmp_path)["step"], np.arange(40))


READER = """
import sys
from pathlib import Path
from lossledger import store
path, most = Path(sys.argv[1]), 0
print("ready", flush=True)
while most < 3000:
    steps = [s for block in store.scan(path, ["step"]) for s in block["step"].tolist()]
    assert steps == list(range(len(steps))), steps
    assert len(steps) >= most
    most = len(steps)
print("read all")
"""


def test_another_process_reads_while_it_grows(tmp_path):
    writer = store.Writer(tmp_path, segment_rows=50)
    command = [sys.executable, "-c", READER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout.readline() == "ready\n"
        for start in range(0, 3000, 2):
            writer.append(block(start, 2))
            writer.flush()
        assert reader.communicate(timeout=60)[0] == "read all\n"
    writer.close()


def test_state_tells_growth(tmp_path):
    seen = [store.state(tmp_path)]
    writer = store.Writer(tmp_path)
    for start in (0, 5):
        writer.append(block(start, 5))
        writer.flush()
        seen.append(store.state(tmp_path))
    assert store.state(tmp_path) == seen[-1]
    writer.close()
    assert len({*seen, store.state(tmp_path)}) == 4


def test_a_file_system_without_locks_is_written_to(tmp_path, monkeypatch):
    def refuse(_):
        raise OSError("no locks here")

    monkeypatch.setattr(lock, "_lock", refuse)
    writer = store.Writer(tmp_path)
    writer.append(block(0, 5))
    writer.close()
    assert len(scanned(tmp_path)["step"]) == 5
