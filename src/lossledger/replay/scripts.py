"""Recorded scripts, trained again under other seeds: is a gap larger than chance?"""

import hashlib
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import shorten
from typing import Any

import numpy as np

from lossledger.chance import LEVEL, Estimate, student
from lossledger.errors import LossLedgerError
from lossledger.reconciliation.file_number import file_of
from lossledger.reconciliation.main import reconcile
from lossledger.reconciliation.result import Cause, Reconciliation
from lossledger.reconciliation.spec import Spec
from lossledger.run import Run
from lossledger.run import open as open_run

STRIDE = 7919
"""What lies between the seeds of two repeats."""
_WIDTH = 100
"""Characters of a command that are told, at most."""
_LINES = 5


def again(
    result: Reconciliation,
    which: tuple[str, str],
    repeat: int,
    *,
    tell: Callable[[str], None],
    directory: str | Path,
    **how: Any,
) -> Reconciliation:
    """Trains the scripts of two runs again, and says whether their gap is larger than chance.

    Args:
        result: What the two recorded runs have told.
        which: The two numbers, as `lossledger.reconcile` takes them.
        repeat: How many times, each under a seed of its own, the same for both.
        tell: Called with a line before each training.
        directory: The folder of runs in which a bare name is looked up.
        **how: Further arguments of `lossledger.reconcile`.

    Returns:
        The same reconciliation, with what chance alone makes of such a gap as its noise.

    Raises:
        LossLedgerError: A run was not recorded by `lossledger run` (slug `no-script`), its script
            has changed since (`script-changed`), or fails now (`replay-failed`).
    """
    for each in which:
        if file_of(each) is not None:
            raise _no_script(each, "a file of another tool")
    specs = [Spec.of(each) for each in which]
    rests = [each.removeprefix(str(spec.run)) for each, spec in zip(which, specs, strict=True)]
    runs = [open_run(str(spec.run), directory=directory) for spec in specs]
    commands = [_command(run) for run in runs]
    trainings = [0] if runs[0].path.resolve() == runs[1].path.resolve() else [0, 1]
    gaps: list[float] = []
    for place in range(repeat):
        with TemporaryDirectory(prefix="lossledger-replay-") as folder:
            found: list[Run] = []
            for side in trainings:
                line = shorten(shlex.join(commands[side]), _WIDTH, placeholder=" ...")
                tell(f"training {place + 1} of {repeat}: {line}")
                where = Path(folder, str(side))
                found.append(_trained(runs[side], commands[side], place * STRIDE, where))
            a, b = found[0], found[-1]
            gaps.append(reconcile((a, rests[0]), (b, rests[1]), across=True, **how).gap)
    return _judged(result, np.array(gaps))


def _command(run: Run) -> list[str]:
    """What follows `python` to train it again."""
    command, script = run.info.get("command") or [], run.info.get("script")
    if command[:1] == ["-m"]:
        return list(command)
    if command[:1] == ["-c"]:
        raise _no_script(run.path, "code of -c, and what a run folder holds is never run")
    if not isinstance(script, Mapping) or not command:
        raise _no_script(run.path, "recorded from within a program")
    path = Path(str(script["path"]))
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != script["sha256"]:
        raise LossLedgerError(
            f"The script is not the one that was recorded. Received: {path}, of {run.path}. Put "
            "back the script as it was, or record it anew.",
            slug="script-changed",
        )
    return [str(path), *command[1:]]


def _no_script(what: str | Path, why: str) -> LossLedgerError:
    return LossLedgerError(
        f"Only what lossledger run has recorded can be trained again. Received: {what}, {why}. "
        "Record it with lossledger run, or use lossledger.compare.",
        slug="no-script",
    )


def _trained(run: Run, command: Sequence[str], offset: int, folder: Path) -> Run:
    variables = {k: v for k, v in os.environ.items() if k != "LOSSLEDGER_OFF"}
    backend = run.info.get("versions", {}).get("backend")
    if backend:
        variables["KERAS_BACKEND"] = str(backend)
    module = [sys.executable, "-m", "lossledger.replay.seeded", str(offset), str(folder)]
    done = subprocess.run(
        [*module, *command],
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    if done.returncode or not (folder / "latest").exists():
        last = " | ".join(done.stderr.strip().splitlines()[-_LINES:]) or "it recorded nothing"
        raise LossLedgerError(
            f"The script could not be trained again. Received: {' '.join(command)}, status "
            f"{done.returncode}: {last}. Run it where it was recorded.",
            slug="replay-failed",
        )
    return open_run(folder / "latest")


def _judged(result: Reconciliation, gaps: np.ndarray) -> Reconciliation:
    """The result with its noise, and what the replays say in its verdict."""
    count = len(gaps)
    if count == 1:
        told = f"Trained again once: the gap is {gaps[0]:+.3g}. More trainings tell its noise."
        return replace(result, verdict=f"{result.verdict} {told}")
    estimate = Estimate.of(gaps)
    assert estimate.spread is not None
    if not np.isfinite(gaps).all():
        told = f"Trained again under {count} seeds, the gap is not finite in all of them."
        return replace(result, verdict=f"{result.verdict} {told}")
    noise = student(count - 1) * estimate.spread
    told = f"Trained again under {count} seeds, the gap is {estimate.mean:+.3g} on average"
    if estimate.spread == 0:
        told += (
            " and always the same: no seed moves it. (A script that seeds otherwise than by "
            "keras.utils.set_random_seed can't be moved.)"
        )
    else:
        what = "within" if estimate.is_noise else "larger than"
        told += (
            f" and spreads by {estimate.spread:.1e}: {what} what chance makes of such an average "
            f"({estimate.noise:.1e}, {LEVEL:.0%}). One pair alone moves by {noise:.1e}."
        )
    # A pair moves by more than the average: what the average shows to be real is no noise.
    own = noise if estimate.is_noise else estimate.noise
    causes = tuple(_with_noise(cause, own) for cause in result.causes)
    told = f"{result.verdict} {told}"
    if estimate.is_noise and any(cause.kind == "replayed" for cause in causes):
        told += " So what one pair tells may be nothing but chance."
    return replace(result, causes=causes, noise=noise, verdict=told)


def _with_noise(cause: Cause, noise: float | None) -> Cause:
    """A replayed amount moves as the gap does."""
    return replace(cause, noise=noise) if cause.kind == "replayed" else cause
