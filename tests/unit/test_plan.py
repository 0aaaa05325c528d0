"""The plan: which form is tried and kept, from times that are made up."""

import pytest

from lossledger import LossLedgerError
from lossledger.loop.plan import Plan, Planner, wanted


def train(planner: Planner, steps: int, cost: dict[str, tuple[float, float, float]]) -> list[str]:
    """Let `planner` lead a training; returns the forms of its calls.

    Args:
        planner: The planner.
        steps: How many steps there are to train.
        cost: Seconds of a form's first call, of any call, and of a step.
    """
    calls: list[str] = []
    left = steps
    while left > 0:
        form = planner.choose(left)
        count = min(planner.steps(form), left)
        first, call, step = cost[form]
        timed = planner.timing(form)
        seconds = call + count * step + (0 if form in calls else first)
        if timed:
            planner.took(form, count, seconds)
        calls.append(form)
        left -= count
    return calls


def test_the_likeliest_form_stays_where_a_trial_of_another_would_not_pay() -> None:
    planner = Planner(("loop", "step"), 1e-4, {"step": 2e-4})
    calls = train(planner, 1000, {"loop": (0.4, 1e-4, 5e-6), "step": (0.4, 1e-4, 5e-6)})
    assert set(calls) == {"loop"}
    assert planner.plan.form == "loop"
    assert planner.plan.seconds["loop"] < 1e-5 * 1.5


def test_a_slow_loop_is_left_for_single_calls() -> None:
    planner = Planner(("loop", "step"), 1e-4, {"step": 2e-4})
    calls = train(planner, 5000, {"loop": (1.0, 1e-4, 28e-3), "step": (1.0, 1e-4, 5e-3)})
    assert calls[0] == "loop"
    assert planner.plan.form == "step"
    assert calls.count("loop") == 2


def test_single_calls_of_a_slow_step_are_not_left_to_save_what_a_call_costs() -> None:
    planner = Planner(("step", "loop"), 1e-4, {"step": 2e-4})
    assert set(train(planner, 5000, {"step": (1.0, 1e-4, 5e-3)})) == {"step"}


@pytest.mark.parametrize(("steps", "settled"), [(500, "loop"), (100_000, "xla")])
def test_another_compilation_has_to_pay(steps: int, settled: str) -> None:
    planner = Planner(("loop", "xla"), 5e-4, {"loop": 5e-5})
    train(planner, steps, {"loop": (0.1, 5e-4, 86e-6), "xla": (0.5, 4e-4, 7e-6)})
    assert planner.plan.form == settled


@pytest.mark.parametrize("pauses", [(0.1,), (5e-3,) * 4, (0.02, 5e-3)])
def test_pauses_do_not_rule_a_form_out(pauses: tuple[float, ...]) -> None:
    planner = Planner(("loop", "xla"), 5e-4, {"loop": 5e-5})
    planner.took("loop", 1, 0.1)
    while planner.timing("loop"):
        steps = planner.steps("loop")
        planner.took("loop", steps, steps * 86e-6 + 5e-4)
    planner.took("xla", 1, 0.5)
    for pause in pauses:  # in which another thread, or another process, ran
        if planner.choose(100_000) == "xla":
            steps = planner.steps("xla")
            planner.took("xla", steps, steps * 7e-6 + 4e-4 + pause)
    train(planner, 100_000, {"loop": (0, 5e-4, 86e-6), "xla": (0, 4e-4, 7e-6)})
    assert planner.plan.form == "xla"


def test_every_step_is_trained_once_whatever_is_tried() -> None:
    planner = Planner(("loop", "xla"), 5e-4, {})
    counted = 0
    while counted < 1000:
        form = planner.choose(1000 - counted)
        count = min(planner.steps(form), 1000 - counted)
        assert count > 0
        planner.took(form, count, 1.0)
        counted += count
    assert counted == 1000


def test_calls_are_short_enough_to_be_interrupted() -> None:
    planner = Planner(("loop",), 1e-4, {})
    planner.took("loop", 1, 1.0)
    planner.took("loop", 8, 0.8)
    assert planner.steps("loop") == 2
    planner = Planner(("loop",), 1e-4, {})
    planner.took("loop", 1, 1.0)
    planner.took("loop", 8, 80.0)
    assert planner.steps("loop") == 1


def test_a_form_that_is_asked_for_is_kept() -> None:
    planner = Planner(("loop", "step"), 1e-4, {}, "step")
    assert set(train(planner, 5000, {"step": (1.0, 1e-4, 1.0)})) == {"step"}
    assert planner.plan.form == "step"


def test_a_form_that_there_is_not_leaves_the_choice() -> None:
    assert Planner(("eager",), 1e-4, {}, "xla").choose(10) == "eager"


def test_a_plan_says_what_each_form_took() -> None:
    plan = Plan("loop", {"loop": 6.6e-6}, {"loop": 0.3}, ("loop", "step"))
    assert str(plan).splitlines() == [
        "plan loop: many steps in one call: a loop on the device",
        "  loop   6.6 us a step, first call 0.30 s",
        "  step   not tried",
    ]


def test_what_plan_may_be() -> None:
    assert wanted("auto") == "auto"
    assert wanted(Plan("step")) == "step"
    with pytest.raises(LossLedgerError, match="Received: 'fast'") as caught:
        wanted("fast")
    assert caught.value.slug == "unknown-plan"
