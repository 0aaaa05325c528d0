"""An amount that chance takes part in: its mean over draws, and how far chance alone takes that."""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from lossledger.vectors import Floats

LEVEL = 0.99
"""Of so many comparisons of things that differ by chance alone, noise covers the amount."""
# Student's t for LEVEL, two-sided, by degrees of freedom from 1 on.
_T = (
    63.657, 9.925, 5.841, 4.604, 4.032, 3.707, 3.499, 3.355, 3.250, 3.169,
    3.106, 3.055, 3.012, 2.977, 2.947, 2.921, 2.898, 2.878, 2.861, 2.845,
    2.831, 2.819, 2.807, 2.797, 2.787, 2.779, 2.771, 2.763, 2.756, 2.750,
)  # fmt: skip


@dataclass(frozen=True)
class Estimate:
    """An amount over draws: over seeds, or over what a random layer draws.

    Args:
        mean: The amount.
        spread: Standard deviation between draws; `None` of one.
        error: Standard error of the mean; `None` of one draw.
        noise: What chance alone makes of such a mean, in `LEVEL` of cases: Student's t times the
            error; `None` of one draw.
    """

    mean: float
    spread: float | None
    error: float | None
    noise: float | None

    @classmethod
    def of(cls, amounts: Floats, chance: bool = False) -> "Estimate":
        """The estimate from one amount a draw.

        Args:
            amounts: float64 (draws,).
            chance: Whether what was swapped is a seed: then all of it is noise, whatever its size.
        """
        count = len(amounts)
        with np.errstate(invalid="ignore", over="ignore"):
            mean = float(amounts.mean()) if np.ptp(amounts) else float(amounts[0])
            spread = float(amounts.std(ddof=1)) if count > 1 else None
        if spread is None:
            return cls(mean, None, None, abs(mean) if chance else None)
        error = spread / math.sqrt(count)
        noise = student(count - 1) * error
        return cls(mean, spread, error, max(noise, abs(mean)) if chance else noise)

    @property
    def is_noise(self) -> bool:
        """Whether chance alone makes as much."""
        return self.noise is not None and abs(self.mean) <= self.noise


def student(freedom: int) -> float:
    """Student's t at `LEVEL`, two-sided, for some degrees of freedom.

    Beyond the table by the first terms of its expansion around the normal quantile (Abramowitz and
    Stegun 1964, 26.7.5).
    """
    if freedom <= len(_T):
        return _T[freedom - 1]
    z = NormalDist().inv_cdf(0.5 + LEVEL / 2)
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
