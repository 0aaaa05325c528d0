"""Entries of a loop that is the user's own: `run.step(loss, rows=...)`."""

from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lossledger.entry import DTYPES, dtype_of
from lossledger.errors import LossLedgerError

if TYPE_CHECKING:
    from lossledger.recorder.call import RecordedCall
    from lossledger.recorder.recording import Recording


class _Step(NamedTuple):
    """A step that was added: what `RecordedCall.advance` counted, and its values."""

    counted: tuple[int, ...]
    loss: Any
    values: dict[str, Any]


class CustomSteps:
    """The steps of a user's loops, one call a model; their device scalars are fetched later.

    Args:
        recording: The recording they belong to.
    """

    def __init__(self, recording: "Recording") -> None:
        self._recording = recording
        self._calls: dict[str, RecordedCall] = {}
        self._waiting: list[_Step] = []

    def add(self, loss: Any, rows: int | None, values: dict[str, Any]) -> None:
        """Add one step; see `lossledger.recorder.recording.Recording.step`."""
        loss = _scalar("loss", loss)
        name = str(values.pop("model", "custom"))
        values = {key: _scalar(key, value) for key, value in values.items()}
        wrong = sorted(set(values) & set(DTYPES) - {"weight", "learning_rate", "penalty"})
        if wrong:
            raise LossLedgerError(
                f"A step's {wrong[0]} is not for the caller to give. Received: {wrong[0]}="
                f"{values[wrong[0]]}. Leave it out: the recorder counts it.",
                slug="step-column",
            )
        rows = None if rows is None else whole("rows", rows)
        call = self._calls.get(name)
        if call is None:
            with self._recording.beginning:
                call = self._calls.get(name) or self._begin(name, rows, values)
        if call is None:
            return
        if rows is not None:
            values["rows"] = rows
        self._waiting.append(_Step(call.advance(), loss, values))

    def _begin(self, name: str, rows: int | None, values: dict[str, Any]) -> "RecordedCall | None":
        recording = self._recording
        recording.trouble.added_by_hand()
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
        steps = [step for step in map(self._fetched, self._waiting[:count]) if step is not None]
        groups = groupby(steps, key=lambda step: (step.counted[0], *step.values))
        blocks = [_block(list(group)) for _, group in groups]
        # At once, so that an interrupt neither loses nor doubles one; in place, since the training
        # may be about to append another.
        output.waiting, self._waiting[:count] = [*output.waiting, *blocks], []
        return len(steps)

    def _fetched(self, step: _Step) -> _Step | None:
        """The step with numbers on the host; `None` where the device has them no more."""
        try:
            values = {name: _fetch(value) for name, value in step.values.items()}
            return _Step(step.counted, _fetch(step.loss), values)
        except Exception as error:
            where = f"step {step.counted[4]} of call {step.counted[0]}"
            why = f"its values can't be read, {type(error).__name__}: {error}"
            self._recording.warn("entries-lost", f"{where} has no entry: {why}")
            return None


def _block(steps: list[_Step]) -> dict[str, np.ndarray]:
    """Steps of one call that have values of the same names."""
    firsts = np.array([step.counted for step in steps]).T
    names = ("call", "model", "epoch", "batch", "step", "time")
    entries: dict[str, Any] = dict(zip(names, firsts, strict=True))
    entries["loss"] = [step.loss for step in steps]
    for name in steps[0].values:
        entries[name] = [step.values[name] for step in steps]
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
    if hasattr(value, "__float__") or hasattr(value, "__array__"):
        return value
    raise LossLedgerError(
        f"A step's {name} must be a number. Received: {value!r}.", slug="step-not-scalar"
    )


def whole(name: str, value: Any) -> int:
    """A count that the user gave, where it is one and its column has room for it.

    Raises:
        LossLedgerError: It isn't, or hasn't (slug `step-not-scalar`).
    """
    try:
        number = int(value)
        if number == value and 0 <= number < 2**31:
            return number
    except (TypeError, ValueError, OverflowError):
        pass
    raise LossLedgerError(
        f"A step's {name} must be a whole number from 0 on. Received: {name}={value!r}.",
        slug="step-not-scalar",
    )
