"""What a reconciliation says: two numbers, their gap, and what the gap is made of."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from lossledger.floats import gap_of, same
from lossledger.reconciliation.slugs import SLUGS, Kind

_ROUNDING = 64 * 2.0**-53


@dataclass(frozen=True)
class Side:
    """One of the two numbers.

    Args:
        run: The run, as a path; the file, where a number comes from one.
        statistic: Which statistic it is, with its parameters: `epoch_mean`, `ema:beta=0.9`.
        value: The number.
        call: The call of the run; `None` where there is none, or several.
        epoch: The epoch of the call, as the driver counts; `None` where it belongs to none.
        note: What else tells the number from others, in a few words; "" without any.
    """

    run: str
    statistic: str
    value: float
    call: int | None = None
    epoch: int | None = None
    note: str = ""

    def words(self, run: str | None = None) -> str:
        """Which number it is: `epoch_mean of runs/a, epoch 9 of call 0 (as files have it)`.

        Args:
            run: What to call the run; its path by default.
        """
        epoch = "" if self.epoch is None else f", epoch {self.epoch}"
        call = "" if self.call is None else f" of call {self.call}"
        note = f" ({self.note})" if self.note else ""
        return f"{self.statistic} of {run or self.run}{epoch}{call}{note}"


@dataclass(frozen=True)
class Cause:
    """One named amount of a gap.

    Args:
        cause: Its name in `lossledger.reconciliation.slugs.SLUGS`.
        amount: What it adds on the way from a to b.
        kind: `exact`, `measured` or `replayed`.
        noise: How far chance alone takes such an amount in 99 of 100 cases (`lossledger.chance`):
            a replayed one between seeds, a measured one between draws of random layers; `None`
            where it is no estimate, or nothing has told.
        evidence: A sentence with the numbers behind it.
        advice: The change in the user's code that would remove it.
    """

    cause: str
    amount: float
    kind: Kind
    noise: float | None
    evidence: str
    advice: str

    def __post_init__(self) -> None:
        if self.cause not in SLUGS:
            raise ValueError(f"no such cause: {self.cause!r}")

    @property
    def is_noise(self) -> bool:
        """Whether it is no cause: chance alone makes as much."""
        return self.kind != "exact" and self.noise is not None and abs(self.amount) <= self.noise

    @property
    def known(self) -> str:
        """Its kind, or `noise`."""
        return "noise" if self.is_noise else self.kind


@dataclass(frozen=True)
class Difference:
    """Something that is not the same on both sides.

    Args:
        name: What: `optimizer.learning_rate`, `versions.keras`.
        a: As JSON has it; `None` where the side doesn't say.
        b: The same of b.
    """

    name: str
    a: Any
    b: Any


@dataclass(frozen=True)
class Divergence:
    """Where two trainings part: the first step at which they are not the same.

    Args:
        step: Steps of the call before it; `None` where they parted before the first one.
        epoch: Its epoch.
        batch: Its place in the epoch.
        cause: What the step differs in, as the name of a cause; `unexplained` where nothing that
            is recorded tells.
        evidence: A sentence with the numbers behind it.
    """

    step: int | None
    epoch: int | None
    batch: int | None
    cause: str
    evidence: str

    @property
    def where(self) -> str:
        """The step in words."""
        return "before the first step" if self.step is None else f"at step {self.step:,}"


@dataclass(frozen=True)
class Reconciliation:
    """The gap between two numbers, and what it is made of.

    `gap` is `b.value - a.value`, and `math.fsum((*amounts, unexplained))` is the gap (within
    float64's rounding of the largest of them). Make one with `Reconciliation.of`.

    Args:
        a: The number to start from.
        b: The number to arrive at.
        gap: `b - a`; 0.0 where the two are the same, NaN and infinities included.
        comparable: Whether the two may be compared; there are no causes where they may not,
            unless that was asked for (`across`).
        reasons: Why they may not, a sentence each.
        differences: What is not the same on both sides.
        causes: The named amounts, in the order of `SLUGS`.
        unexplained: What of the gap has no named cause.
        noise: The same of the gap: what chance alone makes of it between seeds.
        verdict: The answer in a sentence.
        divergence: Where the two trainings part; `None` where they don't.
    """

    a: Side
    b: Side
    gap: float
    comparable: bool
    reasons: tuple[str, ...]
    differences: tuple[Difference, ...]
    causes: tuple[Cause, ...]
    unexplained: float
    noise: float | None
    verdict: str
    divergence: Divergence | None = None

    def __post_init__(self) -> None:
        parts = [*(cause.amount for cause in self.causes), self.unexplained]
        if not same(self.gap, gap_of(self.a.value, self.b.value)):
            raise ValueError(f"gap {self.gap} is not b - a of {self.a.value} and {self.b.value}")
        if not sums_to(parts, self.gap):
            raise ValueError(f"{parts} don't sum to the gap {self.gap}")

    @classmethod
    def of(
        cls,
        a: Side,
        b: Side,
        causes: Sequence[Cause] = (),
        *,
        verdict: str,
        reasons: Sequence[str] = (),
        differences: Sequence[Difference] = (),
        comparable: bool = True,
        noise: float | None = None,
        divergence: Divergence | None = None,
    ) -> "Reconciliation":
        """Puts causes together; the gap and what is left of it are reckoned here.

        Causes of amount 0 are left out. What is left within the rounding of the sum is 0.
        """
        gap = gap_of(a.value, b.value)
        kept = tuple(cause for cause in causes if cause.amount != 0)
        return cls(
            a=a,
            b=b,
            gap=gap,
            comparable=comparable,
            reasons=tuple(reasons),
            differences=tuple(differences),
            causes=kept,
            unexplained=remainder(gap, [cause.amount for cause in kept]),
            noise=noise,
            verdict=verdict,
            divergence=divergence,
        )

    def to_dict(self) -> dict[str, Any]:
        """The object that `lossledger reconcile --json` prints, before numbers become text."""
        return {
            "a": dict(vars(self.a)),
            "b": dict(vars(self.b)),
            "gap": self.gap,
            "comparable": self.comparable,
            "reasons": list(self.reasons),
            "differences": [dict(vars(each)) for each in self.differences],
            "causes": [dict(vars(each)) for each in self.causes],
            "unexplained": self.unexplained,
            "noise": self.noise,
            "verdict": self.verdict,
            "divergence": None if self.divergence is None else dict(vars(self.divergence)),
        }

    def to_json(self) -> str:
        """That object as text; numbers that are not finite are "nan", "inf", "-inf"."""
        from lossledger.render.objects import to_json

        return to_json(self.to_dict())

    def __repr__(self) -> str:
        lines = [
            f"a {_number(self.a.value)}  {self.a.run}:{self.a.statistic}",
            *(f"  {each.amount:+.3e}  {each.cause} ({each.known})" for each in self.causes),
            f"  {self.unexplained:+.3e}  unexplained",
            f"b {_number(self.b.value)}  {self.b.run}:{self.b.statistic}",
            f"gap {self.gap:+.3e}. {self.verdict}",
        ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        from lossledger.reconciliation.notebook import html

        return html(self)


def remainder(gap: float, amounts: Sequence[float]) -> float:
    """What amounts leave of a gap; 0.0 where that is within the rounding of their sum."""
    left = total((gap, *(-amount for amount in amounts)))
    if not math.isfinite(left):
        return 0.0 if same(total(amounts), gap) else left
    size = max((abs(each) for each in (gap, *amounts)), default=0.0)
    return 0.0 if abs(left) <= _ROUNDING * size else left


def total(amounts: Iterable[float]) -> float:
    """The sum, rounded once; NaN and infinities as IEEE 754 adds them."""
    numbers = list(amounts)
    return math.fsum(numbers) if all(map(math.isfinite, numbers)) else sum(numbers)


def sums_to(parts: Sequence[float], gap: float) -> bool:
    """Whether parts add to a gap, within the rounding of the largest of them."""
    found = total(parts)
    if same(found, gap):
        return True
    size = max((abs(part) for part in parts), default=0.0)
    return math.isfinite(found) and abs(found - gap) <= 2 * _ROUNDING * max(size, abs(gap))


def _number(value: float) -> str:
    return f"{value:.9g}"
