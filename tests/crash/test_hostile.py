"""A run that means harm: one clear error or none, in bounded memory, without a hang."""

import json
import os
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import lossledger as ll
from lossledger.segments.tables import schema

CHILD = str(Path(__file__).with_name("reading_child.py"))
FILES = ("run.json", "calls.jsonl", "entries/000000.parquet")


def pipe(path):
    path.unlink()
    os.mkfifo(path)


def folder(path):
    path.unlink()
    path.mkdir()


def gigantic(path):
    os.truncate(path, 200 << 30)


def linked(target):
    def replaced(path):
        path.unlink()
        path.symlink_to(target)

    return replaced


def nested(path):
    path.write_text("[" * 2_000_000 + "\n")


def long_number(path):
    path.write_text('{"call": 0, "entries": ' + "9" * 100_000 + "}\n")


ANY = (pipe, folder, gigantic, linked("/dev/zero"), linked("/etc/passwd"), nested, long_number)


def said(**values):
    def add(run):
        path = run / "run.json"
        info = {**json.loads(path.read_bytes()), **values}
        info.pop("crc", None)
        path.write_text(json.dumps(info))

    return add


def added(**values):
    def add(run):
        with (run / "calls.jsonl").open("a") as file:
            file.write(json.dumps({"call": 0, **values}) + "\n")

    return add


def sealed(table, **options):
    """A segment that a program of somebody's own has sealed, with the checksum that it needs."""

    def replace(run):
        sink = pa.BufferOutputStream()
        mark = f"lossledger-crc32={0:08x}"
        with pq.ParquetWriter(sink, table.schema, compression="zstd") as writer:
            writer.write_table(table, **options)
            writer.add_key_value_metadata({"lossledger": mark})
        data = bytearray(sink.getvalue())
        place = data.rfind(mark[:-8].encode()) + len(mark) - 8
        data[place : place + 8] = b"%08x" % zlib.crc32(data)
        (run / FILES[2]).write_bytes(data)

    return replace


def zeros(rows, names=()):
    layout = schema(tuple(names))
    return pa.table([pa.array(np.zeros(rows, f.type.to_pandas_dtype())) for f in layout], layout)


def two_workers(change):
    """A run of two workers of which one is changed."""

    def replace(run):
        whole = run.with_name("whole")
        run.rename(whole)
        for rank in range(2):
            shutil.copytree(whole, run / f"worker-{rank}")
            said(workers=2, format=2, worker=rank)(run / f"worker-{rank}")
        shutil.copy(run / "worker-0" / "run.json", run / "run.json")
        shutil.rmtree(whole)
        change(run)

    return replace


def of_worker(change, place=None):
    own = "worker-1" if place is None else f"worker-1/{FILES[place]}"
    return two_workers(lambda run: change(run / own))


def worker_is_a_link(run):
    shutil.rmtree(run / "worker-1")
    (run / "worker-1").symlink_to("/etc")


def a_third_worker(run):
    shutil.copytree(run / "worker-1", run / "worker-5")


def a_worker_without_a_run(run):
    (run / "worker-0").mkdir()
    shutil.copy(run / "run.json", run / "worker-0" / "run.json")


def its_own_entries(run):
    shutil.copytree(run / "worker-1" / "entries", run / "entries")


def entries_are_a_link(run):
    shutil.rmtree(run / "entries")
    (run / "entries").symlink_to("/dev")


def a_worker_is_a_pipe(run):
    said(workers=2)(run)
    (run / "worker-0").mkdir()
    os.mkfifo(run / "worker-0" / "run.json")


def the_lock_is_a_pipe(run):
    said(complete=False)(run)
    os.mkfifo(run / "writer.lock")


WHOLE = {
    "workers": said(workers=2**30),
    "workers_and_replicas": said(workers=2, format=2),
    "workers_text": said(workers="2", format=2),
    "workers_negative": said(workers=-2, format=2),
    "two_workers": two_workers(lambda run: None),
    "a_third_worker": two_workers(a_third_worker),
    "its_own_entries": two_workers(its_own_entries),
    "worker_is_a_link": two_workers(worker_is_a_link),
    "a_worker_without_a_run": a_worker_without_a_run,
    "worker_segment": of_worker(sealed(zeros(3_000_000))),
    "worker_complete": of_worker(said(complete="yes")),
    "worker_lines": of_worker(said(lines=2**30)),
    "worker_of_workers": of_worker(said(workers=2**30)),
    **{
        f"worker_{change.__name__}_{place}_{number}": of_worker(change, place)
        for place in range(3)
        for number, change in enumerate(ANY[:5])
    },
    "weights_out_of_the_folder": added(weights_file="../../../etc/passwd"),
    "epoch": added(reported=[{"place": "history", "name": "loss", "value": 1.0, "epoch": 2**31}]),
    "last_epoch": added(reported=[{"place": "x", "name": "loss", "value": 1, "epoch": 2**31 - 1}]),
    "steps_per_epoch": added(steps_per_epoch=2**31 - 1),
    "wide": added(arguments={str(n): n for n in range(20_000)}),
    "entries_are_a_link": entries_are_a_link,
    "a_worker_is_a_pipe": a_worker_is_a_pipe,
    "the_lock_is_a_pipe": the_lock_is_a_pipe,
    "more_rows_than_a_segment_has": sealed(zeros(3_000_000)),
    "a_row_group_too_long": sealed(zeros(500_000), row_group_size=500_000),
    "many_row_groups": sealed(zeros(2000), row_group_size=1),
    "many_columns": sealed(zeros(3, [f"c{n}" for n in range(2000)])),
}
REFUSED = {"more_rows_than_a_segment_has", "a_row_group_too_long", "many_row_groups", "workers"}
REFUSED |= {"workers_and_replicas", "workers_text", "workers_negative", "a_third_worker"}
REFUSED |= {"its_own_entries", "worker_segment", "worker_complete", "worker_lines"}
REFUSED |= {"worker_of_workers"}
HARMLESS = {"two_workers", "worker_is_a_link", "a_worker_without_a_run"}


def test_a_hostile_run_is_refused_or_harmless(tmp_path):
    with ll.record(tmp_path / "runs", name="good") as recording:
        for step in range(30):
            recording.step(np.float32(step), rows=2)
    made = {}
    for name, change in WHOLE.items():
        made[name] = tmp_path / name / "run"
        shutil.copytree(recording.path, made[name])
        change(made[name])
    for place, file in enumerate(FILES):
        for number, change in enumerate(ANY):
            name = f"{change.__name__}-{place}-{number}"
            made[name] = tmp_path / name / "run"
            shutil.copytree(recording.path, made[name])
            change(made[name] / file)
    done = subprocess.run(
        [sys.executable, CHILD, recording.path, *made.values()],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = dict(zip(made, json.loads(done.stdout.splitlines()[-1]), strict=True))
    for name, outcomes in found.items():
        for command, outcome in outcomes.items():
            assert isinstance(outcome, list), (name, command, outcome)
            status, errors, told = outcome
            assert (status, errors) in ((0, 0), (1, 1)), (name, command, told)
        # Nothing of another file is told, whatever a link points to.
        assert "root:" not in str(outcomes), name
    refused = {name for name, outcomes in found.items() if outcomes["open"][0]}
    assert refused >= REFUSED
    assert not refused & HARMLESS
    assert {name for name in made if name not in WHOLE} <= refused
