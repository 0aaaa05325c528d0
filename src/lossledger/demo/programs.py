"""Run the example programs under the recorder, each in a process of its own."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import lossledger
from lossledger.backends import BACKENDS, installed
from lossledger.catalog import runs_in
from lossledger.errors import LossLedgerError
from lossledger.words import counted

LINES = 20
"""Of what a failed program wrote, how many of the last are shown."""

_PRINTED = re.compile(r"^(?P<what>.+?):.* loss (?P<value>\S+)$", re.MULTILINE)
_PATIENCE = 0.5  # seconds between signs of life


@dataclass(frozen=True)
class Training:
    """A program with its options: one run of the demonstration.

    Args:
        name: What its run is called.
        program: The program's file, without `.py`.
        option: The one option that it is given, or "".
        steps_per_epoch: Steps of an epoch, where the batches don't tell.
    """

    name: str
    program: str
    option: str = ""
    steps_per_epoch: int | None = None

    @property
    def words(self) -> str:
        """As it stands on a command line."""
        return f"{self.program}.py {self.option}".strip()


FIT = Training("fit_average", "fit_average")
EPOCHS = Training("train_on_batch_epochs", "train_on_batch_epochs")
RAW = Training("train_on_batch_raw", "train_on_batch_raw")
UNSHUFFLED = Training("no-shuffle", "train_on_batch_epochs", "--no-shuffle")
# Shuffled, every epoch leaves out other rows: no two epochs have the same batches or sums.
DROPPED = Training("drop-remainder", "train_on_batch_epochs", "--drop-remainder", 31)

TRAININGS = (FIT, EPOCHS, RAW, UNSHUFFLED, DROPPED)
"""In the order in which they are run."""


@dataclass(frozen=True)
class Recorded:
    """A training that was run.

    Args:
        training: Which.
        path: The folder of its run.
        printed: What it printed: each loss, with the words before it.
    """

    training: Training
    path: Path
    printed: tuple[tuple[str, float], ...]


Tell = Callable[[Training, float, bool], None]
"""Told of a training, the seconds since it began, and whether it has ended."""


def folder() -> Path:
    """The folder of the example programs: inside the package, or in the tree it is installed from.

    Raises:
        LossLedgerError: They are in neither (slug `no-examples`).
    """
    package = Path(lossledger.__file__).resolve().parent
    places = [package / "examples", package.parents[1] / "examples"]
    for place in places:
        if (place / f"{FIT.program}.py").is_file():
            return place
    raise LossLedgerError(
        "The example programs are missing from this installation. "
        f"Received: no {FIT.program}.py in {' or '.join(map(str, places))}. Install lossledger "
        "from its wheel, or with `pip install -e .` from its source tree.",
        slug="no-examples",
    )


def backend(environment: Mapping[str, str] = os.environ) -> str:
    """The backend to train on: `KERAS_BACKEND`, or the first one that is installed.

    Raises:
        LossLedgerError: None is installed, or not the one chosen (slug `no-backend`).
    """
    chosen = environment.get("KERAS_BACKEND", "")
    there = [name for name in installed() if chosen in ("", name)]
    if there:
        return there[0]
    received = f"KERAS_BACKEND={chosen}" if chosen else "none of tensorflow, jax and torch"
    name = chosen if chosen in BACKENDS else "jax"
    raise LossLedgerError(
        "The demonstration trains a model, and Keras needs an installed backend for that. "
        f"Received: {received}. Install one: pip install 'lossledger[{name}]'",
        slug="no-backend",
    )


def prepare(directory: Path) -> None:
    """Makes the folder of runs, before anything trains.

    Raises:
        LossLedgerError: It can't be made (slug `not-a-folder`).
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LossLedgerError(
            f"The folder of runs can't be made. Received: {directory}: {error.strerror}. "
            "Name another with -o.",
            slug="not-a-folder",
        ) from error


def train(training: Training, directory: Path, backend: str, tell: Tell) -> Recorded:
    """Runs a program as `lossledger run` does, to its end.

    Args:
        training: Which program, how.
        directory: The folder of runs.
        backend: What Keras is to run on.
        tell: Called every half second while it runs, and when it has ended.

    Raises:
        LossLedgerError: The program failed or left no run (slug `demo-failed`).
    """
    before = _runs(directory, training.name)
    status, stdout, stderr = _execute(training, directory, backend, tell)
    made = [path for path in _runs(directory, training.name) if path not in before]
    if status != 0 or len(made) != 1:
        lines = stderr.strip().splitlines()[-LINES:]
        raise LossLedgerError(
            f"A program of the demonstration failed. Received: {training.words}, status {status}, "
            f"{counted(len(made), 'run')}. It wrote:\n" + "\n".join(lines),
            slug="demo-failed",
        )
    printed = tuple((m["what"], float(m["value"])) for m in _PRINTED.finditer(stdout))
    return Recorded(training, made[0], printed)


def _runs(directory: Path, name: str) -> list[Path]:
    there = runs_in(directory) if directory.is_dir() else []
    return [info.path for info in there if info.name == name]


def _execute(training: Training, directory: Path, backend: str, tell: Tell) -> tuple[int, str, str]:
    began = time.monotonic()
    process = subprocess.Popen(
        _command(training, directory),
        env=_environment(backend),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
    )
    with process:
        try:
            while True:
                try:
                    stdout, stderr = process.communicate(timeout=_PATIENCE)
                    break
                except subprocess.TimeoutExpired:
                    tell(training, time.monotonic() - began, False)
        except BaseException:
            process.kill()
            raise
    tell(training, time.monotonic() - began, True)
    return process.returncode, stdout, stderr


def _command(training: Training, directory: Path) -> list[str]:
    steps = training.steps_per_epoch
    return [
        *(sys.executable, "-m", "lossledger", "run", "-o", str(directory)),
        *("--name", training.name),
        *(("--steps-per-epoch", str(steps)) if steps else ()),
        str(folder() / f"{training.program}.py"),
        *((training.option,) if training.option else ()),
    ]


def _environment(backend: str) -> dict[str, str]:
    """Ours, but for what would keep the recorder off, and with TensorFlow's chatter turned down."""
    kept = {name: value for name, value in os.environ.items() if name != "LOSSLEDGER_OFF"}
    chosen = {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONIOENCODING": "utf-8"}
    return {**kept, **chosen}
