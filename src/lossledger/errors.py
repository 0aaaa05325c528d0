"""The one exception a user of the package catches, and the warning it gives."""


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


class LossLedgerWarning(UserWarning):
    """Recording had trouble; training went on without it."""
