"""Where results go: standard output, and what it can show; and a sign of life until they come."""

import os
import shutil
import sys
import threading
import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import Any

from lossledger.render.base import Options

PATIENCE = 2.0
"""Seconds for which a reader waits for a result without being told."""


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


@contextmanager
def working() -> Generator[None]:
    """Counts the seconds on standard error, if it is a terminal, until the result is there."""
    if not sys.stderr.isatty():
        yield
        return
    over = threading.Event()
    counter = threading.Thread(target=_count, args=(over,), daemon=True)
    counter.start()
    try:
        yield
    finally:
        over.set()
        counter.join()


def _count(over: threading.Event) -> None:
    began, line = time.monotonic(), ""
    while not over.wait(1.0 if line else PATIENCE):
        line = f"\rlossledger: at work, {time.monotonic() - began:.0f} s"
        print(line, end="", file=sys.stderr, flush=True)
    if line:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _encodes(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True
