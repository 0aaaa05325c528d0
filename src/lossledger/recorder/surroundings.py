"""What a run says of where it was recorded: versions, device, settings, script and commit."""

import hashlib
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np


def machine() -> dict[str, Any]:
    """Versions, device and settings; Keras isn't imported for it, where a loop has none."""
    if "keras" not in sys.modules:
        return {"versions": {"python": platform.python_version(), "numpy": np.__version__}}
    from lossledger.keras import describe

    return {
        "versions": describe.versions(),
        "device": describe.device(),
        "environment": describe.environment(),
    }


def script_of(path: Path | None) -> dict[str, str] | None:
    """Where the script lies, and the SHA-256 of what is in it."""
    if path is None or not path.is_file():
        return None
    return {"path": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def git_commit(script: Path | None) -> str | None:
    """The commit that is checked out where the script lies, or else here; `None` without one."""
    folder = script.parent if script is not None else Path.cwd()
    command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=2, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip() or None
