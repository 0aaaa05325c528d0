"""Entries of a loop that is the user's own: `run.step(loss, rows=...)`."""

from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from lossledger.entry import DTYPES, dtype_of
from lossledger.errors import LossLedgerError

if TYPE_CHECKING:
    from lossledger.recorder.call import RecordedCall
    from lossledger.recorder.recording import Recording


class Steps:
    """The steps of a user's loops, one call a model; their device scalars are fetched later.

    Args:
        recording: The recording they belong to.
    """

    def __init__(self, recording: "Recording") -> None:
        self._recording = recording
        self._calls: dict[str, RecordedCall] = {}
        self._waiting: list[tuple[tuple[int, ...], Any, dict[str, Any]]] = []

    @property
    def used(self) -> bool:
        """Whether any step was added."""
        return bool(self._calls)

    def add(self, loss: Any, rows: int | None, values: dict[str, Any]) -> None:
        """Add one step; see `lossledger.recorder.recording.Recording.step`."""
        loss = _scalar("loss", loss)
        name = str(values.pop("model", "custom"))
        call = self._calls.get(name) or self._begin(name, rows, values)
        if call is None:
            return
        values = {key: _scalar(key, value) for key, value in values.items()}
        wrong = sorted(set(values) & set(DTYPES) - {"weight", "learning_rate", "penalty"})
        if wrong:
            raise LossLedgerError(
                f"A step's {wrong[0]} is not for the caller to give. Received: {wrong[0]}="
                f"{values[wrong[0]]}. Leave it out: the recorder counts it.",
                slug="step-column",
            )
        if rows is not None:
            values["rows"] = int(rows)
        self._waiting.append((call.advance(), loss, values))

    def _begin(self, name: str, rows: int | None, values: dict[str, Any]) -> "RecordedCall | None":
        recording = self._recording
        # A series whose beginning could not be kept isn't taken up later, as if it began there.
        if recording.output.failed:
            return None
        with recording.guarded("call-not-recorded"):
            call = recording.new_call("custom", lambda: recording.models.new(name))
            kind = "sample_weight" if "weight" in values else "one" if rows is None else "rows"
            call.write(model_name=name, loss_name="loss", weight_kind=kind, arguments={})
            self._calls[name] = call
        return self._calls.get(name)

    def begin_epoch(self, epoch: int) -> None:
        """All loops are in this epoch from here on."""
        for call in self._calls.values():
            call.say_epoch(epoch)

    def collect(self) -> int:
        """Move the steps since the last call to the blocks that wait for the writer; how many."""
        output, count = self._recording.output, len(self._waiting)
        groups = groupby(self._waiting[:count], key=lambda step: (step[0][0], *step[2]))
        blocks = [_block(list(steps)) for _, steps in groups]
        # At once, so that an interrupt neither loses nor doubles one; in place, since the training
        # may be about to append another.
        output.waiting, self._waiting[:count] = [*output.waiting, *blocks], []
        return count


def _block(steps: list[tuple[tuple[int, ...], Any, dict[str, Any]]]) -> dict[str, np.ndarray]:
    """Steps of one call that have values of the same names."""
    firsts = np.array([first for first, _, _ in steps]).T
    names = ("call", "model", "epoch", "batch", "step", "time")
    entries: dict[str, Any] = dict(zip(names, firsts, strict=True))
    entries["loss"] = [_fetch(loss) for _, loss, _ in steps]
    for name in steps[0][2]:
        entries[name] = [_fetch(values[name]) for _, _, values in steps]
    entries.setdefault("weight", entries.get("rows", np.ones(len(steps))))
    with np.errstate(over="ignore", invalid="ignore"):
        return {name: np.asarray(values, dtype_of(name)) for name, values in entries.items()}


def _fetch(value: Any) -> Any:
    value = value.detach().cpu() if hasattr(value, "detach") else value
    return float(np.asarray(value).reshape(()))


def _scalar(name: str, value: Any) -> Any:
    """`value`, checked to be one number that has a value; a graph is let go of."""
    if hasattr(value, "detach"):
        value = value.detach()
    shape = getattr(value, "shape", ())
    symbolic = hasattr(value, "graph") or "Tracer" in type(value).__name__
    if symbolic or (len(shape) > 0 and int(np.prod(shape)) != 1):
        what = "inside compiled code, where it has no value yet" if symbolic else "not a scalar"
        raise LossLedgerError(
            f"A step's {name} must be one number. Received: {value!r}, {what}. "
            "Call `run.step` with what the compiled step returns, reduced to its mean.",
            slug="step-not-scalar",
        )
    if not isinstance(value, str):
        return value
    raise LossLedgerError(
        f"A step's {name} must be a number. Received: {value!r}.", slug="step-not-scalar"
    )
