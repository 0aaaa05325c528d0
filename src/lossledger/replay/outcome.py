"""What replays have told, as a reconciliation: causes, noise, and the answer in words."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from lossledger.chance import LEVEL, Estimate
from lossledger.reconciliation.result import Cause, Difference, Reconciliation, Side
from lossledger.replay.description import FACTORS, PLAYERS, UNTRAINED, is_seed
from lossledger.vectors import Floats

Sides = tuple[Mapping[str, Any], Mapping[str, Any]]


def reconciliation(
    sides: Sides,
    shares: Mapping[str, Floats],
    ends: tuple[Floats, Floats],
    how: str,
) -> Reconciliation:
    """Puts the answer together.

    Args:
        sides: The two descriptions.
        shares: The amounts of each swap, float64 (seeds,).
        ends: The numbers of a and of b, float64 (seeds,).
        how: In which order the swaps were made, in words.
    """
    estimates = {
        name: Estimate.of(amounts, _is_chance(sides, name)) for name, amounts in shares.items()
    }
    causes = [_cause(sides, name, each) for name, each in estimates.items()]
    only_seeds = bool(shares) and all(_is_chance(sides, name) for name in shares)
    gap = Estimate.of(ends[1] - ends[0], only_seeds)
    seeds = len(ends[0])
    return Reconciliation.of(
        _side("a", sides[0], ends[0]),
        _side("b", sides[1], ends[1]),
        causes,
        verdict=" ".join(_verdict(causes, gap, seeds, how, only_seeds)),
        differences=[
            Difference(key, said(sides[0][key]), said(sides[1][key]))
            for key in (factor.name for factor in FACTORS)
            if key in shares
        ],
        noise=gap.noise,
    )


def _side(name: str, side: Mapping[str, Any], values: Floats) -> Side:
    count = len(values)
    mean = float(values.mean()) if np.ptp(values) else float(values[0])
    note = f"mean over {count} seeds" if count > 1 else "one training"
    return Side(name, side["statistic"], mean, epoch=side["epochs"] - 1, note=note)


def _is_chance(sides: Sides, name: str) -> bool:
    """Whether a swap is of one seed for another: then nothing but chance is swapped."""
    if name == "initial_weights":
        return not any(isinstance(side[name], list) for side in sides)
    return name == "seed"


def _cause(sides: Sides, name: str, estimate: Estimate) -> Cause:
    factor = PLAYERS[name]
    a, b = (said(side["remainder" if name == UNTRAINED else name]) for side in sides)
    slug = factor.cause
    if name == "statistic" and {a, b} == {"epoch_mean", "batch_mean"}:
        slug = "weighting"
    return Cause(
        slug,
        estimate.mean,
        factor.kind,
        estimate.noise,
        f"{_WORDS.get(name, name)} {a} -> {b}: {_evidence(estimate, factor.kind == 'exact')}",
        f"use the same {'remainder' if name == UNTRAINED else name} in both: {a} or {b}",
    )


_WORDS = {
    "remainder": "remainder in the mean",
    UNTRAINED: "remainder trained on",
    "epochs": "the last of epochs",
}


def _evidence(estimate: Estimate, exact: bool) -> str:
    """The numbers behind an amount."""
    amount = f"{estimate.mean:+.4g}"
    if estimate.error is None or estimate.noise is None:
        told = "no training differs for it" if exact else "one seed: its noise is not known"
        return f"{amount} ({told})"
    over = (
        f"{amount}, standard error {estimate.error:.1e}, spread {estimate.spread:.1e} between seeds"
    )
    if exact:
        return f"{over}; exact for each of them, read off the same entries"
    what = "within" if estimate.is_noise else "beyond"
    return f"{over}; {what} the noise, {estimate.noise:.1e} ({LEVEL:.0%} of chance)"


def _verdict(
    causes: list[Cause], gap: Estimate, seeds: int, how: str, only_seeds: bool
) -> Iterator[str]:
    pairs = "1 pair of trainings" if seeds == 1 else f"{seeds} pairs of trainings"
    if not causes:
        yield f"The descriptions are the same: gap 0 in {pairs}."
        return
    if gap.mean == 0 and not gap.spread:
        yield f"The two give the same number: gap 0 in {pairs}."
    elif only_seeds:
        yield (
            f"The gap, {gap.mean:+.3g}, is noise: the two differ by nothing but a seed ({pairs}"
            f"{'' if gap.spread is None else f', spread {gap.spread:.1e}'})."
        )
        return
    elif all(cause.kind == "exact" for cause in causes):
        spread = "" if gap.spread is None else f"; it spreads by {gap.spread:.1e} between seeds"
        yield f"The gap, {gap.mean:+.3g}, is no chance: it is one training, read twice{spread}."
    elif gap.noise is None:
        yield f"The gap is {gap.mean:+.3g} in one pair of trainings; repeat=5 tells it from noise."
    elif gap.is_noise:
        yield (
            f"The gap, {gap.mean:+.3g}, is within the noise: over {pairs} chance alone makes "
            f"{gap.noise:.1e}."
        )
    else:
        yield (f"The gap, {gap.mean:+.3g}, is larger than the noise, {gap.noise:.1e} over {pairs}.")
    moved = [cause for cause in causes if cause.amount]
    named = [(c, c.evidence.split(":")[0]) for c in moved]
    real = [f"{text} {c.amount:+.3g}" for c, text in named if not c.is_noise]
    noise = [text for c, text in named if c.is_noise]
    if real and seeds > 1:
        yield f"Causes: {'; '.join(real)}."
    elif real:
        yield f"Swaps: {'; '.join(real)}."
    if noise:
        yield f"Noise, no cause: {'; '.join(noise)}."
    yield f"Amounts: {how}."


def said(value: Any) -> Any:
    """A value of a description as JSON has it."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if is_seed(value):
        return int(value)
    if isinstance(value, list):
        return f"{len(value)} arrays"
    if isinstance(value, Mapping):
        return str(value.get("class_name", dict(value)))
    return str(getattr(value, "__name__", None) or getattr(value, "name", type(value).__name__))
