"""Run folders on object stores, against a real S3-compatible server and on `file://`."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import warnings
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from made import Made
from s3 import S3

import lossledger
from lossledger import copies, objects, uploads
from lossledger.errors import LossLedgerError, LossLedgerWarning
from lossledger.live.growing import Growing
from lossledger.objects import Remote, is_uri
from lossledger.recorder import beside

LOSSLEDGER = [sys.executable, "-m", "lossledger"]
LOSSES = [4.0, 2.0, 1.0, 0.5, 0.25, 0.125]
BUCKETS = count()


@pytest.fixture(scope="module")
def server():
    store = S3()
    yield store
    store.down()


@pytest.fixture
def runs(server, tmp_path, monkeypatch):
    """The URI of a new folder of runs."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.port}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("LOSSLEDGER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LOSSLEDGER_UPLOAD_SECONDS", "0.2")
    monkeypatch.setattr(copies, "LOOK_SECONDS", 0.05)
    bucket = f"bucket-{next(BUCKETS)}"
    server.put(bucket)
    yield f"s3://{bucket}/runs"
    server.fails = lambda method, path: False
    server.requests.clear()


def steps(run, losses=LOSSES, rows=2):
    for loss in losses:
        run.step(np.float32(loss), rows=rows)


def until(true, seconds=20):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def command(*arguments, **variables):
    return subprocess.run(
        [*LOSSLEDGER, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **variables},
        timeout=60,
        check=False,
    )


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


def test_two_runs_are_reconciled(runs):
    for name, losses in (("a", LOSSES), ("b", LOSSES[:4])):
        with lossledger.record(runs, name=name) as run:
            steps(run, losses)
    found = lossledger.reconcile(f"{runs}/a:batch_mean", f"{runs}/b:last")
    assert found.a.value == pytest.approx(np.mean(LOSSES))
    assert found.b.value == LOSSES[3]
    assert lossledger.open(f"{runs}/latest~1").name == "a"
    for none in (f"{runs}/c", runs):
        with pytest.raises(LossLedgerError) as refused:
            lossledger.open(none)
        assert refused.value.slug == "no-run"
        assert f"{runs} has 20" in str(refused.value)
    with pytest.raises(LossLedgerError, match="no runs"):
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


def test_a_store_that_is_down_at_first(server, runs):
    server.down()
    try:
        with lossledger.record(runs) as run:
            steps(run)
            time.sleep(1)
            server.up()
    except BaseException:
        server.up()
        raise
    assert lossledger.open(f"{runs}/latest").losses().tolist() == LOSSES
    assert run.trouble.told == {}


def test_a_store_that_fails_now_and_then(server, runs):
    requests = count()
    server.fails = lambda method, path: next(requests) % 4 == 3
    with lossledger.record(runs) as run:
        steps(run)
    assert lossledger.open(f"{runs}/latest").losses().tolist() == LOSSES
    assert run.trouble.told == {}
    assert next(requests) > 20


def recorded_in_vain(runs):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with lossledger.record(runs) as run:
            steps(run)
            yield run
    (warning,) = [str(each.message) for each in told if each.category is LossLedgerWarning]
    assert warning.startswith("[not-uploaded] ")
    yield warning


def pushed_later(run, warning, runs):
    assert lossledger.open(run.path).losses().tolist() == LOSSES
    (said,) = re.findall(r"lossledger (push \S+ \S+)\. ", warning)
    assert command(*shlex.split(said)).returncode == 0
    assert lossledger.open(f"{runs}/latest").losses().tolist() == LOSSES


def test_a_store_that_stays_down(server, runs, monkeypatch):
    monkeypatch.setattr(beside, "UPLOAD_PATIENCE", 1.0)
    recording = recorded_in_vain(runs)
    server.fails = lambda method, path: True
    run = next(recording)
    pid = run._beside._running["upload"].process.pid
    warning = next(recording)
    os.kill(pid, signal.SIGKILL)  # it would go on for minutes
    server.fails = lambda method, path: False
    pushed_later(run, warning, runs)


def test_google_without_credentials(runs, tmp_path, monkeypatch):
    for name in ("GOOGLE_APPLICATION_CREDENTIALS", "CLOUDSDK_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GCE_METADATA_ROOT", "127.0.0.1:1")  # where nobody answers
    monkeypatch.setattr(objects, "GOOGLE_SECONDS", 1)
    with pytest.raises(LossLedgerError, match="OAuth2 access token") as raised:
        lossledger.open("gs://bucket/runs/latest")
    assert raised.value.slug == "store-unreachable"
    monkeypatch.setattr(beside, "UPLOAD_PATIENCE", 1.0)
    recording = recorded_in_vain("gs://bucket/runs")
    run = next(recording)
    pid = run._beside._running["upload"].process.pid
    next(recording)
    os.kill(pid, signal.SIGKILL)  # it would go on for minutes
    assert lossledger.open(run.path).losses().tolist() == LOSSES


def test_an_uploader_that_is_killed(server, runs):
    recording = recorded_in_vain(runs)
    run = next(recording)
    run._beside._running["upload"].process.kill()
    pushed_later(run, next(recording), runs)


def test_a_store_that_refuses_for_good_is_no_wait(runs):
    recording = recorded_in_vain(runs.replace("bucket", "nobucket"))
    next(recording)
    assert "NO_SUCH_BUCKET" in next(recording)


def test_a_training_that_is_killed(runs):
    code = f"""
import lossledger, numpy as np, os, signal, time
run = lossledger.record({runs!r}).__enter__()
for loss in {LOSSES}:
    run.step(np.float32(loss), rows=2)
time.sleep(1)  # entries are flushed twice a second
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code], check=False)

    def there():
        try:
            run = lossledger.open(f"{runs}/latest")
        except LossLedgerError:
            return False
        return run.losses().tolist() == LOSSES and not run.complete

    until(there)


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
    copies.refresh(there.path)
    assert there.losses().tolist() == [*range(20), *range(5), *range(5)]
    for number in range(2):
        name = f"entries/00000{number}.parquet"
        assert server.count("PUT", name) == server.count("GET", name) == 1
    assert not server.count("PUT", "writer.lock")
    assert not server.count("POST", "")
    assert not list(there.path.glob("entries/*.arrows"))


def test_names_lead_nowhere(server, runs, tmp_path):
    made = Made(tmp_path / "here")
    made.call(0, driver="custom", model=0)
    made.steps(LOSSES)
    made.close()
    uploads.upload(made.path, Remote(runs))
    key = f"{runs.removeprefix('s3://')}/{made.path.name}"
    bad = (
        "../../evil.parquet",
        "entries/../../evil",
        "notes.txt",
        "entries/1.parquet",
        "a/run.json",
    )
    for name in bad:
        server.put_raw(f"{key}/{name}", b"evil")
    server.put_raw(f"{runs.removeprefix('s3://')}/../latest/run.json", b"{}")
    assert lossledger.open(f"{runs}/train").losses().tolist() == LOSSES
    assert len(json.loads(command("list", runs, "--json").stdout)["runs"]) == 1
    found = {path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()}
    assert found == {"run.json", "calls.jsonl", "000000.parquet"}
    assert not list(tmp_path.rglob("evil*"))


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


def test_credentials_are_neither_shown_nor_kept(server, runs, tmp_path, monkeypatch):
    secret = runs.replace("s3://", "s3://someone:pa55word@")
    assert "pa55" not in f"{Remote(secret)} {Remote(secret).parent} {Remote(secret) / 'a'}"
    assert Remote(secret).uri == secret
    azure = "abfs://box:pa55word@account.dfs.core.windows.net/runs?sas_token=x&tls=1"
    assert str(Remote(azure)) == "abfs://box@account.dfs.core.windows.net/runs?tls=1"
    arguments = []
    popen = subprocess.Popen
    monkeypatch.setattr(
        beside.subprocess, "Popen", lambda *a, **k: arguments.append(a) or popen(*a, **k)
    )
    with lossledger.record(secret) as run:
        steps(run)
    assert "pa55" not in f"{arguments} {run.summary()}"
    assert lossledger.open(f"{secret}/latest").where.startswith(runs)
    for path in (tmp_path / "cache").rglob("*"):
        assert "pa55" not in str(path)
        assert path.is_dir() or b"pa55" not in path.read_bytes()
    for bad in ("s3://someone:pa55word@/", "ftp2://someone:pa55word@host/runs"):
        with pytest.raises(LossLedgerError) as refused:
            lossledger.open(bad)
        assert refused.value.slug == "bad-uri"
        assert "pa55" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "uri"),
    [
        ("s3://bucket/runs", True),
        ("file:///runs", True),
        ("runs", False),
        ("C:/runs", False),
        ("C://runs", False),
        (Path("s3://bucket/runs"), False),
    ],
)
def test_what_is_a_uri(text, uri):
    assert is_uri(text) is uri
