"""What others take to keep each step's loss, and to read it back, beside lossledger.

    python benchmarks/peers.py                        # all parts, some minutes
    python benchmarks/peers.py keras-jax reading      # some of them

Installs the peers, pinned, into `.venv/peers`, an environment of its own in which the packages of
this one are seen, too. Each part is a process; in it all ways train the same model on the same
batches by turns. What a way recorded is compared with the raw losses of a training that returns
them. Each part rewrites its own section of `docs/benchmarks.md`. A peer that can't run is left out
by name, with its reason.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import section

ROOT = Path(__file__).resolve().parents[1]
PARTS = Path(__file__).with_name("peers_parts")
HOME = ROOT / ".venv/peers"
PINNED = (
    "tensorboard==2.21.0",
    "mlflow==3.17.2",
    "wandb==0.31.0",
    "lightning==2.6.6",
    "skorch==1.4.0",
    "transformers==5.24.0",
    "accelerate==1.15.0",
)
WITHOUT_NEEDS = ("tf-models-official==2.20.0", "tf_keras==2.21.0")
"""For `orbit`, which imports TensorFlow and `tf_keras` alone; what is around it needs much."""
ALONE = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "HF_HUB_OFFLINE": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "TRANSFORMERS_VERBOSITY": "error",
    "WANDB_MODE": "offline",
    "WANDB_SILENT": "true",
}
"""So that nothing asks for a network, and nothing chatters."""


def installed() -> Path:
    """The Python of the peers' environment, which is made if it isn't there."""
    python, made = HOME / "bin/python", HOME / ".made"
    wanted = "\n".join((*PINNED, *WITHOUT_NEEDS))
    if made.exists() and made.read_text() == wanted:
        return python
    section.doing(f"installing {wanted.replace(chr(10), ', ')} into {HOME}, a few minutes, once")
    subprocess.run([sys.executable, "-m", "venv", HOME], check=True)
    (site,) = HOME.glob("lib/python*/site-packages")
    ours = [path for path in sys.path if path.endswith(("site-packages", "src"))]
    (site / "outer.pth").write_text("\n".join(ours) + "\n")
    pip = [python, "-m", "pip", "-qq", "--disable-pip-version-check", "install"]
    subprocess.run([*pip, *PINNED], check=True)
    subprocess.run([*pip, "--no-deps", *WITHOUT_NEEDS], check=True)
    made.write_text(wanted)
    return python


def training(part: str, options: argparse.Namespace) -> tuple[str, list[str], dict[str, str]]:
    """The script of a part, its arguments, and its environment."""
    size = [str(options.rounds), str(options.epochs)]
    if part.startswith("keras-"):
        return "with_keras.py", size, {"KERAS_BACKEND": part.removeprefix("keras-")}
    if part == "reading":
        return "reading.py", [str(options.steps), *options.tool], {}
    return f"with_{part}.py", size, {}


def measured(part: str, options: argparse.Namespace) -> dict:
    """Runs a part."""
    script, arguments, more = training(part, options)
    environment = {**os.environ, **ALONE, **more}
    command = [installed(), PARTS / script, *arguments]
    with tempfile.TemporaryDirectory() as folder:  # some write into the working directory
        done = subprocess.run(
            command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True
        )
    return json.loads(done.stdout.splitlines()[-1])  # peers print, too


def parts_of(part: str, found: dict) -> list[str]:
    """A part's section."""
    rows = found["rows"]
    if part == "reading":
        names = ("tool", "seconds", "bytes a step on disk")
        cells = [(r["name"], f"{r['seconds']:.2f}", f"{r['size']:.1f}") for r in rows]
    else:
        names = ("way", "µs a step", "slower by (quartiles)", "steps missed", "largest error")
        names = (*names, "bytes a step", "records")
        cells = [line(row) for row in rows]
    left_out = [f"- {name} is left out: {why}." for name, why in found["left_out"].items()]
    return [
        section.head(found["title"], found["versions"]),
        section.table(names, cells),
        ahead(rows, "seconds" if part == "reading" else "step"),
        "\n".join(left_out),
    ]


def ahead(rows: list[dict], by: str) -> str:
    """Which ways are faster than ours; nothing where ours isn't among them."""
    took = {row["name"]: row[by] for row in rows if row["name"] != "nothing recorded"}
    ours = [took.pop(name) for name in list(took) if name.startswith("lossledger")]
    if not ours or not took:
        return ""
    faster = [f"{name} ({t / ours[0]:.2f} of its time)" for name, t in took.items() if t < ours[0]]
    return f"Faster than lossledger: {', '.join(faster) or 'none'}."


def line(row: dict) -> tuple[str, ...]:
    """A way."""
    missed = "" if row["missed"] is None else str(row["missed"])
    error = "" if row["error"] is None else f"{row['error']:.1e}"
    size = "" if row["size"] is None else f"{row['size']:.0f}"
    slower = f"{row['ratio']:.2f} ({row['low']:.2f} to {row['high']:.2f})"
    return (row["name"], f"{row['step']:,.0f}", slower, missed, error, size, row["note"])


def main() -> None:
    """Runs the parts that are asked for."""
    keras = ["keras-jax", "keras-tensorflow", "keras-torch"]
    parts = [*keras, "lightning", "skorch", "trainer", "reading"]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", nargs="*", metavar="PART", help=f"of {', '.join(parts)}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=2, help="of 250 steps")
    parser.add_argument("--steps", type=int, default=1_000_000, help="how many are read")
    parser.add_argument("--tool", action="append", default=[], help="of those that read")
    options = parser.parse_args()
    for part in options.part or parts:
        section.doing(part)
        name = part if part != "reading" else f"reading {options.steps}"
        section.write(name, *parts_of(part, measured(part, options)))


if __name__ == "__main__":
    main()
