"""What two trainings part on: the first step that differs, and what differed there."""

import math
import re
from collections.abc import Sequence

import numpy as np

from lossledger.entry import OF_EPOCHS
from lossledger.reconciliation.align import Ids, order, same_rows
from lossledger.reconciliation.data import first_epochs, leaves_out, shuffles, trains_on_all
from lossledger.reconciliation.moves import SAME, near, number
from lossledger.reconciliation.optimizers import counts, other_state
from lossledger.reconciliation.pair import Pair
from lossledger.reconciliation.parting import Parting, epoch_column, last_unequal, parting
from lossledger.reconciliation.result import Divergence
from lossledger.words import counted

UNKNOWN = "unexplained"
"""What trainings part on where nothing that is recorded tells."""

# Of what may differ, that which a first step's loss shows, in the order of asking.
_COMPUTING = ("precision", "compilation", "backend", "keras_version")
_WEIGHTING = ("sample_weight", "class_weight", "mask", "loss_weights", "reduction", "penalty")
_AT_ONCE = (*_WEIGHTING, "data", "randomness", *_COMPUTING)
_LATER = ("hyperparameters", *_WEIGHTING, "randomness", *_COMPUTING)

_ORDERS = {
    "shifted": "the same batches, begun at another place",
    "permuted": "the same batches in another order",
    "rebatched": "the same rows in other batches",
}


def divergence(pair: Pair) -> Divergence | None:
    """Names the first step at which the two trainings are not the same, and why.

    Other initial weights come before any step. At a step with other rows it is the batch; on the
    same batch an other loss is of the weights, which the step before moved otherwise, or, in the
    first step from the same weights, of how the loss is reckoned.
    """
    if pair.same_call:
        return None
    names = pair.a.names[0], pair.b.names[0]
    if all(names) and not pair.same_start and pair.begins is None:
        return Divergence(None, None, None, "initial_weights", _began(pair))
    whole = not (pair.a.part or pair.b.part)
    trainings = pair.a.training, pair.b.training
    starts = pair.begins and (
        pair.begins[1],
        pair.begins[0],
    )  # the steps of each before the other began
    found = parting(*trainings, whole=whole, ids=pair.same_form, starts=starts)
    if found is None:
        return None
    cause, evidence = _why(pair, found)
    batch = int(found.a["batch"]) if pair.a.call.driver in OF_EPOCHS else None
    evidence = f"{_agreed(found)}{evidence}"
    bad = [(n, at["loss"]) for n, at in zip("ab", (found.a, found.b), strict=True)]
    bad = [(name, loss) for name, loss in bad if not math.isfinite(loss)]
    if len(bad) == 1:
        evidence += f" There {bad[0][0]}'s loss is {bad[0][1]}."
    if pair.begins:
        evidence = f"{pair.begun}. {evidence}"
    return Divergence(_place(pair, found), int(found.a["epoch"]), batch, cause, evidence)


def _began(pair: Pair) -> str:
    if pair.goes_on:
        return f"{pair.goes_on} goes on from the weights that the other ended with."
    names = pair.a.names[0][:8], pair.b.names[0][:8]
    return f"The initial weights differ: fingerprints {names[0]} and {names[1]}."


def _agreed(found: Parting) -> str:
    if not found.step:
        return "In the first step "
    bits = f" ({found.before:,} of them but for float32 rounding)" if found.before else ""
    first = "The first step agrees" if found.step == 1 else f"The first {found.step:,} steps agree"
    return f"{first}{bits}, then "


def _why(pair: Pair, found: Parting) -> tuple[str, str]:
    if found.what == "epoch":
        return _lengths(pair, found)
    if found.what in ("batch", "rows"):
        return _batches(pair, found)
    if found.what == "learning_rate":
        rates = (number(found.a["learning_rate"]), number(found.b["learning_rate"]))
        told = f"the learning rate is {rates[0]} in a, {rates[1]} in b"
        state = other_state(pair, _place(pair, found) + 1) if counts(pair) else ""
        if state and "hyperparameters" not in pair.factors:
            return "optimizer_state", f"{told}: {state}."
        return "hyperparameters", f"{told}."
    if found.what == "updated":
        moved = ["moves" if each["updated"] else "doesn't move" for each in (found.a, found.b)]
        return "hyperparameters", f"the step {moved[0]} the weights in a, {moved[1]} in b."
    return _losses(pair, found)


def _place(pair: Pair, found: Parting) -> int:
    """Steps before it of the longer training, where the one began within the other."""
    return found.step + max(pair.begins or (0,))


def _lengths(pair: Pair, found: Parting) -> tuple[str, str]:
    longer, rows = ("a", found.a) if found.longer == "a" else ("b", found.b)
    told = f"{longer}'s epoch goes on with a batch of {counted(rows['rows'], 'row')}, where the "
    told += "other's ends"
    ids = _ids(pair, found)
    if order(*ids) == "repeated":
        return "double_count", f"{told}, and trains again on batches that it has had."
    return "unseen_rows", f"{told}."


def _ids(pair: Pair, found: Parting) -> list[Ids]:
    """The batches of the epochs that the step is of; 0 where they can't be compared."""
    sides = ((pair.a, found.a), (pair.b, found.b))
    return [
        epoch_column(e.run, e.calls, at, "batch_id") * np.uint64(pair.same_form) for e, at in sides
    ]


def _batches(pair: Pair, found: Parting) -> tuple[str, str]:
    ids = _ids(pair, found)
    how = order(*ids)
    if found.a["rows"] != found.b["rows"]:
        return _sizes(pair, found, ids, how)
    told = f"the batches differ: {int(found.a['batch_id']):016x} and "
    told += f"{int(found.b['batch_id']):016x}"
    if how in _ORDERS:
        return "order", f"{told}; over the epoch, {_ORDERS[how]}{_drawn(pair)}."
    if how == "truncated":
        return "unseen_rows", f"{told}; the one epoch has all batches of the other, and more."
    if how == "repeated":
        return "double_count", f"{told}; the one epoch trains again on batches of the other."
    others = how == "other" and _of_other_rows(pair, found)
    if pair.any_shuffled and pair.same_data is not False and not others:
        return "order", f"{told}; {_shuffled(pair)}, and the epochs don't hold the same ones."
    if pair.cut_short:
        ends = "steps_per_epoch ends both epochs, elsewhere in the same data"
        return "unseen_rows", f"{told}; {ends}."
    for name, reading in (("a", pair.a), ("b", pair.b)):
        if leaves_out(reading.call):
            return "unseen_rows", f"{told}; {name}'s data set takes a part of another one's rows."
    if pair.without_remainder:
        may = "other rows, or another order in which a remainder is dropped"
        return "data", f"{told}; the epoch's sums of fingerprints differ: {may}."
    return "data", f"{told}; the epoch's sums of fingerprints differ: they are other rows."


def _sizes(pair: Pair, found: Parting, ids: Sequence[Ids], how: str) -> tuple[str, str]:
    """Of batches that have not as many rows."""
    rows = [int(each["rows"]) for each in (found.a, found.b)]
    told = f"a trains on {counted(rows[0], 'row')}, b on {rows[1]:,}"
    for one, other in ((found.a, found.b), (found.b, found.a)):
        if math.isclose(one.get("sample_weight", math.nan), other["rows"], rel_tol=SAME):
            return "sample_weight", f"{told}, as many as the weights of the other's add to."
    if how in ("permuted", "shifted"):
        return "order", f"{told}; over the epoch, {_ORDERS[how]}{_drawn(pair)}."
    if how == "repeated":
        return "double_count", f"{told}: the one epoch trains again on batches of the other."
    if pair.wraps:
        return "double_count", f"{told}: {pair.wraps} trains on past the end of its data."
    if how == "rebatched":
        return "hyperparameters", f"{told}: {_ORDERS['rebatched']}."
    unknown = how == "unknown"
    if _cut_otherwise(*ids) or (unknown and _of_other_size(pair)):
        also = "" if unknown else ", and the epochs don't hold the same rows, either"
        return "hyperparameters", f"{told}: batches of another size{also}."
    return "unseen_rows", f"{told}: the epochs don't hold the same rows."


def _of_other_rows(pair: Pair, found: Parting) -> bool:
    """Whether as many rows, whose sums differ, are others in whatever order.

    They are where one side trains on all of its data, as its array tells, or a second epoch that
    holds the same rows as the first.
    """
    sides = ((pair.a, found.a), (pair.b, found.b))
    rows = [int(epoch_column(e.run, e.calls, at, "rows").sum()) for e, at in sides]
    return rows[0] == rows[1] and any(
        trains_on_all(each.call, rows[0]) or same_rows(*first_epochs(each))
        for each in (pair.a, pair.b)
    )


def _shuffled(pair: Pair) -> str:
    """Who draws the order at random, in words."""
    named = [(n, e.call) for n, e in (("a", pair.a), ("b", pair.b)) if shuffles(e.call)]
    sets = all(" of " in str(call.arguments.get("x")) for _, call in named)
    return f"{named[0][0]}'s data set shuffles the rows" if sets else "fit shuffles the rows"


def _drawn(pair: Pair) -> str:
    return " (drawn at random on both sides)" if pair.shuffled else ""


def _cut_otherwise(a: Ids, b: Ids) -> bool:
    """Whether the first batches that differ are the last of neither epoch, so no remainders."""
    short = min(len(a), len(b))
    if not a.all() or not b.all() or np.array_equal(a[:short], b[:short]):
        return False
    return int(np.argmax(a[:short] != b[:short])) < short - 1


def _of_other_size(pair: Pair) -> bool:
    """Whether the epochs' first batches have other sizes, which no remainder has."""
    rows = [each.fold.ledger["rows"][:2] for each in (pair.a, pair.b) if each.fold]
    first = len(rows) == 2 and all(len(each) > 1 for each in rows) and rows[0][0] != rows[1][0]
    return first or "hyperparameters" in pair.factors


def _unequal(pair: Pair, steps: int) -> str:
    """What replicas with unequal shares of a batch do to an update; "" where all were equal.

    A replica's gradient is its share's mean, and the update their plain mean (1/R each), which is
    the batch's only where all shares have as many rows.
    """
    for each, name in ((pair.a, "a"), (pair.b, "b")):
        found = last_unequal(each.run, each.calls, steps)
        if found is not None:
            before, rows = found
            return (
                f"{counted(steps - before, 'update')} after a batch that {name}'s replicas shared "
                f"as {' + '.join(map(str, rows))} rows: their gradients were averaged as equals "
                f"(1/{len(rows)} each), not by rows."
            )
    return ""


def _weighed(found: Parting) -> str | None:
    """What of the same batch was weighed otherwise, as sums of its weights and targets show."""
    for column, cause in (("sample_weight", "sample_weight"), ("elements", "mask")):
        sums = [float(each.get(column, math.nan)) for each in (found.a, found.b)]
        if column == "sample_weight" and not all(map(math.isnan, sums)):  # of none, each row is 1
            sides = zip(sums, (found.a, found.b), strict=True)
            sums = [float(each["rows"]) if math.isnan(total) else total for total, each in sides]
        if all(map(math.isfinite, sums)) and not math.isclose(*sums, rel_tol=SAME):
            return cause
    return None


def _losses(pair: Pair, found: Parting) -> tuple[str, str]:
    losses = [float(each["loss"]) for each in (found.a, found.b)]
    known = all(each["batch_id"] for each in (found.a, found.b))
    told = f"the loss is {number(losses[0])} in a, {number(losses[1])} in b"
    told = f"on the same batch {told}" if known else f"{told}, of batches not both on record"
    seen = _seen_in_step(pair, found, losses)
    if seen is not None:
        return seen[0], f"{told}{seen[1]}"
    first = found.step == 0 and pair.same_start
    cause = _differing(pair, found, _AT_ONCE if first else _LATER)
    if cause is None:
        state = other_state(pair, _place(pair, found))
        if state:
            return "optimizer_state", f"{told}, after an update that was not the same: {state}."
        cause = _otherwise(pair)
    if cause == "randomness" and cause not in pair.factors:
        return cause, f"{told}: layers draw random numbers, and drew others."
    names = ", ".join(pair.factors.get(cause, []))
    names = names or ("nothing that is recorded" if cause == UNKNOWN else cause)
    when = "after an update that was not the same" if found.step else "of weights not on record"
    when = "from the same weights" if first else when
    return cause, f"{told}, {when}; what differs: {names}.{_broadcasts(pair)}"


def _differing(pair: Pair, found: Parting, causes: Sequence[str]) -> str | None:
    """What two losses of one batch differ by: of some causes the first on record, or weights."""
    return next((each for each in causes if each in pair.factors), None) or _weighed(found)


def _otherwise(pair: Pair) -> str:
    """What they differ by where that doesn't tell, nor the optimizers' state."""
    names = " ".join(pair.factors.get("hyperparameters", []))
    if re.search("layers|loss", names):
        return "hyperparameters"  # an activation, say, or another loss, which act at once
    if pair.noisy:
        return "randomness"
    other = pair.same_start and pair.a.call.driver != pair.b.call.driver
    return "driver" if other else UNKNOWN


def _seen_in_step(pair: Pair, found: Parting, losses: Sequence[float]) -> tuple[str, str] | None:
    """What the step itself shows to be another: its scale, its penalty, weights, its shares."""
    scales = [each.fold.ledger.scale for each in (pair.a, pair.b) if each.fold]
    if len(set(scales)) > 1 and near(losses[0] / scales[0], losses[1] / scales[1]):
        times = f"{scales[0]:.6g} times and {scales[1]:.6g} times"
        return "accumulation_scaling", f": of the same data term, {times}."
    known = [
        each["penalty"] if side.fold and side.fold.ledger.has("penalty") else 0.0
        for side, each in ((pair.a, found.a), (pair.b, found.b))
    ]
    data = [loss - each for loss, each in zip(losses, known, strict=True)]
    if abs(data[0] - data[1]) <= SAME * max(map(abs, losses)) and any(known):
        return "penalty", ", and the data terms are equal: the penalty differs."
    loaded = _loaded(pair, _place(pair, found))
    if len(loaded) == 1:
        return "initial_weights", f": {loaded[0]}'s program had set the model's weights."
    shared = _unequal(pair, found.step) if "replica_scaling" in pair.factors else ""
    return ("replica_scaling", f", {shared}") if shared else None


def _loaded(pair: Pair, place: int) -> list[str]:
    """The sides whose programs set the weights right before a step of the longer training."""
    found: list[str] = []
    for name, reading, step in zip("ab", (pair.a, pair.b), pair.begins or (0, 0), strict=True):
        for call in reading.calls:
            found += [name] if place - step in call.loads else []
            step += call.steps
    return found


def _broadcasts(pair: Pair) -> str:
    """Targets of shape (n,) beside such of (n, 1), which a loss of the user's may not align."""
    shapes = [y.get("shape") for y in pair.targets]
    known = [shape for shape in shapes if shape]
    if len(known) < 2 or len(known[0]) == len(known[1]):
        return ""
    return (
        f" The targets have shapes {known[0]} and {known[1]}: a loss that doesn't bring targets "
        "and predictions to one shape broadcasts them, each row against all."
    )
