"""What goes wrong in recording, and what could not be recorded: said once, never raised."""

import inspect
import sys
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from lossledger.errors import LossLedgerWarning

_LIBRARIES = (
    *("keras", "tensorflow", "jax", "torch", "lossledger"),
    *("contextlib", "functools", "importlib", "threading"),
)

_BY_DISK = ("call-not-recorded", "weights-not-read", "no-summary")
"""What fails only where the disk does, if by an `OSError`."""
_NOTHING = "no Keras training was seen"
_NOT_RECORDED = ("not-tapped", "call-not-recorded", "keras-not-tapped")


class Trouble:
    """The warnings of a recording, one a slug, and the trainings that it could not see."""

    def __init__(self) -> None:
        self.told: dict[str, str] = {}
        self.unseen: dict[str, str] = {}
        self._unrecorded = self._by_hand = False

    @contextmanager
    def guarded(self, slug: str) -> Generator[None]:
        """Let nothing that goes wrong in recording reach the training."""
        try:
            yield
        except Exception as error:
            self._unrecorded |= slug in _NOT_RECORDED
            # A disk that is full has many faces, and is told of once.
            disk = isinstance(error, OSError) and slug in _BY_DISK
            self.warn("cannot-write" if disk else slug, f"{type(error).__name__}: {error}")

    def warn(self, slug: str, message: str) -> None:
        """Warn once under `slug`, at the user's line, whatever the warning filters make of it."""
        if slug in self.told:
            return
        self.told[slug] = message
        text = f"[{slug}] {message.rstrip('.')}. Training goes on."
        file, line = _outside() or ("<lossledger>", 1)  # the recorder's own thread
        try:
            warnings.warn_explicit(LossLedgerWarning(text), None, file, line)
        except LossLedgerWarning:
            print(f"lossledger: {text}", file=sys.stderr)

    def not_taken(self, *, ended: bool) -> None:
        """Something trains that has no recording: after its end, or in a forked child."""
        what = "This trains after the recording has ended, and has no entries"
        if not ended:
            what = "A forked process trains: what it does is no part of its parent's run"
        self.warn("entries-lost", f"{what}. To record it, begin another with `lossledger.record`")

    def applied_unseen(self, optimizer: Any) -> None:
        """An optimizer moved weights in a loop that no tap is in."""
        if self._by_hand or self._unrecorded:
            return
        if self.told.keys().isdisjoint(_NOT_RECORDED):
            where = ":".join(map(str, _outside() or ["an unknown place"]))
            what = f"{type(optimizer).__name__} was applied at {where}"
            self.unseen.setdefault(where, f"{what}, outside fit and train_on_batch")

    def added_by_hand(self) -> None:
        """A loop adds its steps: an optimizer that is applied outside of Keras may well be its."""
        self._by_hand = True
        self.unseen.clear()

    def tell_unseen(self) -> None:
        """Say at the end which trainings could not be seen."""
        if self.unseen:
            where = "; ".join(self.unseen.values())
            self.warn("unseen-training", f"{where}: add `run.step(loss, rows=...)` to such a loop")

    @property
    def why_nothing(self) -> str:
        """Why there is no run, as far as is known."""
        return "; ".join((*self.unseen.values(), *self.told.values())) or _NOTHING


def _outside() -> tuple[str, int] | None:
    """File and line of the innermost frame that is neither Keras's, its backend's, nor ours."""
    frame = inspect.currentframe()
    while frame is not None:
        module = str(frame.f_globals.get("__name__", "")).split(".")[0]
        generated = "__autograph_generated" in frame.f_code.co_filename
        if module not in _LIBRARIES and not generated:
            return frame.f_code.co_filename, frame.f_lineno
        frame = frame.f_back
    return None
