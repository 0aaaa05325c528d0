"""Run a command and keep all that a caller can see of it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

PYTHON = [sys.executable]
LOSSLEDGER = [sys.executable, "-m", "lossledger"]
RUN = [*LOSSLEDGER, "run", "-q"]
LIMIT = 300  # seconds; what takes a moment may take a minute where others use the machine, too
ADDRESS = re.compile(rb"0x[0-9a-f]{6,}")


@dataclass(frozen=True)
class Outcome:
    status: int
    stdout: bytes
    stderr: bytes


def environment(**changes: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "LOSSLEDGER"))}
    given = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": os.environ["PYTHONPATH"]}
    return {**kept, **given, **changes}


def execute(
    command: list[str],
    folder: Path,
    *,
    merged: bool = False,
    stdin: bytes = b"",
    kill: signal.Signals | None = None,
    **variables: str,
) -> Outcome:
    """`kill` is sent as soon as the process has made a file `ready` in `folder`."""
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment(**variables),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if merged else subprocess.PIPE,
    )
    if kill is not None:
        ready = folder / "ready"
        while not ready.exists() and process.poll() is None:
            time.sleep(0.01)
        ready.unlink(missing_ok=True)
        process.send_signal(kill)
    try:
        stdout, stderr = process.communicate(stdin, timeout=LIMIT)
    except BaseException:
        process.kill()
        process.communicate()
        raise
    return Outcome(
        process.returncode, ADDRESS.sub(b"0x", stdout), ADDRESS.sub(b"0x", stderr or b"")
    )


def in_turn(programs: list[Path], folder: Path, **variables: str) -> list[dict[str, str]]:
    """Run programs in one Python process; what each printed, and the traceback of its error."""
    chosen = {
        "KERAS_BACKEND": os.environ.get("KERAS_BACKEND") or "jax",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    command = [*PYTHON, str(Path(__file__).with_name("in_turn.py")), *map(str, programs)]
    done = execute(command, folder, **{**chosen, **variables})
    assert done.status == 0, done.stderr.decode()[-2000:]
    return json.loads(done.stdout)
