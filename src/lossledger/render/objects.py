"""Objects as `--json` prints them."""

import json
import math
from typing import Any, cast


def to_json(value: dict[str, Any]) -> str:
    """Writes an object as indented JSON; "nan", "inf" and "-inf" where JSON has no number."""
    return json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [_plain(item) for item in cast("list[Any]", value)]
    return value
