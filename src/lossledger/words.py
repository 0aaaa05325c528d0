"""Numbers of things in sentences."""


def counted(number: int, noun: str) -> str:
    """A number of things: `1 step`, `1,000 steps`, `2 batches`, `2 series`.

    Args:
        number: How many.
        noun: What one of them is called.
    """
    if number == 1 or noun.endswith("series"):
        return f"{number:,} {noun}"
    return f"{number:,} {noun}{'es' if noun.endswith(('s', 'tch')) else 's'}"
