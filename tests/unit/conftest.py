import sys
from itertools import count
from pathlib import Path

import pytest

# The tests of this folder share `made.py`; importlib mode puts no folder on the path.
sys.path.insert(0, str(Path(__file__).parent))

BUCKETS = count()


@pytest.fixture
def write(tmp_path: Path):
    """Writes a file into the test's folder."""

    def write(content: str | bytes, name: str = "file.bin") -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


@pytest.fixture(scope="session")
def server():
    """An S3-compatible server; imported here, since it brings much."""
    from s3 import S3

    store = S3()
    yield store
    store.down()


@pytest.fixture
def runs(server, tmp_path, monkeypatch):
    """The URI of a new folder of runs."""
    from lossledger import copies

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
