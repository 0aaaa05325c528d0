"""Every byte of a small closed run is flipped: found, or harmless; never another number."""

import contextlib
import json
import random
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lossledger as ll
from lossledger import LossLedgerError
from lossledger.cli import main


@pytest.fixture
def recorded(tmp_path):
    with ll.record(tmp_path, name="small") as run:
        for epoch in range(2):
            run.epoch(epoch)
            for batch in range(4):
                run.step(epoch + batch / 8, rows=2 + batch)
    return run.path


WRITTEN = "call driver model began ended model_name loss_name weight_kind arguments epochs_said"
WRITTEN += " format id name created complete entries lines command script git pid versions"
WRITTEN += " warnings unseen summary"
WRITTEN = set(WRITTEN.split())


def numbers(path):
    """All that a reader is told of a run's losses."""
    run = ll.open(path)
    told = run.entries().to_pydict()
    for name in ("raw", "epoch_mean", "batch_mean"):
        told[name] = run.statistic(name).tolist()
    told["reported"] = [repr(each) for each in run.reported()]
    # A flip in the name of the checksum makes another key of it, which says nothing of the run.
    told["calls"] = [
        (call.number, call.model, call.steps, call.epochs_from, call.standing, _known(call.info))
        for call in run.calls
    ]
    return repr(told), _known(run.info)


def _known(info):
    return {key: value for key, value in info.items() if key in WRITTEN}


def test_every_flip_of_a_run_is_found_or_harmless(recorded):
    chance = random.Random(1)
    before = numbers(recorded)
    files = [path for path in sorted(recorded.rglob("*")) if path.is_file()]
    assert {path.name for path in files} == {"run.json", "calls.jsonl", "000000.parquet"}
    found = harmless = 0
    for path in files:
        data = path.read_bytes()
        for place in range(len(data)):
            damaged = bytearray(data)
            damaged[place] ^= 1 << chance.randrange(8)
            path.write_bytes(damaged)
            try:
                assert numbers(recorded) == before, (path.name, place)
                harmless += 1
            except LossLedgerError:
                found += 1
        path.write_bytes(data)
    assert numbers(recorded) == before
    assert harmless < found / 20  # the checksums' own names, and white space


def test_a_run_written_by_hand_needs_no_checksum(recorded):
    path = recorded / "run.json"
    info = json.loads(path.read_text())
    path.write_text(json.dumps({**info, "name": "other"}))
    with pytest.raises(LossLedgerError, match="checksum"):
        ll.open(recorded)
    del info["crc"]
    path.write_text(json.dumps({**info, "name": "other"}))
    assert ll.open(recorded).name == "other"


def test_a_lost_last_line_of_a_closed_run_is_an_error(recorded):
    path = recorded / "calls.jsonl"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(LossLedgerError, match="lines"):
        _ = ll.open(recorded).calls


def signed(content):
    """A record with the checksum that it should have: what only somebody who means it writes."""
    text = json.dumps({**content, "crc": "00000000"})
    return text.replace('"crc": "00000000"', f'"crc": "{zlib.crc32(text.encode()):08x}"')


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)
CALL_KEYS = "call model attempt driver reported steps_per_epoch epochs_said configuration arguments"
CALL_KEYS += " loss_name weight_kind history_is output_weights failed ended initial_weights"
CALL_KEYS += " initial_optimizers loads saved"
RUN_KEYS = "format id name created complete entries lines command versions warnings unseen"
RUN_KEYS += " resumed summary git device environment script"


def told(path):
    """Reads all that can be read; whatever the files hold, in an error of ours or not at all."""
    for read in (
        lambda: numbers(path),
        lambda: ll.reconcile(f"{path}:epoch_mean", f"{path}:batch_mean"),
    ):
        with contextlib.suppress(LossLedgerError):
            read()
    for command in (["show", path], ["show", path, "--json"], ["list", path.parent]):
        assert main([str(part) for part in command]) in (0, 1, 2)


relaxed = settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@relaxed
@given(st.dictionaries(st.sampled_from(CALL_KEYS.split()), json_values, min_size=1))
def test_any_record_of_a_call_is_read_or_refused(recorded, content):
    path = recorded / "calls.jsonl"
    data = path.read_bytes()
    path.write_bytes(data + signed(content).encode() + b"\n")
    told(recorded)
    path.write_bytes(data)


@relaxed
@given(st.dictionaries(st.sampled_from(RUN_KEYS.split()), json_values, min_size=1))
def test_any_record_of_a_run_is_read_or_refused(recorded, content):
    path = recorded / "run.json"
    data = path.read_bytes()
    path.write_text(signed({**json.loads(data), **content}))
    told(recorded)
    path.write_bytes(data)


@relaxed
@given(st.data())
def test_any_bytes_of_an_open_segment_are_read_or_refused(recorded, data):
    entries = recorded / "entries"
    (entries / "000000.parquet").unlink(missing_ok=True)
    from lossledger import store

    for path in entries.iterdir():
        path.unlink()
    writer = store.Writer(recorded)
    steps = np.arange(400)
    writer.append({"step": steps, "call": np.zeros(400, "i4"), "loss": steps.astype("f4")})
    writer.flush()
    path = entries / "000000.arrows"
    content = bytearray(path.read_bytes())
    writer.close()
    (entries / "000000.parquet").unlink()
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(content) - 1))
        # A claimed length, mostly: eight bytes of it.
        content[place : place + 8] = data.draw(
            st.sampled_from([b"\xff" * 7 + b"\x7f", b"\xff" * 8, bytes(8), b"\x00\x00\x00\x40" * 2])
            | st.binary(min_size=1, max_size=8)
        )
    path.write_bytes(content)
    told(recorded)


def test_names_of_segments_take_no_memory(recorded):
    (recorded / "entries" / "999999999.parquet").write_bytes(b"")
    with pytest.raises(LossLedgerError, match=r"000001\.parquet"):
        ll.open(recorded).losses()


def test_deep_nesting_is_refused(recorded):
    (recorded / "run.json").write_text("[" * 100_000)
    with pytest.raises(LossLedgerError, match="nested"):
        ll.open(recorded)
