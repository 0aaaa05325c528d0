"""What exports take: a run without Keras, its time and the memory of the process.

    python benchmarks/export.py [--steps 1e6] [--to tensorboard csv parquet show follow plot]

Each output is made by a process of its own; the run is recorded once. Rewrites the section of so
many steps in `docs/benchmarks.md`.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import section

BLOCK = 65_536
OUTPUTS = {
    "tensorboard": "`export --to tensorboard`",
    "csv": "`export --to csv`",
    "parquet": "`export --to parquet`",
    "show": "`show`",
    "follow": "`show --follow`",
    "html": "a run in a notebook",
    "plot": "`run.plot()`",
    "list": "`list`",
}
NAMES = ("output", "seconds", "MB of the process, at most", "MB written")


def recorded(folder: Path, steps: int, epochs: int) -> None:
    from datetime import datetime

    import numpy as np

    from lossledger import store
    from lossledger.folder import append_line, create_folder, write_json

    path = create_folder(folder, "train", datetime(2026, 11, 24))
    info = {"format": 1, "id": path.name, "name": "train", "created": "2026-11-24T00:00:00"}
    write_json(path / "run.json", {**info, "complete": False})
    call = {"call": 0, "driver": "fit", "model": 0, "model_name": "net", "loss_name": "loss"}
    append_line(path / "calls.jsonl", call)
    writer = store.Writer(path)
    random, per_epoch = np.random.default_rng(0), -(-steps // epochs)
    for begin in range(0, steps, BLOCK):
        place = np.arange(begin, min(begin + BLOCK, steps))
        writer.append(
            {
                "step": place,
                "call": np.zeros(len(place)),
                "model": np.zeros(len(place)),
                "epoch": place // per_epoch,
                "batch": place % per_epoch,
                "loss": random.exponential(size=len(place)),
                "weight": np.full(len(place), 32.0),
                "rows": np.full(len(place), 32),
                "learning_rate": np.full(len(place), 1e-3),
                "penalty": random.random(len(place)),
                "time": place * 1_000_000 + random.integers(0, 900_000, len(place)),
                "updated": np.ones(len(place), bool),
            }
        )
    writer.close()
    write_json(path / "run.json", {**info, "complete": True, "entries": steps})


def make(output: str, path: Path, out: Path) -> None:
    """One output, in this process."""
    from lossledger.cli import main
    from lossledger.run import Run

    if output == "record":
        recorded(path, *map(int, out.name.split("-")))
    elif output == "show":
        main(["show", str(path)])
    elif output == "follow":
        main(["show", str(path), "--follow"])
    elif output == "list":
        main(["list", str(path.parent)])
    elif output == "html":
        Run(path)._repr_html_()
    elif output == "plot":
        Run(path).plot().savefig(out / "plot.png")
    else:
        main(["export", str(path), "--to", output, "-o", str(out / output)])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=float, default=1e6)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--to", nargs="+", choices=OUTPUTS, default=list(OUTPUTS))
    parser.add_argument("--make", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.make:
        make(options.make[0], Path(options.make[1]), Path(options.make[2]))
        return
    with tempfile.TemporaryDirectory() as folder:
        # By a process of its own: what a process held before it began another counts as that one's.
        size = f"{int(options.steps)}-{options.epochs}"
        command = [sys.executable, __file__, "--make", "record", f"{folder}/runs", size]
        subprocess.run(command, check=True)
        path = Path(folder, "runs", "latest").resolve()
        rows = [row(output, path, folder) for output in options.to]
    title = f"{int(options.steps):,} steps in {options.epochs:,} epochs"
    head = section.head(title, section.versions("pyarrow", "tensorboard", "matplotlib"))
    whole = options.to == list(OUTPUTS)
    section.write(f"exports {int(options.steps)}", head, section.table(NAMES, rows), whole=whole)


def row(output: str, path: Path, folder: str) -> tuple[str, ...]:
    """A line of the table."""
    section.doing(OUTPUTS[output])
    command = [sys.executable, __file__, "--make", output, str(path), folder]
    began = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = wait(child)
    took = time.perf_counter() - began
    if status:
        raise SystemExit(f"{output} failed")
    files = [file for file in Path(folder, output).rglob("*") if file.is_file()]
    size = f"{sum(file.stat().st_size for file in files) / 1e6:.0f}" if files else ""
    return (OUTPUTS[output], f"{took:.1f}", f"{used.ru_maxrss / 1e3:.0f}", size)


def wait(child: subprocess.Popen[bytes]) -> tuple[int, int, resource.struct_rusage]:
    found = os.wait4(child.pid, 0)
    child.returncode = found[1]
    return found


if __name__ == "__main__":
    main()
