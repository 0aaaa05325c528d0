"""Object stores in trouble: what a recording, an upload and a reader make of it."""

import os
import shutil
import signal
import subprocess
import sys
import time
from itertools import count
from types import SimpleNamespace

import pytest
from s3 import Silent
from stored import LOSSES, pushed_later, recorded_in_vain, steps, until

import lossledger
from lossledger import catalog, copies, objects
from lossledger.errors import LossLedgerError
from lossledger.objects import Remote
from lossledger.recorder import beside


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
    recording = recorded_in_vain("gs://bucket/runs?retry_limit_seconds=1")
    run = next(recording)
    assert "OAuth2 access token" in next(recording)
    assert lossledger.open(run.path).losses().tolist() == LOSSES


def test_an_uploader_that_is_killed(server, runs):
    recording = recorded_in_vain(runs)
    run = next(recording)
    run._beside._running["upload"].process.kill()
    pushed_later(run, next(recording), runs)


def test_a_store_that_refuses_for_good_is_no_wait(runs):
    none = runs.replace("bucket", "nobucket")
    recording = recorded_in_vain(none)
    next(recording)
    assert "NO_SUCH_BUCKET" in next(recording)
    for read in (lossledger.open, catalog.runs_in):  # no folder of no runs
        with pytest.raises(LossLedgerError, match="bucket does not exist"):
            read(none)
    with pytest.raises(LossLedgerError, match="has no runs"):
        lossledger.open(f"{runs}/latest")


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


def test_a_server_that_dies_in_mid_upload_and_comes_back(server, runs):
    """The first segment is cut off twice, and then nobody is there for a while."""
    cuts = count()

    def fails(method, path):
        return "cut" if method == "PUT" and "/entries/" in path and next(cuts) < 2 else False

    server.fails = fails
    with lossledger.record(runs) as run:
        steps(run)
        until(lambda: next(cuts) > 2)
        server.down()
        steps(run)
        time.sleep(0.5)
        server.up()
    assert lossledger.open(f"{runs}/latest").losses().tolist() == 2 * LOSSES
    assert run.trouble.told == {}


def test_credentials_that_expire_and_are_renewed(server, runs):
    with lossledger.record(runs) as run:
        steps(run)
        until(lambda: server.count("PUT", "run.json"))
        server.fails = lambda method, path: ("400 Bad Request", "ExpiredToken")
        steps(run)
        seen = len(server.requests)
        until(lambda: len(server.requests) > seen + 1)
        server.fails = lambda method, path: False
    assert lossledger.open(f"{runs}/latest").losses().tolist() == 2 * LOSSES
    assert run.trouble.told == {}


def test_no_right_to_write_or_to_read(server, runs):
    denied = ("403 Forbidden", "AccessDenied")
    server.fails = lambda method, path: denied if method == "PUT" else False
    recording = recorded_in_vain(runs)
    run = next(recording)
    warning = next(recording)
    assert "ACCESS_DENIED" in warning
    server.fails = lambda method, path: False
    pushed_later(run, warning, runs)
    copies._copies.clear()
    shutil.rmtree(os.environ["LOSSLEDGER_CACHE"])
    server.fails = lambda method, path: denied if path.endswith(".parquet") else False
    server.requests.clear()
    with pytest.raises(LossLedgerError, match="ACCESS_DENIED") as raised:
        lossledger.open(f"{runs}/{run.path.name}")
    assert raised.value.slug == "store-unreachable"
    assert sum(path.endswith(".parquet") for _, path in server.requests) == 1


def test_a_reader_tries_five_times_or_for_ten_seconds(monkeypatch):
    """Tries that each take so long, by a clock of the test's own."""
    for each, tries in ((0.0, 5), (4.0, 3), (11.0, 1)):
        now, begun = [0.0], []

        def asked(now=now, begun=begun, each=each):
            begun.append(now[0])
            now[0] += each
            raise OSError("it is down")

        def sleep(seconds, now=now):
            now[0] += seconds

        clock = SimpleNamespace(monotonic=lambda now=now: now[0], sleep=sleep)
        monkeypatch.setattr(copies, "time", clock)
        with pytest.raises(LossLedgerError, match="it is down"):
            copies._tried(asked, Remote("s3://bucket/runs"))
        assert len(begun) == tries
        assert begun[-1] <= copies.TRY_SECONDS


def test_a_request_to_s3_is_no_thirty_requests(server, runs):
    server.fails = lambda method, path: True
    with pytest.raises(OSError, match="500"):
        Remote(runs).has("run.json")
    assert server.count("HEAD", "run.json") == 3


SHOWN = """
import sys
from lossledger import cli, objects
objects.SILENT_SECONDS = 0.3
sys.exit(cli.main(["show", sys.argv[1]]))
"""
SILENT = {
    "s3": "s3://key:secret@bucket/runs/a?endpoint_override=127.0.0.1:{}&scheme=http",
    "gs": "gs://anonymous@bucket/runs/a?endpoint_override=127.0.0.1:{}&scheme=http",
    "abfs": "abfs://account@127.0.0.1:{}/box/runs/a?credential_kind=anonymous&enable_tls=false",
}


@pytest.fixture
def silent():
    """A server that takes connections and says nothing."""
    store = Silent()
    yield store
    store.close()


@pytest.mark.parametrize("scheme", ["gs", "abfs"])
def test_a_command_ends_though_the_store_says_nothing(silent, scheme):
    """Google's client would wait for two minutes, Azure's for four."""
    command = [sys.executable, "-c", SHOWN, SILENT[scheme].format(silent.port)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("lossledger: error [store-unreachable]: ")
    assert "it has said nothing for 0.3 s" in done.stderr


def test_a_recording_ends_though_the_store_says_nothing(silent, tmp_path, monkeypatch):
    monkeypatch.setenv("LOSSLEDGER_CACHE", str(tmp_path))
    monkeypatch.setattr(beside, "UPLOAD_PATIENCE", 0.5)
    uri = SILENT["s3"].format(silent.port)
    recording = recorded_in_vain(uri)
    run = next(recording)
    pid = run._beside._running["upload"].process.pid
    warning = next(recording)
    os.kill(pid, signal.SIGKILL)  # it would go on for minutes
    assert "the object store is slow" in warning
    assert "secret" not in warning
    assert lossledger.open(run.path).losses().tolist() == LOSSES
