"""Evaluations of models that nothing has trained: calls of their own, which have no steps."""

import weakref
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from lossledger.entry import MEASURES
from lossledger.recorder.call import RecordedCall
from lossledger.recorder.world import find_world

if TYPE_CHECKING:
    from lossledger.recorder.recording import Recording

HELD = 10_000
"""Evaluations that are kept of a recording, of models that nothing has trained: the first ones."""
_OF_TRAINING = ("optimizer", "optimizers", "seed")
"""What of a model's configuration an evaluation doesn't depend on."""
_NO_NUMBER = -1


def described(model: Any) -> dict[str, Any]:
    """What a call says of its model."""
    from lossledger.keras import describe

    return {
        "model_name": str(getattr(model, "name", "model")),
        "configuration": describe.configuration(model),
        "mean_of_rows": describe.mean_of_rows(model),
    }


class Untrained:
    """The evaluations of models that nothing has trained yet, until the recording ends.

    They are written then: what is trained has the numbers that it would have without them.

    Args:
        recording: The recording.
    """

    def __init__(self, recording: "Recording") -> None:
        self._recording = recording
        self._calls: list[Evaluations] = []
        self._count = 0

    def call(self, model: Any) -> "Evaluations | None":
        """The call that an evaluation of a model belongs to; `None` where it isn't kept."""
        recording = self._recording
        self._count += 1
        if self._count > HELD or not recording.here or not recording.takes(model):
            return None
        last = next((each for each in reversed(self._calls) if each.of(model)), None)
        if last is not None and last.tests_enough:
            return last  # to look at the model takes longer than a small batch
        with recording.guarded("call-not-recorded"):
            found = described(model)
            made = {k: v for k, v in found["configuration"].items() if k not in _OF_TRAINING}
            if last is None or last.made != made:
                key = len(self._calls) if last is None else last.key
                self._calls.append(last := Evaluations(recording, model, made, key))
                last.write(**found)
            return last
        return None

    def write(self) -> None:
        """Write all of them: the recording ends."""
        output, calls = self._recording.output, self._calls
        # To have a folder, processes that train together would all have to come to this end.
        if not calls or output.failed or not (output.open or find_world() is None):
            return
        numbers: dict[int, int] = {}
        with self._recording.guarded("call-not-recorded"):
            for call in calls:
                call.settle(numbers)


class Evaluations(RecordedCall):
    """A call of evaluations of one model, while it is compiled so: held back until it has a number.

    Args:
        recording: The recording.
        model: The model.
        made: How it is made and compiled.
        key: What its calls have in common, and no other model's.
    """

    def __init__(self, recording: "Recording", model: Any, made: Any, key: int) -> None:
        super().__init__(recording, _NO_NUMBER, _NO_NUMBER, MEASURES)
        self.open = False
        self.made = made
        self._model = weakref.ref(model)
        self.key = key
        self._began = perf_counter_ns()
        self._held: list[dict[str, Any]] = []

    def of(self, model: Any) -> bool:
        """Whether it is of this model."""
        return self._model is not None and self._model() is model

    def write(self, **values: Any) -> None:
        """See base class; kept until `settle`."""
        self._held.append(values)

    def settle(self, numbers: dict[int, int]) -> None:
        """Write it as a call of the run.

        Args:
            numbers: The models' numbers, which this adds its own to.
        """
        recording, model = self.recording, self._model and self._model()

        def number() -> int:
            if self.key not in numbers:
                known = model is not None
                numbers[self.key] = recording.number(model) if known else recording.models.new()
            return numbers[self.key]

        call = recording.new_call(MEASURES, number)
        ago = perf_counter_ns() - self._began
        call.write(began=max(0, recording.output.now() - ago), ended=recording.output.now())
        for values in self._held:
            call.write(**values)
