"""A statistic as it is asked for in text: in a shell, in a description, in what is compared."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lossledger.errors import LossLedgerError


@dataclass(frozen=True)
class Request:
    """A statistic to state, as `--statistic` takes it.

    Args:
        text: As it was asked for, `ema:beta=0.9`.
        name: The statistic's name.
        parameters: Its parameters.
    """

    text: str
    name: str
    parameters: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @classmethod
    def parse(cls, text: str) -> "Request":
        """Reads `name` or `name:parameter=value,parameter=value`.

        Raises:
            LossLedgerError: It is written otherwise (slug `statistic-parameter`).
        """
        name, _, rest = text.partition(":")
        parameters: dict[str, Any] = {}
        for part in rest.split(",") if rest else []:
            key, equals, value = part.partition("=")
            if not (key and equals and value):
                raise LossLedgerError(
                    f"A statistic's parameter is written name=value. Received: {text!r}. "
                    "Write it like ema:beta=0.9 or window_mean:n=10.",
                    slug="statistic-parameter",
                    exit_code=2,
                )
            parameters[key.strip()] = _value(value.strip())
        return cls(text, name, parameters)


def _value(text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
