"""Python processes that run at once, and that none of is left when the test goes on."""

import os
import subprocess
import sys
import tempfile


def run_together(*commands, timeout=900, **variables):
    """Run Python with each list of arguments; all have to succeed."""
    environment = {**os.environ, "PYTHONWARNINGS": "ignore", **variables}
    with tempfile.TemporaryFile("w+") as told:
        processes = [
            subprocess.Popen([sys.executable, *command], env=environment, stdout=told, stderr=told)
            for command in commands
        ]
        try:
            statuses = [process.wait(timeout) for process in processes]
        finally:
            for process in processes:
                process.kill()
                process.wait()
            told.seek(0)
            text = told.read()
    assert not any(statuses), text[-6000:]
