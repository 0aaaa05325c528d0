"""The chain from a to b: one change at a time, each priced by the fold before and after it."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from lossledger.floats import gap_of, same
from lossledger.reconciliation.causes_held import other_rows, weighted_rows
from lossledger.reconciliation.causes_loss import loss_weights, nonfinite, penalty
from lossledger.reconciliation.causes_rows import double_count, hidden_steps, unseen_rows
from lossledger.reconciliation.causes_scale import reduction, scaling
from lossledger.reconciliation.causes_statistic import convention, state_not_reset, weighting
from lossledger.reconciliation.causes_weights import weights_for_rows, zeros
from lossledger.reconciliation.fold import Fold
from lossledger.reconciliation.moves import Change, is_rounding
from lossledger.reconciliation.pair import Pair
from lossledger.reconciliation.result import Cause, total
from lossledger.reconciliation.slugs import SLUGS

_CLOSED = 3e-7
"""A gap, relatively to its numbers, that is float32 rounding of theirs."""

STAGES: Sequence[Callable[[Fold, Fold, Pair], Change | None]] = (
    # First, though not in the table: no difference of what is not finite says anything.
    nonfinite,
    convention,
    state_not_reset,
    weighting,
    weights_for_rows,
    unseen_rows,
    double_count,
    hidden_steps,
    penalty,
    loss_weights,
    # Scales are functions of one side's entries; what then differs at the same weights is not.
    reduction,
    scaling,
    zeros,
    weighted_rows,
    other_rows,
)
"""The exact causes, in the order in which they are taken."""


@dataclass(frozen=True)
class Chain:
    """What the exact causes make of two folds.

    Args:
        causes: One each, amounts as they add to `b - a`; none that is rounding.
        a: What is left of the first fold.
        b: What is left of the second: the same fold, of entries that may differ.
    """

    causes: tuple[Cause, ...]
    a: Fold
    b: Fold

    @property
    def left(self) -> float:
        """What they don't explain."""
        return gap_of(self.a.value, self.b.value)


def chain(a: Fold, b: Fold, pair: Pair) -> Chain:
    """Takes the exact causes out, one after another.

    Nothing is taken from two numbers that are not finite and the same, nor from folds that have
    no finite loss.
    """
    found: list[Cause] = []
    if same(a.value, b.value) and not math.isfinite(a.value):
        return Chain((), a, a)
    if {a.form.shape, b.form.shape} == {"cumulative"} and pair.a.epoch == pair.b.epoch:
        a, b = a.whole, b.whole  # what tells them apart may lie in an epoch before
    for stage in STAGES:
        step = stage(a, b, pair)
        if step is None:
            continue
        if not _finite(step.a, step.b):
            if _finite(a, b):
                continue  # a fold of nothing prices nothing
            step = replace(step, b=step.a)  # no finite loss: all of the gap is that
        whole = gap_of(a.value, b.value)
        amount = total((gap_of(a.value, step.a.value), gap_of(step.b.value, b.value)))
        if not math.isfinite(whole):
            amount = whole  # no finite part of it tells anything
        if not is_rounding(amount, a.value, b.value):
            found.append(Cause(step.cause, amount, step.kind, None, step.evidence, step.advice))
        a, b = step.a, step.b
        if not (_finite(a, b) and math.isfinite(whole)):
            break
        if found and abs(b.value - a.value) <= _CLOSED * max(abs(a.value), abs(b.value)):
            break  # what comes after would only cancel
    return Chain(tuple(found), a, b)


def _finite(a: Fold, b: Fold) -> bool:
    return math.isfinite(a.value) and math.isfinite(b.value)


def merged(causes: Iterable[Cause]) -> tuple[Cause, ...]:
    """One cause of each name and kind, in the order of the table; amounts added."""
    groups: dict[tuple[str, str], list[Cause]] = {}
    for cause in causes:
        groups.setdefault((cause.cause, cause.kind), []).append(cause)
    ranks = {name: place for place, name in enumerate(SLUGS)}
    found: list[Cause] = []
    for (slug, _), group in sorted(groups.items(), key=lambda item: ranks[item[0][0]]):
        first = group[0]
        evidence = " ".join(dict.fromkeys(each.evidence for each in group))
        amount = total(each.amount for each in group)
        if amount == 0 and all(map(math.isfinite, (each.amount for each in group))):
            continue
        found.append(Cause(slug, amount, first.kind, first.noise, evidence, first.advice))
    return tuple(found)
