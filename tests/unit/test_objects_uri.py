"""URIs of folders of runs: their secrets, what leads out of them, and what is none."""

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from made import Made
from pyarrow.fs import AzureFileSystem, FileSystem
from stored import LOSSES, command, steps

import lossledger
from lossledger import uploads
from lossledger.errors import LossLedgerError
from lossledger.objects import Remote, is_uri
from lossledger.recorder import beside
from lossledger.words import command_line


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


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("s3://bucket/runs?region=eu-west-1/latest", "s3://bucket/runs/latest?region=eu-west-1"),
        ("s3://k:pa55@bucket/runs?scheme=http&region=eu/latest~2", "s3://bucket/runs/latest~2?"),
        ("gs://b/runs?scheme=http/2026-11-22_18-38-54-a", "gs://b/runs/2026-11-22_18-38-54-a?"),
        ("s3://bucket/runs?tls_ca_file_path=/etc/latest.pem", None),
        ("s3://bucket/runs/latest?region=eu-west-1", None),
    ],
)
def test_a_name_behind_the_options_is_told(text, meant):
    if meant is None:
        assert str(Remote(text)) == text
        return
    with pytest.raises(LossLedgerError) as refused:
        Remote(text)
    assert refused.value.slug == "bad-uri"
    assert f"stands before the ?: {meant}" in str(refused.value)
    assert "pa55" not in str(refused.value)


def test_what_is_named_as_an_example_is_a_folder_of_that_store():
    """By pyarrow, which opens no connection for it."""
    with pytest.raises(LossLedgerError) as refused:
        Remote("runs")
    examples = re.findall(r"\b(\w+://\S+?),? ", str(refused.value))
    assert [uri.partition(":")[0] for uri in examples] == ["s3", "gs", "abfs", "file"]
    azure, folder = FileSystem.from_uri(examples[2])
    assert folder == "container/runs"
    assert azure == AzureFileSystem("account")


def test_a_command_that_is_named_can_be_typed(tmp_path):
    """In a shell `&` ends a command, and a space a word."""
    uri = "s3://bucket/runs?region=eu&scheme=http"
    assert shlex.split(command_line("push", tmp_path / "a run", uri)) == [
        "lossledger",
        "push",
        str(tmp_path / "a run"),
        uri,
    ]
    with lossledger.record(tmp_path / "my runs") as run:
        steps(run)
    shown = run.summary().rpartition("next: ")[2]
    assert shlex.split(shown)[2] == str(run.path)
