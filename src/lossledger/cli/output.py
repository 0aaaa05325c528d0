"""Where results go: standard output, and what it can show."""

import os
import shutil
import sys
from collections.abc import Iterable
from typing import Any

from lossledger.render.base import Options


def options(**choices: Any) -> Options:
    """Options for standard output as it is: its width, and whether it takes colour and blocks.

    Args:
        **choices: What to show of a run; fields of `Options`.
    """
    color = (
        sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    )
    width = shutil.get_terminal_size().columns
    return Options(width=max(width, 20), color=color, blocks=_encodes("▁█"), **choices)


def write(text: str) -> None:
    """Prints a result; a character that the output can't encode becomes a question mark."""
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, errors="replace").decode(encoding) + "\n")
    sys.stdout.flush()


def lines(texts: Iterable[str]) -> None:
    """Prints lines as `write` does."""
    for text in texts:
        write(text)


def _encodes(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True
