"""The one exception a user of the package catches, and the warning it gives."""

import operator
import re
from typing import Any

_CONTROLS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """`text` as it may be shown: what would steer a terminal, or turn writing round, is spelt."""
    return _CONTROLS.sub(lambda found: ascii(found[0])[1:-1], text)


class LossLedgerError(Exception):
    """What lossledger could not do, in a sentence that says what to do instead.

    Args:
        message: What happened, `Received: ...`, and what to do.
        slug: A short stable name; `docs/messages.md` has a heading for each.
        exit_code: The command's exit status: 1 could not be done, 2 usage, 3 a gate failed.
    """

    def __init__(self, message: str, *, slug: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.slug = slug
        self.exit_code = exit_code


def count_of(name: str, value: Any, *, least: int = 1) -> int:
    """A number that a user gave to count something by.

    Args:
        name: What it was given as.
        value: The number.
        least: What it is at least.

    Raises:
        LossLedgerError: If it is no whole number, or less.
    """
    try:
        count = least - 1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        count = least - 1
    if count < least:
        raise LossLedgerError(
            f"`{name}` must be a whole number, {least} or more. Received: {value!r}.",
            slug="not-a-count",
        )
    return count


class LossLedgerWarning(UserWarning):
    """Recording had trouble; training went on without it."""
