"""How the readers grow with a run: time and memory from 10^5 entries to 10^8.

Runs are written with the store, as the recorder writes them; each command is then a process of its
own, whose peak of resident memory is what Linux says of it. Beside the seconds stand those of the
processor, which other programs at work hardly change. SMALLEST and LARGEST (default 10^5 and 10^7)
say how far to go, DRIVERS which runs, COMMANDS which of them, with commas; the folder is deleted
afterwards. Rewrites a section a driver of `docs/benchmarks.md`, and that of `list`; 10^8 entries
alone have a section of their own.

    SMALLEST=1e8 LARGEST=1e8 DRIVERS=fit .venv/bin/python benchmarks/scale.py
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

import numpy as np
import section

from lossledger import store
from lossledger.folder import append_line, create_folder, write_json

PER_EPOCH = 100_000
LARGE = [10**8]
BLOCK = 1000
"""Steps of a flush: what the recorder gathers in half a second, at 500 us a step."""

COMMANDS = {
    "open": "ll.open(sys.argv[1]).calls",
    "epoch_mean": "ll.open(sys.argv[1]).statistic('epoch_mean')",
    "losses of an epoch": "ll.open(sys.argv[1]).losses(epoch=-1)",
    "reported": "ll.open(sys.argv[1]).reported()",
    "show": "cli.main(['show', sys.argv[1]])",
    "show --json": "cli.main(['show', sys.argv[1], '--json'])",
    "reconcile": "ll.reconcile(sys.argv[1] + ':epoch_mean', sys.argv[1] + ':batch_mean')",
    "reconcile two": "ll.reconcile(sys.argv[1] + ':epoch_mean', sys.argv[2] + ':epoch_mean')",
    "report": "cli.main(['report', sys.argv[1], '-o', made + '/page.html'])",
    **{
        f"export --to {tracker}": (
            f"cli.main(['export', sys.argv[1], '--to', '{tracker}', '-o', made])"
        )
        for tracker in ("parquet", "csv", "tensorboard")
    },
}
MEASURED = """
import io, json, sys, tempfile, time
import lossledger as ll
from lossledger import cli
out, sys.stdout = sys.stdout, io.StringIO()
folder = tempfile.TemporaryDirectory()
made = folder.name
began, busy = time.perf_counter(), time.process_time()
{command}
seconds, busy = time.perf_counter() - began, time.process_time() - busy
# Not `ru_maxrss`, which a process takes over from the one that started it.
peak = int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) / 1024
print(json.dumps([seconds, busy, peak]), file=out)
"""


def write(folder, entries, seed, driver):
    """A run of `entries` steps; its path, and what appending and sealing took, as `figures`."""
    path = create_folder(folder, f"{driver}-{entries}-{seed}", datetime.now())
    info = {"format": 1, "id": path.name, "name": path.name, "created": "", "complete": True}
    write_json(path / "run.json", {**info, "entries": entries})
    epochs = max(1, entries // PER_EPOCH)
    reported = [
        {"place": "history", "name": "loss", "epoch": epoch, "value": 1.0}
        for epoch in range(epochs if driver == "fit" else 0)
    ]
    append_line(
        path / "calls.jsonl",
        {"call": 0, "driver": driver, "model": 0, "reported": reported, "ended": 1},
    )
    chance = np.random.default_rng(seed)
    batches = chance.integers(1, 2**63, PER_EPOCH, dtype="u8")
    writer = store.Writer(path)
    began, busy = time.perf_counter(), time.process_time()
    for start in range(0, entries, BLOCK):
        step = np.arange(start, min(start + BLOCK, entries))
        writer.append(
            {
                "step": step,
                "call": np.zeros(len(step), "i4"),
                "model": np.zeros(len(step), "i4"),
                "epoch": step // PER_EPOCH if driver == "fit" else np.full(len(step), -1),
                "batch": step % PER_EPOCH,
                "loss": chance.random(len(step), dtype="f4"),
                "weight": np.full(len(step), 32.0),
                "rows": np.full(len(step), 32),
                "penalty": np.zeros(len(step), "f4"),
                "learning_rate": np.full(len(step), 1e-3, "f4"),
                "time": step * 250_000 + chance.integers(0, 1000, len(step)),
                "batch_id": batches[step % PER_EPOCH],
                "updated": np.ones(len(step), bool),
            }
        )
        writer.flush()
    writer.close()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return path, figures(time.perf_counter() - began, time.process_time() - busy, peak)


def figures(seconds, busy, memory):
    return f"{seconds:.1f}, {busy:.1f} ({memory:.0f})"


def measured(command, *paths):
    code = MEASURED.format(command=command)
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, paths)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        return done.stderr.strip().splitlines()[-1]
    return figures(*json.loads(done.stdout))


def runs(folder, count):
    """Seconds that `lossledger list` takes over many runs, the interpreter's start included."""
    for number in range(count):
        path = create_folder(folder, f"run-{number}", datetime(2026, 1, 1))
        summary = {"calls": 1, "steps": 1000, "epoch_mean": 0.5}
        info = {"format": 1, "name": f"run-{number}", "created": "2026-01-01T00:00:00+00:00"}
        info |= {"complete": True, "entries": 1000, "summary": summary}
        (path / "run.json").write_text(json.dumps(info))
    command = [sys.executable, "-m", "lossledger", "list", str(folder)]
    times = []
    for _ in range(3):
        began = time.perf_counter()
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        times.append(time.perf_counter() - began)
    return min(times)


def grown(driver, entries):
    """What each command takes of a run of so many entries, as the table has it."""
    with tempfile.TemporaryDirectory() as folder:
        a, written = write(Path(folder), entries, 0, driver)
        b, _ = write(Path(folder), entries, 1, driver)
        size = sum(file.stat().st_size for file in (a / "entries").iterdir())
        cells = {"append, flush, seal": written}
        for name in os.environ.get("COMMANDS", ",".join(COMMANDS)).split(","):
            cells[name] = measured(COMMANDS[name], a, b)
            section.doing(f"{driver}, {entries:,} entries, {name}: {cells[name]}")
    return cells | {"bytes an entry": f"{size / entries:.2f}"}


def main():
    smallest, largest = (
        int(float(os.environ.get(name, usual)))
        for name, usual in (("SMALLEST", 10**5), ("LARGEST", 10**7))
    )
    sizes = [10**power for power in range(3, 9) if smallest <= 10**power <= largest]
    versions = section.versions("pyarrow", "numpy")
    for driver in os.environ.get("DRIVERS", "fit train_on_batch").split():
        cells = {entries: grown(driver, entries) for entries in sizes}
        rows = [
            (f"`{name}`", *(cells[entries][name] for entries in sizes)) for name in cells[sizes[0]]
        ]
        table = section.table((f"`{driver}`", *(f"{entries:,}" for entries in sizes)), rows)
        head = section.head(
            f"Entries of {driver}: seconds, of the processor (MB at most)", versions
        )
        name = f"scale {driver} {sizes[0]}" if sizes == LARGE else f"scale {driver}"
        section.write(name, head, table, whole=sizes == LARGE or len(sizes) > 2)
    with tempfile.TemporaryDirectory() as folder:
        seconds = f"{runs(Path(folder), 10_000):.2f} s, the fastest of 3."
    section.write("list", section.head("`lossledger list` over 10,000 runs", {}), seconds)


if __name__ == "__main__":
    main()
