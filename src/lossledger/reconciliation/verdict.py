"""The answer in a sentence."""

import math
from collections.abc import Sequence

from lossledger.reconciliation.chain import Chain
from lossledger.reconciliation.divergence import UNKNOWN
from lossledger.reconciliation.moves import SAME, signed
from lossledger.reconciliation.pair import Pair
from lossledger.reconciliation.reading import Reading
from lossledger.reconciliation.rest import by_chance, causes_of
from lossledger.reconciliation.result import Cause, Divergence, gap_of, remainder
from lossledger.reconciliation.shown import DIFFERS
from lossledger.words import counted

SAID = 3
"""Causes that a sentence names."""
_ASIDE = 1e-6
"""Of the largest amount; a sentence names no cause that is less."""
MORE = "Only training again, with one thing swapped at a time, can price them."


def verdict(
    pair: Pair, causes: Sequence[Cause], chain: Chain | None, parted: Divergence | None
) -> str:
    """Says what the gap is, in a sentence or two.

    Args:
        pair: The two numbers.
        causes: All that were named.
        chain: The exact ones, where both numbers are folds.
        parted: Where the trainings part.
    """
    gap = gap_of(pair.a.side.value, pair.b.side.value)
    left = remainder(gap, [cause.amount for cause in causes])
    size = max(abs(pair.a.side.value), abs(pair.b.side.value))
    if gap == 0 and not causes:
        return f"No gap. {_alike(pair, chain, parted)}"
    if abs(left) > SAME * size:
        return f"{named(causes, all_of_it=False)} {_unexplained(pair, left, parted)}".strip()
    if not causes:
        return _only_rounding(pair, parted)
    return named(causes)


def named(causes: Sequence[Cause], *, all_of_it: bool = True) -> str:
    """The causes, the largest first, without those that are rounding beside it.

    Args:
        causes: The causes.
        all_of_it: Whether they are the whole gap.
    """
    if not causes:
        return ""
    ordered = sorted(causes, key=lambda cause: -abs(cause.amount))
    largest = max((abs(e.amount) for e in causes if math.isfinite(e.amount)), default=0.0)
    ordered = [cause for cause in ordered if not abs(cause.amount) < _ASIDE * largest]
    if len(ordered) == 1 and all_of_it:
        return f"All of the gap is {ordered[0].cause}."
    names = [cause.cause for cause in ordered]
    told = [
        f"{e.cause} {signed(e.amount)}" + (f" ({e.kind})" if names.count(e.cause) > 1 else "")
        for e in ordered[:SAID]
    ]
    told += [counted(len(ordered) - SAID, "smaller cause")] if len(ordered) > SAID else []
    head, last = told[:-1], told[-1]
    return f"The gap is {', '.join(head)}{' and ' if head else ''}{last}."


def _alike(pair: Pair, chain: Chain | None, parted: Divergence | None) -> str:
    if pair.same_entries:
        return "Both numbers are made of the same entries."
    if parted is None and chain is not None and not pair.same_call:
        steps = counted(len(chain.a.ledger), "step")
        if pair.begins:
            return f"The two are one training: {pair.begun}, and all {steps} of the epoch agree."
        return f"The two are identical: all {steps} of the epoch, and all before it, agree."
    return "The numbers are equal, though the trainings are not the same."


def _trained_others(reading: Reading) -> bool:
    """Whether its run trained another model before, as a GAN's discriminator."""
    first = reading.calls[0]
    before = [call for call in reading.run.calls if call.number < first.number and call.steps]
    return any(call.model != first.model for call in before)


def _only_rounding(pair: Pair, parted: Divergence | None) -> str:
    if parted is None:
        return "The trainings agree in every step; float32 rounding is all that tells them apart."
    return "The numbers are equal up to float32 rounding."


def _unexplained(pair: Pair, left: float, parted: Divergence | None) -> str:
    head = f"{signed(left)} is unexplained"
    notes = [(name, each.side.note) for name, each in (("a", pair.a), ("b", pair.b))]
    told = [f"{name} {note}" for name, note in notes if note.startswith(DIFFERS)]
    if told:
        return f"{head}: {'; '.join(told)}."
    if pair.goes_on:
        return (
            f"{head}: {pair.goes_on} goes on from the weights that the other ended with, and that "
            "isn't all that differs."
        )
    if parted is None:
        return f"{head}."
    where = parted.where
    if parted.step is None and all(_trained_others(each) for each in (pair.a, pair.b)):
        return (
            f"{head}: the trainings part {where} on initial_weights. Their programs had trained "
            "other models before, which may share these weights: reconcile those first (@model=)."
        )
    if by_chance(pair, parted):
        return (
            f"{head}: the trainings part {where} on {parted.cause}, which is drawn at random. "
            "Whether that is more than chance, only trainings under more seeds can say."
        )
    if parted.cause == UNKNOWN:
        return f"{head}: the trainings part {where}, and nothing that is recorded tells why."
    causes = sorted(causes_of(pair, parted))
    if len(causes) > 1:
        return f"{head}: the trainings part {where}, and differ in {', '.join(causes)}. {MORE}"
    return f"{head}: the trainings part {where} on {parted.cause}."
