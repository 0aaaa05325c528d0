import sys
from pathlib import Path

import pytest

# The tests of this folder share `command.py` and `here.py`; importlib mode finds neither.
sys.path.insert(0, str(Path(__file__).parent))

from here import LOSSES, record


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pyproject.toml").write_text("")
    return tmp_path


@pytest.fixture
def recorded(folder: Path) -> Path:
    record(folder / "runs", "first", 10)
    record(folder / "runs", "second", 20, LOSSES * 2)
    return folder
