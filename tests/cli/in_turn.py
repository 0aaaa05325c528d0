"""Run programs in turn, each as `__main__`, all in this process: a backend is imported once.

    python in_turn.py PROGRAM ... > results.json

Prints a list of objects: `printed` and `error` (a traceback, or "").
"""

import contextlib
import io
import json
import runpy
import sys
import traceback


def run(path: str) -> dict[str, str]:
    """What a program prints, and how it failed."""
    if "keras" in sys.modules:
        sys.modules["keras"].utils.clear_session(free_memory=False)
    sys.argv, printed, error = [path], io.StringIO(), ""
    with contextlib.redirect_stdout(printed):
        try:
            runpy.run_path(path, run_name="__main__")
        except BaseException:
            error = traceback.format_exc()
    return {"printed": printed.getvalue(), "error": error}


if __name__ == "__main__":
    json.dump([run(path) for path in sys.argv[1:]], sys.stdout)
