"""Words of sentences that several outputs have: numbers of things, arguments, commands."""

import shlex
from typing import Any, cast


def counted(number: int, noun: str) -> str:
    """A number of things: `1 step`, `1,000 steps`, `2 batches`, `2 series`.

    Args:
        number: How many.
        noun: What one of them is called.
    """
    if number == 1 or noun.endswith("series"):
        return f"{number:,} {noun}"
    return f"{number:,} {noun}{'es' if noun.endswith(('s', 'tch')) else 's'}"


def when(created: Any) -> str:
    """The date and time of a recorded moment, ISO 8601, to the second; "" of none."""
    return str(created or "")[:19].replace("T", " ")


def argument(value: Any) -> str:
    """An argument as it is recorded, in which an array is its shape and dtype: `float32[70,3]`.

    Args:
        value: From the record of a call; a tuple is a list there.
    """
    if isinstance(value, dict) and set(cast("dict[str, Any]", value)) == {"shape", "dtype"}:
        return f"{value['dtype']}{value['shape']}".replace(" ", "")
    if isinstance(value, list):
        return f"[{', '.join(map(argument, cast('list[Any]', value)))}]"
    return repr(value)


def command_line(*words: object) -> str:
    """A command of ours as a shell takes it: `lossledger show 'a run'`.

    Args:
        *words: What follows `lossledger`.
    """
    return shlex.join(["lossledger", *map(str, words)])
