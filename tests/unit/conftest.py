import sys
from pathlib import Path

import pytest

# The tests of this folder share `made.py`; importlib mode puts no folder on the path.
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def write(tmp_path: Path):
    """Writes a file into the test's folder."""

    def write(content: str | bytes, name: str = "file.bin") -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write
