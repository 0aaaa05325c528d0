"""The live page: a real process writes, a real server serves, a real browser looks."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from made import Made

from lossledger.live.growing import Growing
from lossledger.run import Run

CHILD = Path(__file__).with_name("writing_child.py")
COMMAND = [sys.executable, "-m", "lossledger", "report", "--live"]


class Writer:
    """The process that records."""

    def __init__(self, folder):
        self.process = subprocess.Popen(
            [sys.executable, str(CHILD), str(folder)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
        )  # fmt: skip
        self.path = self.process.stdout.readline().strip()

    def write(self, text):
        self.process.stdin.write(f"{text}\n")
        self.process.stdin.flush()
        if text.isdecimal():
            assert self.process.stdout.readline() == "written\n"

    def close(self):
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def writer(tmp_path):
    made = Writer(tmp_path / "runs")
    yield made
    made.close()


@pytest.fixture
def server(tmp_path):
    """Starts `lossledger report --live`; gives the process and the page's address."""
    started = []

    def start(path):
        process = subprocess.Popen(
            [*COMMAND, path], stderr=subprocess.PIPE, text=True, cwd=tmp_path
        )
        started.append(process)
        line = process.stderr.readline()
        assert line.startswith("lossledger: live page at http://127.0.0.1:")
        return process, line.split(" at ")[1].split()[0]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def wait(page, text):
    """Waits until the caption or the state of the page has the text."""
    begin = time.monotonic()
    while time.monotonic() - begin < 30:
        if text in page.page.inner_text("#caption") + page.page.inner_text("#live"):
            return
        page.page.wait_for_timeout(20)
    raise AssertionError(f"{text!r} never came: {page.page.inner_text('#caption')}")


def test_grows_with_the_run_and_survives_its_end(opened, writer, server):
    process, address = server(writer.path)
    page = opened(url=address)
    writer.write("begin")
    writer.write("40")
    wait(page, "one entry: 40")
    assert page.page.inner_text("#live") == "live"
    writer.write("35")
    wait(page, "one entry: 75")
    page.page.locator("#loss .plot").focus()
    for steps, told in ((40, False), (1, True)):
        for _ in range(steps):
            page.page.keyboard.press("ArrowRight")
        assert f"step {39 + told}, " in page.page.inner_text("#readout")
        assert ("penalty 0.5" in page.page.inner_text("#readout")) == told
    assert page.has("--ema") > 100
    assert "75" in page.page.inner_text("#statements tbody tr")
    writer.write("end")
    wait(page, "the run has ended")
    assert page.data("ended") == "true"
    assert "complete" in page.page.inner_text("#head")
    assert page.page.locator("#statements tbody tr").count() == 1
    hosts = {url.split("/")[2] for url in page.requests if url.startswith("http")}
    assert hosts == {address.split("/")[2]}
    process.send_signal(signal.SIGINT)
    assert process.wait(5) == 0
    assert "no longer served" in process.stderr.read()


def test_survives_the_death_of_the_process(opened, writer, server):
    _, address = server(writer.path)
    page = opened(url=address)
    writer.write("begin")
    writer.write("40")
    wait(page, "one entry: 40")
    writer.process.kill()
    writer.process.wait()
    wait(page, "the run was cut short")
    assert page.data("ended") is None


def test_serves_only_who_has_the_address_and_only_reading(writer, server):
    _, address = server(writer.path)
    base = address.rsplit("/", 2)[0]
    port = base.rpartition(":")[2]

    def status(url, method="GET", **headers):
        request = urllib.request.Request(url, method=method, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code

    assert status(address) == 200
    assert status(address, Host=f"localhost:{port}") == 200
    assert status(address, Host=f"evil.example:{port}") == 421
    assert status(f"{base}/") == 404
    assert status(f"{base}/{'x' * 32}/") == 404
    assert status(f"{base}/{'x' * 32}/since?generation=1&version=0") == 404
    assert status(f"{address}../../etc/passwd") == 404
    assert status(f"{address}since") == 400
    assert status(f"{address}since?generation=1&version=0&have=nonsense") == 400
    for method in ("POST", "PUT", "DELETE"):
        assert status(address, method) == 501
    with urllib.request.urlopen(address, timeout=5) as answer:
        page = answer.read().decode()
        assert answer.headers["Cache-Control"] == "no-store"
        assert "Access-Control-Allow-Origin" not in answer.headers
    assert "connect-src 'self'" in page


def test_only_what_is_new_is_sent(tmp_path):
    run = Made(tmp_path, "growing", pid=os.getpid())
    run.call(0, driver="fit", model=0)
    run.steps(np.ones(1000), epoch=0)
    run.writer.flush()
    now = [0.0]
    growing = Growing(lambda: [Run(run.path)], 0.98, lambda: now[0])
    same = json.loads(growing.since(1, 0, {(0, 0): 1000}))
    assert not same["changed"]
    assert same["state"] == "live"
    run.steps(np.ones(10), epoch=0)
    run.writer.flush()
    new = json.loads(growing.since(1, 0, {(0, 0): 1000}))
    assert new["changed"]
    assert new["lines"][0]["curves"]["raw"]["value"]["length"] == 11
    other = json.loads(growing.since(7, 0, {(0, 0): 1000}))  # a page of an earlier server
    assert other["lines"][0]["begin"] == 0
    run.close()
    assert json.loads(growing.since(1, new["version"], {}))["ended"]


def test_trouble_in_reading_is_told_and_passes(tmp_path):
    run = Made(tmp_path, "growing", pid=os.getpid())
    growing = Growing(lambda: [Run(run.path)], 0.98, lambda: 0.0)
    whole = (run.path / "run.json").read_bytes()
    (run.path / "run.json").write_bytes(b"{")
    assert "can't be read at the moment" in json.loads(growing.since(0, 0, {}))["state"]
    (run.path / "run.json").write_bytes(whole)
    assert json.loads(growing.since(0, 0, {}))["state"] == "live"
    run.writer.close()
