"""Fuzzes all readers of files, each in a process of its own: `python tests/fuzz`, `make fuzz`.

SECONDS (default 60) is the time for all; TARGETS chooses among them. What is found lies in
`build/fuzz`, beside the corpora, with which the next run goes on.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

TARGETS = ("run", "shared", "calls", "resumed", "replicas", "stream", "sealed", "weights")
TARGETS = (*TARGETS, "explain")


def main():
    chosen = os.environ.get("TARGETS", " ".join(TARGETS)).split()
    each = max(int(os.environ.get("SECONDS", "60")) // len(chosen), 1)
    found = 0
    for name in chosen:
        command = [sys.executable, Path(__file__).with_name("readers.py"), name]
        command.append(f"-max_total_time={each}")
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        told = dict(re.findall(r"stat::(\w+):\s+(\d+)", done.stderr))
        executions, megabytes = told.get("number_of_executed_units"), told.get("peak_rss_mb")
        print(f"{name:8} {executions} executions, at most {megabytes} MB", flush=True)
        if done.returncode:
            found += 1
            print(done.stderr[-6000:])
    print(f"{found} of {len(chosen)} targets found something" if found else "nothing found")
    return min(found, 1)


if __name__ == "__main__":
    sys.exit(main())
