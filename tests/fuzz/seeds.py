"""What the fuzzer begins with, and the checksums that its changes need to get past.

A reader that checks a checksum first would turn away all that a fuzzer makes. What a fuzzer tries
is what somebody could write with intent, so its bytes get the checksums that they should have.
"""

import json
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lossledger import store
from lossledger.explain.records import begins, crc32c, masked
from lossledger.segments.checked import begun

FILES = Path(__file__).parent.parent / "unit" / "files"
_KEYS = "call model attempt driver reported steps_per_epoch epochs_said configuration arguments"
_KEYS += " loss_name weight_kind history_is output_weights failed ended initial_weights place name"
_KEYS += " initial_optimizers final_optimizers iterations variables saved loads final_weights"
_KEYS += " weights_file weights validation data rows weighted batch_id batches trained batch_size"
_KEYS += " value epoch batch format id created complete entries lines command versions warnings"
_KEYS += (
    " unseen resumed summary git device environment script workers layers class units optimizer"
)
_VALUES = ("null", "true", "-1", "1e999", "2147483648", "[]", "{}", "[[]]", '\\"\\"', '\\"nan\\"')
WORDS = (*(rf"\"{key}\": " for key in _KEYS.split()), *_VALUES)
"""What JSON of a run is made of, as libFuzzer's dictionaries have it."""
_RECORD = re.compile(rb'"crc": "[0-9a-f]{8}"')
_BATCH = re.compile(rb"crc32=[0-9a-f]{8} bytes=[0-9a-f]{16} zeros=[0-9a-f]{16}")
_FILE = re.compile(rb"lossledger-crc32=[0-9a-f]{8}")


def stream(directory):
    """An open segment of plain and of compressed batches."""
    directory.mkdir()
    writer = store.Writer(directory)
    for start, rows in ((0, 3), (3, 300), (303, 2)):
        steps = np.arange(start, start + rows)
        writer.append({"step": steps, "call": steps * 0, "loss": steps / 7, "a_loss": steps / 9})
        writer.flush()
    data = (directory / "entries" / "000000.arrows").read_bytes()
    writer.close()
    return data


def sealed(path):
    """A sealed segment as it is, and without what turns away most changes of its pages."""
    table, plain = pq.read_table(path), pa.BufferOutputStream()
    layout = {"step": "DELTA_BINARY_PACKED", "loss": "BYTE_STREAM_SPLIT"}
    with pq.ParquetWriter(
        plain, table.schema, compression="none", use_dictionary=["call"], column_encoding=layout
    ) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({"lossledger": "lossledger-crc32=00000000"})
    return [path.read_bytes(), plain.getvalue().to_pybytes()]


def explained():
    """Files of other tools."""
    log = "epoch,loss,val_loss\n0,0.75,NA\n1,0.5,0.6\n"
    state = {"log_history": [{"epoch": 0.5, "loss": 1.5, "step": 10}], "global_step": 10}
    texts = [log, json.dumps({"loss": [0.75, 0.5], "val_loss": [1.0, None]}), json.dumps(state)]
    return [text.encode() for text in texts] + [
        file.read_bytes() for file in sorted(FILES.iterdir()) if file.suffix != ".md"
    ]


def json_again(data):
    """`run.json`, or the lines of `calls.jsonl`, with the checksums that they should have."""
    return b"\n".join(_record_again(line) for line in data.split(b"\n"))


def whole_json_again(data):
    """`run.json`, whose record has several lines."""
    return _record_again(data)


def _record_again(text):
    mark = None
    for mark in _RECORD.finditer(text):  # noqa: B007 - the last one
        pass
    if mark is None:
        return text
    place = mark.start() + 8
    zeroed = (text[:place] + b"0" * 8 + text[place + 8 :]).rstrip()
    return text[:place] + b"%08x" % zlib.crc32(zeroed) + text[place + 8 :]


def stream_again(data):
    """An open segment, as far as its messages can be told from one another."""
    content, source = bytearray(data), pa.BufferReader(data)
    try:
        pa.ipc.read_message(source)
        start = source.tell()
        crc = begun(content[:start])
        while True:
            pa.ipc.read_message(source)
            end = source.tell()
            mark = _BATCH.search(content, start, end)
            if mark is None:
                break
            zeros = end - start - len(content[start:end].rstrip(b"\0"))
            filled = b"crc32=00000000 bytes=%016x zeros=%016x" % (end - start, zeros)
            content[mark.start() : mark.end()] = filled
            crc = zlib.crc32(content[start:end], crc)
            content[mark.start() + 6 : mark.start() + 14] = b"%08x" % crc
            start = end
    except (EOFError, OSError, pa.ArrowException):
        pass
    return bytes(content)


def sealed_again(data):
    """A sealed segment."""
    marks = list(_FILE.finditer(data))
    if not marks:
        return data
    place = marks[-1].end() - 8
    content = bytearray(data)
    content[place : place + 8] = b"0" * 8
    content[place : place + 8] = b"%08x" % zlib.crc32(content)
    return bytes(content)


def events_again(data):
    """An event file, record by record; other files as they are."""
    if not begins(data):
        return data
    content, place = bytearray(data), 0
    while place + 12 <= len(content):
        length = min(struct.unpack_from("<Q", content, place)[0], len(content) - place - 16)
        if length < 0:
            break
        struct.pack_into("<Q", content, place, length)
        head, body = bytes(content[place : place + 8]), place + 12
        struct.pack_into("<I", content, place + 8, masked(crc32c(head)))
        value = masked(crc32c(bytes(content[body : body + length])))
        struct.pack_into("<I", content, body + length, value)
        place = body + length + 4
    return bytes(content)
