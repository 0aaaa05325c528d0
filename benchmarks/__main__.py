"""Every benchmark, one after the other; each rewrites its sections of `docs/benchmarks.md`.

python benchmarks              # as the page has them: for a machine that does nothing else
QUICK=1 python benchmarks      # a few rounds of each, into build/benchmarks.md
LARGE=1 python benchmarks      # what takes hours: 10^8 entries, a million steps
"""

import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs/benchmarks.md"
COPY = HERE.parent / "build/benchmarks.md"
FULL = (
    ("recording.py", {}),
    ("peers.py", {}),
    ("loop.py", {}),
    ("page.py", {}),
    ("export.py", {}),
    ("export.py --steps 1e7", {}),
    ("scale.py", {}),
    ("peers.py reading --steps 10000000", {}),
)
"""The scripts with their arguments, each with variables of its own."""
QUICK = (
    ("recording.py --model toy --seconds 1", {}),
    ("peers.py --rounds 1 --epochs 1", {}),
    ("peers.py reading --steps 10000000 --tool 'lossledger, run.losses()'", {}),
    ("loop.py", {"ROUNDS": "1", "FIRST": "1"}),
    ("export.py", {}),
    ("export.py --steps 1e7 --to show", {}),
    ("page.py 1e4 1e5 live", {}),
    ("scale.py", {"LARGEST": "1e5"}),
    ("long.py", {"KERAS_BACKEND": "jax", "STEPS": "1e4"}),
)
LARGE = (
    ("page.py 1e8", {}),
    ("scale.py", {"SMALLEST": "1e8", "LARGEST": "1e8"}),
    ("long.py", {"KERAS_BACKEND": "jax"}),
)
CHOICES = {"QUICK": (QUICK, COPY, 30), "LARGE": (LARGE, PAGE, 120), "": (FULL, PAGE, 60)}
"""What to run by the variable that asks for it, into which page, and the minutes it takes about, on
two cores; the first time some more, to install the peers."""
NOISE = ("I0000 ", "WARNING: All log messages before absl", "WARNING:tensorflow:")
"""What TensorFlow says of itself whenever it is imported, whatever it is told."""


def main() -> None:
    """Runs them, and says what each took."""
    asked = next((name for name in CHOICES if os.environ.get(name)), "")
    runs, page, minutes = CHOICES[asked]
    if page is COPY:
        COPY.parent.mkdir(exist_ok=True)
        shutil.copy(PAGE, COPY)
    print(f"== {len(runs)} benchmarks into {page}, about {minutes} minutes", flush=True)
    failed = []
    for line, variables in runs:
        print(f"== {line}", flush=True)
        began = time.monotonic()
        if not done(shlex.split(line), {"PAGE": str(page)} | variables):
            failed.append(line)
        print(f"== {line}: {(time.monotonic() - began) / 60:.1f} minutes", flush=True)
    if failed:
        raise SystemExit(f"failed: {'; '.join(failed)}")


def done(words: list[str], variables: dict[str, str]) -> bool:
    """Runs a script with its arguments; whether it succeeded."""
    command = [sys.executable, HERE / words[0], *words[1:]]
    environment = os.environ | variables
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as child:
        for line in child.stderr or ():
            if not line.startswith(NOISE):
                print(line, end="", file=sys.stderr, flush=True)
    return child.returncode == 0


if __name__ == "__main__":
    main()
