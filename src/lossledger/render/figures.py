"""Numbers as text."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

SIGNIFICANT = 6
"""Digits that a float32 loss is worth."""
UNKNOWN = "-"
"""In the place of a number that isn't known, in a table."""


@dataclass(frozen=True)
class Format:
    """How the numbers of one column are written: with the same decimals, so that they align.

    Args:
        decimals: Digits after the point.
    """

    decimals: int

    @classmethod
    def of(cls, values: Iterable[float | None]) -> "Format":
        """The format that gives the largest of the values six significant digits."""
        sizes = [abs(v) for v in values if v is not None and math.isfinite(v) and v != 0]
        if not sizes:
            return cls(SIGNIFICANT)
        largest, smallest = (math.floor(math.log10(size)) for size in (max(sizes), min(sizes)))
        decimals = SIGNIFICANT - 1 - largest
        # A few more where a small value beside a large one would show less than four digits.
        more = min(3 - smallest, decimals + 2)
        return cls(min(max(decimals, more, 0), 9))

    def text(self, value: float | None) -> str:
        """Writes a number; "" for None, and one too small or too large with an exponent."""
        if value is None:
            return ""
        if not math.isfinite(value):
            return str(value)
        size = abs(value)
        if size and not 10.0 ** (3 - self.decimals) <= size < 1e9:
            return f"{value:.3e}"
        return f"{value:.{self.decimals}f}"

    def signed(self, value: float) -> str:
        """Writes an amount with its sign; "0" for none."""
        if value == 0:
            return "0"
        sign = "+" if value > 0 else "-" if value < 0 else ""
        return f"{sign}{self.text(abs(value))}"


def single(value: float | None) -> str:
    """Writes a number beside others of unlike sizes: with six digits of its own."""
    return UNKNOWN if value is None else Format.of([value]).text(value)


def difference(value: float | None) -> str:
    """Writes how far a number is from another: signed, two digits where it is tiny."""
    if value is None:
        return ""
    if value == 0:
        return "0"
    return f"{value:+.1e}" if abs(value) < 1e-3 else f"{value:+.4g}"


def shorten(length: int, limit: int) -> tuple[Sequence[int], int]:
    """Which of a long list to show: as many of its start as of its end.

    Returns:
        The places shown, and how many are left out between the two halves.
    """
    if length <= limit:
        return range(length), 0
    half = limit // 2
    return [*range(half), *range(length - half, length)], length - 2 * half
