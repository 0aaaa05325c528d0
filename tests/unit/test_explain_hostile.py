"""Files that are none of a tool, damaged or hostile: read or refused, and never run."""

import json
import os
import pickle
import struct
from pathlib import Path

import pytest
from explained import CSV_LOG, FILES, series_of, trainer_state
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lossledger.errors import LossLedgerError
from lossledger.explain import read
from lossledger.explain.records import crc32c, masked
from lossledger.render.base import Options
from lossledger.render.explain import JsonExplain, TerminalExplain


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
        ('{"loss": 1.0}\n{"loss": 2.0\n', "file-damaged"),
        ('[{"loss": 1.0}, 3]', "file-damaged"),
        ('[{"loss": 1.0}, {"loss": "high"}]', "file-damaged"),
        ('[{"name": "a"}, {"name": "b"}]', "file-unknown"),
        ("batch,loss,val_loss\n1,0.5,0.5\n", "file-unknown"),
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


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("epoch,loss\n0,0.5\n".encode("utf-16"), "text in UTF-16"),
        ("epoch,loss,präzision\n0,0.5,1\n".encode("latin-1"), "no text in UTF-8"),
        ("epoch,loss\r0,0.5\r", r"text that begins 'epoch,loss\\r0,0.5"),
        ("\n\n", "text that begins ''"),
    ],
)
def test_what_is_wrong_with_a_text_is_said(write, content: str | bytes, told: str) -> None:
    with pytest.raises(LossLedgerError, match=told):
        read(write(content))


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
@settings(max_examples=40)
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


FUZZ = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


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
