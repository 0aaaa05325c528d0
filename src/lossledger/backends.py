"""The backends of Keras that are recorded, and which of them are installed."""

import os
from collections.abc import Mapping

BACKENDS = ("tensorflow", "jax", "torch")
"""In the order in which one is chosen."""


def installed() -> list[str]:
    """Those that can be imported."""
    from importlib.util import find_spec  # not before a script has run: see `runner`

    return [name for name in BACKENDS if find_spec(name) is not None]


def why_no_keras(environment: Mapping[str, str] = os.environ) -> str:
    """What to say of an import of Keras that raised: mostly its backend isn't installed."""
    chosen, there = environment.get("KERAS_BACKEND", ""), installed()
    if (chosen or "tensorflow") in there:
        return "Keras could not be imported"
    wanted = f"KERAS_BACKEND={chosen}" if chosen else "tensorflow unless KERAS_BACKEND is set"
    advice = f"set KERAS_BACKEND={there[0]}" if there else "pip install 'lossledger[jax]'"
    has = ", ".join(there) or "no backend"
    return f"Keras could not be imported; it takes {wanted}, installed is {has}  next: {advice}"
