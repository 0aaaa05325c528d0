"""Evaluations of a model that nothing has trained here: a call of their own, which has no steps."""

from typing import TYPE_CHECKING, Any

from lossledger.entry import MEASURES
from lossledger.recorder.call import RecordedCall

if TYPE_CHECKING:
    from lossledger.recorder.recording import Recording

_OF_TRAINING = ("optimizer", "optimizers", "seed")
"""What of a model's configuration an evaluation doesn't depend on."""


def described(model: Any) -> dict[str, Any]:
    """What a call says of its model."""
    from lossledger.keras import describe

    return {
        "model_name": str(getattr(model, "name", "model")),
        "configuration": describe.configuration(model),
        "mean_of_rows": describe.mean_of_rows(model),
    }


def measuring(recording: "Recording", model: Any, last: RecordedCall | None) -> RecordedCall | None:
    """The call that an evaluation of a model belongs to.

    That is its last. Where none has trained it, it is one of evaluations, until the model is
    compiled otherwise.

    Args:
        recording: The recording.
        model: The model.
        last: Its last call.

    Returns:
        The call; `None` where none is to be kept.
    """
    if last is not None and (last.driver != MEASURES or last.tests_enough):
        return last  # to look at the model takes longer than a small batch
    if not recording.here or not recording.records(model) or recording.output.failed:
        return None
    with recording.guarded("call-not-recorded"):
        found = described(model)
        made = {k: v for k, v in found["configuration"].items() if k not in _OF_TRAINING}
        if last is not None and last.measured == made:
            return last
        call = recording.new_call(MEASURES, lambda: recording.number(model))
        call.measures(model, made)
        call.write(**found)
        recording.models.measures(model, call)
        return call
    return None
