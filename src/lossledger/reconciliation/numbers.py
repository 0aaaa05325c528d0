"""Numbers that were shown or handed out, as a run keeps them."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from lossledger import conventions
from lossledger.call import Call, entries_of
from lossledger.entry import MEASURED
from lossledger.errors import LossLedgerError
from lossledger.reconciliation.fold import Fold
from lossledger.reconciliation.moves import Move, near, number
from lossledger.reconciliation.shown import Inside
from lossledger.reconciliation.spec import Spec
from lossledger.run import Run
from lossledger.shares import outputs
from lossledger.statistics import Mean, named

NEWEST = "3.15"
"""The convention taken for a run that doesn't say its Keras."""


def keras_of(run: Run) -> str:
    """The version of the Keras that reported."""
    return run.info.get("versions", {}).get("keras") or NEWEST


def is_shown(name: str, run: Run, call: Call) -> bool:
    """Whether it is the name of a loss of training that `fit` reports, and that entries have."""
    names = {str(i.get("name")) for i in call.reported if i.get("place") == "history"}
    return name in names and name in (call.loss_name, *outputs(run.path))


def history(run: Run, call: Call, spec: Spec, epoch: int) -> float:
    """What `fit` reported for an epoch."""
    name = call.loss_name if spec.loss == "loss" else spec.loss
    if spec.batch is not None:
        raise LossLedgerError(
            f"What fit reports, it reports for an epoch. Received: {spec.text}. Leave batch out, "
            "or take running_mean.",
            slug="not-reported",
        )
    return _item(run, call, "history", name, epoch)


def measured(
    run: Run, call: Call, name: str, epoch: int, ends: bool, which: int = -1
) -> tuple[float, Mapping[str, Any]]:
    """What was measured after the call or inside the epoch, or a validation loss.

    Args:
        run: The run.
        call: The call.
        name: The name of the number.
        epoch: Its epoch.
        ends: Whether that is the call's last, after which measurements are looked for first.
        which: Of several there; from the end where negative.

    Returns:
        The number, and what is on record of the data (`lossledger.keras.given`); `weights`, the
        fingerprint of the weights that were evaluated.
    """
    if name in MEASURED:
        after = any(i.get("place") == name and "batch" not in i for i in call.reported)
        item = _found(run, call, name, call.loss_name, None if ends and after else epoch, which)
        at = {"weights": item["weights"]} if item.get("weights") else {}
        return float(item["value"]), {**(item.get("data") or {}), **at}
    reported = {str(item.get("name")) for item in call.reported}
    if name not in reported:
        named(name, ("reported", "returned", *MEASURED, *sorted(reported)))
    return _item(run, call, None, name, epoch), call.info.get("validation") or {}


def inside(run: Run, call: Call, epoch: int) -> list[Inside]:
    """The evaluations inside an epoch of `fit`."""
    unreset = conventions.of("keras", keras_of(run), "returned").statistic == "cumulative_mean"
    methods = {"evaluate": ("evaluate", True), "tested": ("test_on_batch", not unreset)}
    found = [
        Inside(int(item["batch"]), float(item["value"]), *methods[item["place"]])
        for item in call.reported
        if item.get("place") in methods and item.get("epoch") == epoch and "batch" in item
    ]
    return sorted(found, key=lambda each: each.steps)


def never_reset(run: Run, call: Call, end: int, fold: Fold, value: float) -> Move | None:
    """How a metric that no epoch resets makes a number; `None` where it can't.

    As one of a model's own that its `metrics` don't list: `sum(w l) / sum(w)` over all steps since
    a `fit` of that model began.

    Args:
        run: The run.
        call: The call that reported.
        end: Steps of it up to the end of the epoch.
        fold: What the number should be.
        value: The number.
    """
    form, calls = fold.form, [c for c in run.calls if c.model == call.model and c.steps]
    calls = [each for each in calls if each.number <= call.number]
    if form.shape != "mean" or form.weight not in ("recorded", "one", call.weight_kind):
        return None
    left = {each.number: each.steps for each in calls} | {call.number: end}
    means = dict.fromkeys(left, Mean.empty())
    for each, block in entries_of(run.path, calls, ["loss", "weight"]):
        count = min(left[each.number], len(block["loss"]))
        left[each.number] -= count
        loss, weight = (block[name][:count].astype(np.float64) for name in ("loss", "weight"))
        mean = Mean.of(loss, None if form.weight == "one" else weight)
        means[each.number] = means[each.number].merge(mean)
    whole = Mean.empty()
    for mean in reversed(means.values()):
        whole = whole.merge(mean)
        if near(whole.result, value):
            told = (
                f"The metric was never reset: {number(value)} is the mean over {whole.count:,} "
                f"steps; over the epoch's {len(fold.ledger):,} it is {number(fold.value)}."
            )
            advice = "List the metric in the model's `metrics`: Keras resets these at each epoch."
            return Move("state_not_reset", fold.value - value, told, advice)
    return None


def _item(run: Run, call: Call, place: str | None, name: str, epoch: int | None) -> float:
    return float(_found(run, call, place, name, epoch)["value"])


def _found(
    run: Run, call: Call, place: str | None, name: str, epoch: int | None, which: int = -1
) -> Mapping[str, Any]:
    found = [
        item
        for item in call.reported
        if item.get("place") == (place or item.get("place"))
        and item.get("name") == name
        and (item.get("epoch") == epoch or (epoch is None and "batch" not in item))
    ]
    if not -len(found) <= which < len(found):
        what = f"{name} of {place or 'validation'}" + ("" if epoch is None else f", epoch {epoch}")
        what += f", n={which} of {len(found)}" if found else ""
        raise LossLedgerError(
            f"Nothing like that was reported. Received: {what}, in call {call.number} of "
            f"{run.path}. `lossledger show` says what was.",
            slug="not-reported",
        )
    return found[which]
