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
import platform
import re
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/benchmarks.md"
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
    "TRANSFORMERS_VERBOSITY": "error",
    "WANDB_MODE": "offline",
    "WANDB_SILENT": "true",
}
"""So that nothing asks for a network, and nothing chatters."""
MARK = "<!-- measured: {} -->\n"
END = "<!-- end measured -->"


def installed() -> Path:
    """The Python of the peers' environment, which is made if it isn't there."""
    python, made = HOME / "bin/python", HOME / ".made"
    wanted = "\n".join((*PINNED, *WITHOUT_NEEDS))
    if made.exists() and made.read_text() == wanted:
        return python
    print(f"== installing {wanted.replace(chr(10), ', ')} into {HOME}", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "venv", HOME], check=True)
    (site,) = HOME.glob("lib/python*/site-packages")
    ours = [path for path in sys.path if path.endswith(("site-packages", "src"))]
    (site / "outer.pth").write_text("\n".join(ours) + "\n")
    pip = [python, "-m", "pip", "install", "-q"]
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
    return "with_torch.py", [*size, part], {}


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


def table(part: str, found: dict) -> str:
    """A part's section."""
    lines = [f"**{found['title']}**, {date.today()}, {machine(found['versions'])}", ""]
    if part == "reading":
        lines += ["| tool | seconds | bytes a step on disk |", "| --- | ---: | ---: |"]
        lines += [f"| {r['name']} | {r['seconds']:.2f} | {r['size']:.1f} |" for r in found["rows"]]
    else:
        lines.append(
            "| way | µs a step | slower by (quartiles) | steps missed | largest error "
            "| bytes a step | records |"
        )
        lines.append("| --- | ---: | ---: | ---: | ---: | ---: | --- |")
        lines += [line(row) for row in found["rows"]]
    lines += [f"\n- {name} is left out: {why}." for name, why in found["left_out"].items()]
    return "\n".join(lines)


def line(row: dict) -> str:
    """A way."""
    missed = "" if row["missed"] is None else str(row["missed"])
    error = "" if row["error"] is None else f"{row['error']:.1e}"
    size = "" if row["size"] is None else f"{row['size']:.0f}"
    slower = f"{row['ratio']:.2f} ({row['low']:.2f} to {row['high']:.2f})"
    cells = (row["name"], f"{row['step']:,.0f}", slower, missed, error, size, row["note"])
    return f"| {' | '.join(cells)} |"


def machine(versions: dict[str, str]) -> str:
    """Where and with what it was measured."""
    told = ", ".join(f"{name} {number}" for name, number in versions.items())
    return (
        f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}, {told}"
    )


def rewrite(part: str, text: str) -> None:
    """Puts a section into the page."""
    mark = MARK.format(part)
    page = PAGE.read_text()
    pattern = re.compile(f"({re.escape(mark)}).*?({re.escape(END)})", re.DOTALL)
    if not pattern.search(page):
        raise SystemExit(f"{PAGE} has no section {mark.strip()}")
    PAGE.write_text(pattern.sub(lambda m: f"{m[1]}{text}\n{m[2]}", page))


def main() -> None:
    """Runs the parts that are asked for."""
    parts = ["keras-jax", "keras-tensorflow", "lightning", "skorch", "trainer", "reading"]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", nargs="*", metavar="PART", help=f"of {', '.join(parts)}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=2, help="of 250 steps")
    parser.add_argument("--steps", type=int, default=1_000_000, help="how many are read")
    parser.add_argument("--tool", action="append", default=[], help="of those that read")
    options = parser.parse_args()
    for part in options.part or parts:
        print(f"== {part}", file=sys.stderr)
        text = table(part, measured(part, options))
        print(text, flush=True)
        rewrite(part if part != "reading" else f"reading {options.steps}", text)


if __name__ == "__main__":
    main()
