"""Two numbers that were measured: the one difference between them, where there is only one."""

from lossledger.entry import OF_EPOCHS
from lossledger.reconciliation.measured_rows import ADVICE, ELSEWHERE, Rows, between, elsewhere
from lossledger.reconciliation.moves import near, number, signed
from lossledger.reconciliation.pair import Pair
from lossledger.reconciliation.rest import advice_on, causes_of, sole_cause
from lossledger.reconciliation.result import Cause, Divergence, gap_of
from lossledger.reconciliation.weights import stood_still

_ADVICE = {
    **dict.fromkeys(("unseen_rows", "data"), "Measure both on the same rows."),
    "sample_weight": "Measure both with the same sample weights, or without any.",
}
_FINALIZE = (
    "After the last step, call model.optimizer.finalize_variable_values(model.trainable_variables)."
)
_SWAP = "Validate the averages, too: keras.callbacks.SwapEMAWeights(swap_on_epoch=True)."
_OTHERS = "the evaluated weights are not the same"


def both(pair: Pair, parted: Divergence | None) -> tuple[list[Cause], str]:
    """Two measured numbers: of one difference, where there is only one."""
    a, b = pair.a.side.value, pair.b.side.value
    left = gap_of(a, b)
    if left == 0:
        return [], "No gap."
    if near(a, b):
        return [], "The numbers are equal up to float32 rounding."
    rows = between(pair.a, pair.b)
    others = parted is None and _other_weights(pair)
    cause = None
    if parted is None and not others:
        cause = _of_measuring(pair, rows, left)
    cause = cause or _of_one_call(pair, rows, left, others=bool(others))
    if cause is not None:
        return [cause], f"One cause: {cause.cause}, {signed(left)}."
    if pair.goes_on:
        return [], f"{signed(left)} is unexplained: {pair.goes_on} was trained on from there."
    if others:
        return [], f"{signed(left)} is unexplained: {others}."
    if parted is None:
        found = {*pair.factors, *rows.causes}
        found |= {"unseen_rows"} if pair.measuring else set[str]()
        names = ", ".join(sorted(found | ({"convention"} if _other_steps(pair) else set[str]())))
        same = _same(pair).replace("The", "the", 1)
        told = f"they differ in {names}" if names else f"{same}, as far as recorded"
        return [], f"{signed(left)} is unexplained: {told}."
    cause = sole_cause(pair, parted)
    if cause is not None and not pair.measuring and not rows.causes:
        evidence = f"{parted.evidence} Nothing else that is recorded differs."
        return [Cause(cause, left, "replayed", None, evidence, advice_on(cause))], (
            f"All of the gap is {cause}."
        )
    names = ", ".join(sorted({*causes_of(pair, parted), *rows.causes}))
    return [], f"{signed(left)} is unexplained: the trainings differ in {names}."


def _other_weights(pair: Pair) -> str:
    """In words, that other weights were evaluated than it seems; "" where nothing says so."""
    if any(elsewhere(each, each) for each in (pair.a, pair.b)):
        return ELSEWHERE
    if not (pair.same_call or pair.a.call.measures or pair.b.call.measures):
        return ""  # where trainings ended, which agree
    weights = [each.data.get("weights") for each in (pair.a, pair.b)]
    return _OTHERS if None not in weights and weights[0] != weights[1] else ""


def _of_one_call(pair: Pair, rows: Rows, left: float, *, others: bool) -> Cause | None:
    """Two places of one call: another epoch, or weights that were moved between evaluations."""
    if not pair.same_call:
        return None
    if pair.a.epoch != pair.b.epoch and not rows.causes:
        told = f"Epoch {pair.a.epoch} against epoch {pair.b.epoch} of one call."
        return Cause("convention", left, "measured", None, told, "Compare the same epoch.")
    if not rows.causes and (told := _set_after(pair)):
        return Cause("convention", left, "measured", None, told, "Evaluate the same weights.")
    if not rows.causes and (told := _averaged_after(pair)):
        return Cause("moving_weights", left, "measured", None, told, _SWAP)
    if others and not rows.causes:
        told = "Two evaluations, between which the model's weights were moved."
        return Cause("convention", left, "measured", None, told, "Evaluate the same weights.")
    return None


def _set_after(pair: Pair) -> str:
    """How an evaluation is of other weights than the last validation; "" where it may be of them.

    As where `restore_best_weights` sets those of an earlier epoch when `fit` ends.
    """
    call = pair.a.call
    at = [each.side.epoch for each in (pair.a, pair.b)]
    if at.count(None) != 1 or call.steps not in call.loads:
        return ""
    validated, evaluated = (pair.a, pair.b) if at[1] is None else (pair.b, pair.a)
    name, value = validated.side.statistic, evaluated.side.value
    told = (
        f"The program set the weights after the last step, as restore_best_weights does, so "
        f"those that were evaluated are not those of {name} in epoch {validated.side.epoch}"
    )
    same = [
        f"; in epoch {item['epoch']} {name} was {number(value)}, too"
        for item in call.reported
        if item.get("name") == name and near(float(item["value"]), value)
    ]
    return f"{told}{same[0] if same else ''}."


def _averaged_after(pair: Pair) -> str:
    """How `fit` put the optimizer's averages in between a validation and an evaluation."""
    call, at = pair.a.call, [each.side.epoch for each in (pair.a, pair.b)]
    optimizer = call.configuration.get("optimizer") or {}
    if at.count(None) != 1 or call.driver not in OF_EPOCHS or not optimizer.get("use_ema"):
        return ""
    validated = pair.a if at[1] is None else pair.b
    return (
        f"When {call.driver} ended, it put the optimizer's averages of the weights in "
        f"(use_ema=True): {validated.side.statistic} is of the weights before."
    )


def _other_steps(pair: Pair) -> str:
    """How two numbers are of two places of the same training; "" if they are of one."""
    sides = {"a": pair.a, "b": pair.b}
    if len({(each.steps, each.epoch) for each in sides.values()}) < 2 or _nothing_trained(pair):
        return ""
    if all(stood_still(call) for each in sides.values() for call in each.calls):
        return ""
    places = [
        f"{name}'s is after " + (f"{each.steps:,} steps" if at is None else f"epoch {at}")
        for name, each in sides.items()
        for at in [each.side.epoch]
    ]
    return f"The trainings agree as far as both go; {', '.join(places)}."


def _restored(pair: Pair) -> str:
    """How one side's program alone set weights after its last step; "" if not."""
    sides = {"a": pair.a, "b": pair.b}
    if pair.same_call or any(each.side.epoch is not None for each in sides.values()):
        return ""
    sets = [name for name, each in sides.items() if each.call.steps in each.call.loads]
    if len(sets) != 1:
        return ""
    return (
        f"All steps of both trainings agree. {sets[0]}'s program set the weights after the last "
        "step, as restore_best_weights does, and the other's did not."
    )


def _averaged(pair: Pair) -> str:
    """How one side alone put the optimizer's averages in when its training ended; "" if not."""
    calls = [each.call for each in (pair.a, pair.b)]
    optimizers = [call.configuration.get("optimizer") or {} for call in calls]
    ends = [call.driver in OF_EPOCHS for call in calls]
    if ends[0] == ends[1] or not all(each.get("use_ema") for each in optimizers):
        return ""
    does, not_ = calls if ends[0] else calls[::-1]
    return (
        f"All steps of both trainings agree. When {does.driver} ended, it put the optimizer's "
        f"averages of the weights in (use_ema=True), as {not_.driver} does not."
    )


def _nothing_trained(pair: Pair) -> bool:
    return any(each.call.measures for each in (pair.a, pair.b))


def _same(pair: Pair) -> str:
    """What two measurements have in common, in words."""
    return "The model is the same" if _nothing_trained(pair) else "The trainings are the same"


def _of_measuring(pair: Pair, rows: Rows, left: float) -> Cause | None:
    """The one thing on record in which two measurements of one training differ."""
    if places := _other_steps(pair):
        if pair.factors or pair.measuring or rows.causes:
            return None
        return Cause("convention", left, "measured", None, places, "Compare the same epoch.")
    if len(rows.causes) == 1 and set(pair.factors) <= {*rows.causes, "data"}:
        slug = next(iter(rows.causes))
        evidence = f"{_same(pair)}, but {rows.told}."
        return Cause(slug, left, "measured", None, evidence, _ADVICE.get(slug, ADVICE[slug]))
    counts = [each.data.get("rows") for each in (pair.a, pair.b)]
    if pair.measuring and not pair.factors and (None in counts or counts[0] != counts[1]):
        evidence = f"{', '.join(pair.measuring)} differ, and the trainings don't."
        advice = "Measure both on the same rows: leave validation_steps out."
        return Cause("unseen_rows", left, "measured", None, evidence, advice)
    if told := _averaged(pair):
        return Cause("driver", left, "measured", None, told, _FINALIZE)
    if told := _restored(pair):
        return Cause("convention", left, "measured", None, told, "Evaluate the same weights.")
    acts = set(pair.factors) - {"order", "unseen_rows", "double_count", "data"}  # none did
    if len(acts) == 1 and not pair.measuring and not rows.causes:
        slug = acts.pop()
        names = ", ".join(pair.factors[slug])
        agree = "" if _nothing_trained(pair) else "All steps of both trainings agree. "
        evidence = f"{agree}What differs, {names}, acts on what is measured alone."
        return Cause(slug, left, "replayed", None, evidence, advice_on(slug))
    return None
