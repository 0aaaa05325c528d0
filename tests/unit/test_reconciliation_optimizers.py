"""Optimizers that began anew where the other training's went on: what the calls keep of them."""

import numpy as np
import pytest
from made import Made
from trained import RNG, causes, close

import lossledger as ll

LOSSES = RNG.random(12).astype("f4")
IDS = np.tile(np.array([3, 1, 2], "u8"), 4)
SCHEDULE = {"optimizer": {"class": "SGD", "learning_rate": {"initial_learning_rate": 0.1}}}


def state(iterations, variables=None, name="optimizer"):
    """What a call keeps of one optimizer; "" of one that has no variables."""
    own = {} if variables == "" else {"variables": variables}
    return {name: {"iterations": iterations, **own}}


def trained(directory, name, *calls, parts=False, configuration=None, change=0.0, rate=0.1):
    """A run of one training in calls of (steps, initial and final state of the optimizer)."""
    made, begin = Made(directory, name), 0
    whole = LOSSES + np.where(np.arange(12) > 7, np.float32(change), 0)
    begin = 6 if parts else 0
    for number, (count, first, last) in enumerate(calls):
        end = begin + count
        made.call(
            number,
            driver="fit",
            model=0,
            arguments={"shuffle": False},
            configuration=configuration or {"loss": "mse"},
            initial_weights=f"w{begin}",
            final_weights=f"w{end}" if end < 8 or not change else f"{name}{end}",
            **({} if first is None else {"initial_optimizers": first, "final_optimizers": last}),
        )
        epoch = np.repeat(np.arange(count // 3), 3)
        rates = np.where(np.arange(begin, end) < 6, 0.1, rate)
        columns = {"batch_id": IDS[begin:end], "learning_rate": rates}
        made.steps(whole[begin:end], call=number, epoch=epoch, **columns)
        begin = end
    return made.close()


def test_an_optimizer_made_anew_between_two_calls(tmp_path):
    whole = trained(tmp_path, "whole", (12, state(0), state(12, "x")))
    two = [(6, state(0), state(6, "v")), (6, state(0, "n"), state(6, "y"))]
    other = trained(tmp_path, "other", *two, change=0.125)
    result = ll.reconcile(whole, other)
    close(causes(result), {("optimizer_state", "replayed"): 0.125})
    assert (result.divergence.step, result.divergence.cause) == (8, "optimizer_state")
    assert "in b, the optimizer had made 6 updates when call 0 ended, and 0 when call 1 began" in (
        result.divergence.evidence
    )
    back = ll.reconcile(other, whole)
    close(causes(back), {("optimizer_state", "replayed"): -0.125})
    rates = trained(tmp_path, "rates", *two, change=0.125, rate=0.2)
    found = ll.reconcile(whole, rates)
    assert not found.causes
    assert "hyperparameters, optimizer_state" in found.verdict


@pytest.mark.parametrize(
    ("first", "told"),
    [
        (state(0, "n"), "before step 6 the optimizer had made 6 updates in a, and 0 in b"),
        (state(6, "v"), None),  # the whole state was read back: that isn't it
        (None, None),  # a run of an older recorder
        (state(0, ""), None),  # nothing to forget
    ],
)
def test_a_resume_from_weights_alone(tmp_path, first, told):
    """It begins with a step that the other training had on its way, and parts after it."""
    last = state(12, "" if first == state(0, "") else "x")
    whole = trained(tmp_path, "whole", (12, state(0, ""), last))
    resumed = trained(tmp_path, "resumed", (6, first, first), parts=True, change=0.125)
    result = ll.reconcile(whole, resumed)
    assert result.divergence.step == 8
    assert "b begins with step 6 of a" in result.divergence.evidence
    if told is None:
        assert result.divergence.cause == "unexplained"
        assert not result.causes
    else:
        assert told in result.divergence.evidence
        close(causes(result), {("optimizer_state", "replayed"): 0.125})
    first = ll.reconcile(resumed, whole, epoch=0)
    assert not first.causes or {each.cause for each in first.causes} == {"convention"}


def test_states_that_differ_in_their_values_or_by_a_schedule(tmp_path):
    one = trained(tmp_path, "one", (12, state(5, "u"), state(17, "x")))
    other = trained(tmp_path, "other", (12, state(5, "v"), state(17, "y")), change=0.125)
    result = ll.reconcile(one, other)
    close(causes(result), {("optimizer_state", "replayed"): 0.125})
    assert "holds other values: fingerprints u in a and v in b" in result.divergence.evidence
    gan = [state(0, "n", "g_optimizer"), state(12, "x", "g_optimizer")]
    one = trained(tmp_path, "gan", (12, *gan))
    two = [(6, gan[0], state(6, "v", "g_optimizer")), (6, *gan)]
    result = ll.reconcile(one, trained(tmp_path, "again", *two, change=0.125))
    assert "in b, g_optimizer had made 6 updates" in result.divergence.evidence
    counted = [(6, state(0, ""), state(6, "")), (6, state(0, ""), state(6, ""))]
    one = trained(tmp_path, "on", (12, state(0, ""), state(12, "")), configuration=SCHEDULE)
    choices = {"configuration": SCHEDULE, "change": 0.125, "rate": 0.2}
    result = ll.reconcile(one, trained(tmp_path, "restarts", *counted, **choices))
    assert result.divergence.cause == "optimizer_state"
    assert "the learning rate is 0.1 in a, 0.2 in b: in b, the optimizer" in (
        result.divergence.evidence
    )
    close(causes(result), {("optimizer_state", "replayed"): 0.125})
