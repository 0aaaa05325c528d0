"""Torn tails and flipped bits: the complete entries, or a clear error; never a wrong number."""

import os
import random
import re
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lossledger import LossLedgerError, store
from lossledger.segments import tables


def block(start, rows):
    steps = np.arange(start, start + rows)
    loss = np.random.default_rng(start).random(rows).astype("f4")
    return {"step": steps, "loss": loss, "weight": np.full(rows, 8.0), "a_loss": loss / 2}


def scanned(folder, columns=None):
    blocks = list(store.scan(folder, columns))
    return {
        name: np.concatenate([b[name] for b in blocks]) for name in (blocks[0] if blocks else ())
    }


def found_when_flipped(path):
    """Flips one bit of each byte of a segment in turn: each is an error that names it."""
    chance = random.Random(0)
    data = path.read_bytes()
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(LossLedgerError, match=re.escape(path.name)) as caught:
            scanned(path.parent.parent)
        assert caught.value.slug == "segment-damaged", place


@pytest.fixture
def stream(tmp_path):
    """An open segment of small and of compressed batches, and the length up to each."""
    os.makedirs(tmp_path / "run")
    writer = store.Writer(tmp_path / "run")
    path = tmp_path / "run" / "entries" / "000000.arrows"
    ends, rows = {}, 0
    for count in (3, 300, 1, 5):
        writer.append(block(rows, count))
        writer.flush()
        rows += count
        ends[path.stat().st_size] = rows
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    writer.close()
    return tmp_path / "copy" / "entries" / "000000.arrows", ends


def test_every_cut_of_a_stream_gives_its_complete_batches(stream):
    path, ends = stream
    data = path.read_bytes()
    whole = scanned(path.parent.parent)
    for cut in range(len(data), -1, -1):
        os.truncate(path, cut)
        expected = max((rows for end, rows in ends.items() if end <= cut), default=0)
        found = scanned(path.parent.parent, ["step", "loss", "weight", "time"])
        assert len(found.get("step", ())) == expected
        for name, values in found.items():
            np.testing.assert_array_equal(values, whole[name][:expected])


def test_every_flipped_byte_of_a_stream_is_found(stream):
    path, _ = stream
    assert path.name == "000000.arrows"
    found_when_flipped(path)


def test_a_batch_taken_out_of_a_stream_is_found(stream):
    path, ends = stream
    data = path.read_bytes()
    _, second, third, _ = sorted(ends)
    path.write_bytes(data[:second] + data[third:])
    with pytest.raises(LossLedgerError, match="checksum"):
        scanned(path.parent.parent)


@pytest.mark.parametrize("page", [1, 2])
def test_pages_that_a_power_cut_left_zero_are_a_torn_tail(tmp_path, page):
    writer = store.Writer(tmp_path)
    path = tmp_path / "entries" / "000000.arrows"
    for start, rows in ((0, 20), (20, 200)):
        before = path.stat().st_size if path.exists() else 0
        writer.append({**block(start, rows), "reported": np.full(rows, np.pi)})
        writer.flush()
    data = path.read_bytes()
    cut = (before // 4096 + page) * 4096
    assert cut < len(data)
    path.write_bytes(data[:cut] + bytes(len(data) - cut))
    np.testing.assert_array_equal(scanned(tmp_path, ["step"])["step"], np.arange(20))


def test_a_stream_without_checksums_is_read(stream):
    path, ends = stream
    layout, batches = tables.schema(("a_loss",)), []
    with pa.ipc.open_stream(path.read_bytes()) as reader:
        batches = list(reader)
    old = layout.serialize().to_pybytes() + b"".join(
        bytes(memoryview(b.serialize())) for b in batches
    )
    path.write_bytes(old)
    assert len(scanned(path.parent.parent)["step"]) == max(ends.values())


def test_a_tail_of_zeros_is_a_torn_tail(stream):
    path, ends = stream
    path.write_bytes(path.read_bytes() + bytes(4096))
    assert len(scanned(path.parent.parent)["step"]) == max(ends.values())


def test_rubbish_inside_a_stream_is_an_error(stream):
    path, ends = stream
    data = bytearray(path.read_bytes())
    first = min(ends)
    data[first : first + 64] = b"\xaa" * 64
    path.write_bytes(data)
    with pytest.raises(LossLedgerError, match=r"000000\.arrows") as caught:
        scanned(path.parent.parent)
    assert caught.value.slug == "segment-damaged"


@pytest.fixture
def sealed(tmp_path):
    writer = store.Writer(tmp_path)
    writer.append(block(0, 20))
    writer.close()
    return tmp_path / "entries" / "000000.parquet"


def test_every_flipped_byte_of_a_sealed_segment_is_found(sealed):
    assert sealed.name == "000000.parquet"
    found_when_flipped(sealed)


@pytest.mark.parametrize("cut", [0, 3, 4, 100, -1])
def test_a_cut_sealed_segment_is_an_error(sealed, cut):
    sealed.write_bytes(sealed.read_bytes()[:cut])
    for read in (scanned, store.table, store.outputs):
        with pytest.raises(LossLedgerError, match="Restore") as caught:
            read(sealed.parent.parent)
        assert caught.value.slug == "segment-damaged"


def test_other_readers_can_verify_the_pages(sealed):
    column = pq.read_metadata(sealed).row_group(0).column(5)
    damaged = bytearray(sealed.read_bytes())
    damaged[column.data_page_offset + column.total_compressed_size - 9] ^= 4
    sealed.write_bytes(damaged)
    with pytest.raises(OSError, match="CRC"):
        pq.ParquetFile(sealed, page_checksum_verification=True).read(["loss"])


def test_other_readers_read_a_sealed_segment(sealed):
    found = pq.read_table(sealed)
    np.testing.assert_array_equal(found["loss"].to_numpy(), block(0, 20)["loss"])
    assert found["penalty"].null_count == 20


def test_other_readers_read_a_stream(stream):
    path, ends = stream
    with pa.ipc.open_stream(path.read_bytes()) as reader:
        assert reader.read_all().num_rows == max(ends.values())


def test_a_missing_segment_is_an_error(tmp_path):
    writer = store.Writer(tmp_path, segment_rows=5)
    for start in range(0, 20, 5):
        writer.append(block(start, 5))
        writer.flush()
    writer.close()
    (tmp_path / "entries" / "000001.parquet").unlink()
    with pytest.raises(LossLedgerError, match=r"000001\.parquet") as caught:
        scanned(tmp_path)
    assert caught.value.slug == "segment-damaged"
