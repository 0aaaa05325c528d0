"""Segments: when one is sealed, and which there are to be read."""

import numpy as np
import pyarrow as pa
from blocks import block, names, scanned

from lossledger import store
from lossledger.segments import segment, tables
from lossledger.segments.spans import Spans


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
    found = store.table(tmp_path, columns=["loss"], spans=Spans({0: (8, 19)}))
    assert found.column_names == ["loss"]
    np.testing.assert_array_equal(found["loss"], (np.arange(8, 20) * 0.25).astype("f4"))
    spans = Spans({0: (3, 21), 7: None})
    np.testing.assert_array_equal(store.table(tmp_path, spans=spans)["step"], np.arange(3, 22))
    nothing = store.table(tmp_path, spans=Spans({5: None}))
    assert nothing.num_rows == 0
    assert nothing.column_names == store.table(tmp_path).column_names
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


def test_a_buffer_may_be_longer_than_its_values():
    """By any number of bytes, as whoever wrote the file likes; with some values null."""
    values = np.arange(5, dtype="f4")
    buffers = [pa.py_buffer(b"\x16"), pa.py_buffer(values.tobytes() + b"\x00")]
    column = pa.Array.from_buffers(pa.float32(), 4, buffers, offset=1)
    column.validate(full=True)
    block = tables.block_of(pa.table({"penalty": column}))
    np.testing.assert_array_equal(block["penalty"], [1.0, 2.0, np.nan, 4.0])
