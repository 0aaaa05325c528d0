"""Run folders on object stores, against a real S3-compatible server."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from made import Made
from stored import LOSSES, LOSSLEDGER, command, steps, until

import lossledger
from lossledger import copies, uploads
from lossledger.errors import LossLedgerError
from lossledger.live.growing import Growing
from lossledger.objects import Remote

TRAIN = """\
import json, keras, numpy as np, sys
keras.utils.set_random_seed(0)
x = np.random.random((70, 3)).astype("float32")
model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
model.compile(keras.optimizers.SGD(0.1), "mse")
history = model.fit(x, x.sum(1, keepdims=True), batch_size=32, epochs=2, verbose=0).history
print(json.dumps([history["loss"], "pyarrow.fs" in sys.modules]))
"""


def test_a_program_is_recorded_and_read(runs, tmp_path, monkeypatch):
    """Its own process never opens a store."""
    monkeypatch.chdir(tmp_path)
    Path("train.py").write_text(TRAIN)
    done = command("run", "-o", runs, "--name", "base", "train.py", KERAS_BACKEND="jax")
    history, opened = json.loads(done.stdout)
    assert not opened
    assert re.search(rf"6 steps in 1 call -> {runs}/\S+-base-\w{{6}}  next: ", done.stderr)
    run = lossledger.open(f"{runs}/base")
    assert run.complete
    assert run.statistic("epoch_mean") == pytest.approx(history, rel=1e-6)
    assert lossledger.open("latest", directory=runs).id == run.id
    (listed,) = json.loads(command("list", runs, "--json").stdout)["runs"]
    assert (listed["name"], listed["steps"]) == ("base", 6)
    assert listed["path"] == run.where == f"{runs}/{run.id}"
    assert not list(Path().glob("s3*"))
    shown = json.loads(command("show", "latest", "--json", LOSSLEDGER_DIR=runs).stdout)
    assert shown["run"]["path"] == run.where
    assert run.where in run._repr_html_()


def test_two_runs_are_reconciled(runs):
    for name, losses in (("a", LOSSES), ("b", LOSSES[:4])):
        with lossledger.record(runs, name=name) as run:
            steps(run, losses)
    found = lossledger.reconcile(f"{runs}/a:batch_mean", f"{runs}/b:last")
    assert found.a.value == pytest.approx(np.mean(LOSSES))
    assert found.b.value == LOSSES[3]
    assert lossledger.open(f"{runs}/latest~1").name == "a"
    time.sleep(1.1)  # names of one second are in no order
    with lossledger.record(runs, name="a") as again:
        steps(again)
    assert lossledger.open(f"{runs}/a").id == again.path.name
    assert lossledger.open(f"{runs}/a~1").losses().tolist() == LOSSES
    for none in (f"{runs}/c", runs):
        with pytest.raises(LossLedgerError) as refused:
            lossledger.open(none)
        assert refused.value.slug == "no-run"
        assert f"{runs} has 20" in str(refused.value)
    with pytest.raises(LossLedgerError, match="bucket does not exist"):
        lossledger.open("s3://not-there")


def test_a_run_is_read_while_it_grows(runs, tmp_path):
    with lossledger.record(runs, name="grows") as run:
        steps(run, [8.0])
        until(lambda: run.path is not None)
        uri = f"{runs}/{run.path.name}"
        until(lambda: copies.is_run(Remote(uri)))
        reader = subprocess.Popen(
            [*LOSSLEDGER, "show", uri, "--follow"], stdout=subprocess.PIPE, text=True
        )
        there = lossledger.open(uri)
        exported = tmp_path / "exported"
        follower = subprocess.Popen(
            [*LOSSLEDGER, "export", uri, "--to", "csv", "-o", exported, "--follow"],
            stdout=subprocess.DEVNULL,
        )
        growing = Growing(lambda: [lossledger.open(there.path)], 0.9)
        assert json.loads(growing.since(0, 0, {}))["state"] == "live"
        steps(run)

        def grown():
            copies.refresh(there.path)
            return there.losses().tolist() == [8.0, *LOSSES]

        until(grown)
        assert not there.complete
        assert copies.of(there.path).is_written
    assert "7 steps" in reader.communicate(timeout=30)[0]
    assert lossledger.open(uri).complete
    assert follower.wait(30) == 0
    (table,) = exported.glob("*/steps.csv")
    assert table.read_text().count("\n") == 8
    answer = json.loads(growing.since(0, 0, {}))
    assert answer["ended"]


def test_a_run_is_resumed_where_it_was_recorded(runs):
    with lossledger.record(runs, name="twice") as run:
        steps(run, [8.0])
    with pytest.raises(LossLedgerError) as refused:
        lossledger.record(f"{runs}-2", resume="twice")
    assert refused.value.slug == "no-run"
    for resume in ("latest", f"{runs}/{run.path.name}"):
        with lossledger.record(runs, resume=resume) as run:
            steps(run)
    there = lossledger.open(f"{runs}/twice")
    assert len(there.info["resumed"]) == 2
    assert there.entries(["loss"])["loss"].to_pylist() == [8.0, *LOSSES, *LOSSES]


def test_segments_are_sent_and_fetched_once(server, runs, tmp_path, monkeypatch):
    """Also by an upload and a reader that begin anew."""
    monkeypatch.setattr(copies, "LOOK_SECONDS", 0)
    made = Made(tmp_path, segment_rows=10)
    made.call(0, driver="custom", model=0)
    made.steps(np.arange(20))
    made.writer.flush()
    for _ in range(2):
        uploads.upload(made.path, Remote(runs))
        copies._copies.clear()
        there = lossledger.open(f"{runs}/train")
        made.steps(np.arange(5))
        made.writer.flush()
    made.close()
    uploads.upload(made.path, Remote(runs))
    assert uploads.upload(made.path, Remote(runs)).files == 0
    copies.refresh(there.path)
    assert there.losses().tolist() == [*range(20), *range(5), *range(5)]
    for number in range(2):
        name = f"entries/00000{number}.parquet"
        assert server.count("PUT", name) == server.count("GET", name) == 1
    assert not server.count("PUT", "writer.lock")
    assert not server.count("POST", "")
    assert not list(there.path.glob("entries/*.arrows"))


WORKER = """
import lossledger, numpy as np, sys
rank, losses = int(sys.argv[2]), {0: [1.0, 2.0, 3.0], 1: [5.0, 8.0]}
with lossledger.record(sys.argv[1], name="team") as run:
    for loss in losses[rank]:
        run.step(np.float32(loss), rows=3 - rank)
"""


def test_workers_on_machines_of_their_own(runs, tmp_path):
    """Ranks weigh 3 and 2 rows; the second dies a step early."""
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, runs, str(rank)],
            env={
                **os.environ,
                "LOSSLEDGER_CACHE": str(tmp_path / f"machine-{rank}"),
                "LOSSLEDGER_RUN": "team",
                "LOSSLEDGER_WORKER": f"{rank}/2",
            },
        )
        for rank in range(2)
    ]
    assert [worker.wait(60) for worker in workers] == [0, 0]
    run = lossledger.open(f"{runs}/team")
    expected = [(3 * 1 + 2 * 5) / 5, (3 * 2 + 2 * 8) / 5, 3.0]
    assert run.losses().tolist() == pytest.approx(expected)
    assert [(each.worker, each.steps) for each in run.missing] == [(1, 1)]
    assert lossledger.open(f"{runs}/team/worker-1").losses().tolist() == [5.0, 8.0]
    (listed,) = json.loads(command("list", runs, "--json").stdout)["runs"]
    assert (listed["name"], listed["steps"], listed["complete"]) == ("team", 3, True)


def test_a_run_is_deleted_here_only_when_asked_and_whole(runs, tmp_path):
    made = Made(tmp_path / "here")
    made.call(0, driver="custom", model=0)
    made.steps(LOSSES)
    made.writer.flush()
    done = command("push", str(made.path), runs, "--delete", "--json")
    assert json.loads(done.stdout)["deleted"] is False
    made.close()
    assert command("push", str(made.path), runs).returncode == 0
    assert made.path.is_dir()
    done = command("push", str(made.path), runs, "--delete")
    assert "deleted here" in done.stdout
    assert not made.path.exists()
    assert lossledger.open(f"{runs}/train").losses().tolist() == LOSSES


def test_another_run_of_that_name_is_left_alone(runs, tmp_path):
    for place in "ab":
        made = Made(tmp_path / place, pid=ord(place))
        made.steps(LOSSES)
        made.close()
        done = command("push", str(made.path), runs)
    assert "error [upload-differs]" in done.stderr
    assert command("push", runs, runs).returncode == 1
