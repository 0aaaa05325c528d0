"""Report an uncaught exception as the interpreter does, without the frames of this package."""

import os
import sys
from contextlib import suppress
from types import TracebackType

PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep


def exit_status(error: SystemExit) -> int:
    """The status for a SystemExit, whose message goes to standard error."""
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code
    with suppress(Exception):
        sys.stderr.write(f"{error.code}\n")
    return 1


def report(error: BaseException) -> int | None:
    """Hands an uncaught exception to `sys.excepthook`, as the interpreter does.

    Returns:
        The status that the hook itself exited with, or None.
    """
    strip(error)
    sys.last_type, sys.last_value, sys.last_traceback = type(error), error, error.__traceback__
    if sys.version_info >= (3, 12):
        sys.last_exc = error
    hook = getattr(sys, "excepthook", None)
    if hook is None:
        sys.stderr.write("sys.excepthook is missing\n")
        hook = sys.__excepthook__
    failure: BaseException | None = None
    try:
        hook(type(error), error, error.__traceback__)
    except BaseException as raised:
        failure = raised
    if isinstance(failure, SystemExit):
        return exit_status(failure)
    if failure is not None:
        strip(failure)
        sys.stderr.write("Error in sys.excepthook:\n")
        sys.__excepthook__(type(failure), failure, failure.__traceback__)
        sys.stderr.write("\nOriginal exception was:\n")
        sys.__excepthook__(type(error), error, error.__traceback__)
    return None


def strip(error: BaseException) -> None:
    """Takes our frames out of the tracebacks of an exception and of all that it chains.

    The frames that lead to the script, and those between Keras and its training step, are not
    there under plain `python`. Frames that a traceback ends in stay: the exception was raised
    there, by a call of the script's own or by a fault of ours that should be seen. Only an
    interrupt, which can come at any place, says nothing about the place where it came.
    """
    seen: set[int] = set()
    pending: list[BaseException | None] = [error]
    while pending:
        current = pending.pop()
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        current.__traceback__ = _without_ours(
            current.__traceback__, ending=not isinstance(current, KeyboardInterrupt)
        )
        pending += [current.__cause__, current.__context__]
        if isinstance(current, BaseExceptionGroup):
            pending += current.exceptions


def _without_ours(traceback: TracebackType | None, *, ending: bool) -> TracebackType | None:
    every: list[TracebackType] = []
    while traceback is not None:
        every.append(traceback)
        traceback = traceback.tb_next
    others = [n for n, tb in enumerate(every) if not _is_ours(tb)]
    if not others:
        return every[0] if every and ending else None
    kept = [every[n] for n in others] + (every[others[-1] + 1 :] if ending else [])
    for tb, following in zip(kept, [*kept[1:], None], strict=True):
        tb.tb_next = following
    return kept[0]


def _is_ours(traceback: TracebackType) -> bool:
    return traceback.tb_frame.f_code.co_filename.startswith(PACKAGE)


def say_ignored(where: object, error: BaseException) -> None:
    """Reports an exception that can't be raised any more, as the interpreter words it."""
    strip(error)
    from traceback import format_tb

    lines = "".join(format_tb(error.__traceback__))
    sys.stderr.write(
        f"Exception ignored in: {where!r}\nTraceback (most recent call last):\n"
        f"{lines}{type(error).__name__}: {error}\n"
    )
