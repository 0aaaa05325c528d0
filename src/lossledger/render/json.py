"""The objects that `--json` prints."""

import dataclasses
import json
import math
from typing import Any, cast

from lossledger.render.base import Listing, Renderer, chosen_calls, chosen_epochs, statistic
from lossledger.run import Run


class JsonShow(Renderer[Run]):
    """One run as one object: `run`, `calls` with their `epochs`, and `statistics`."""

    def render(self, content: Run) -> str:
        """Gives the run's object."""
        run = content
        calls = chosen_calls(run, self.options)
        return _text(
            {
                "run": {
                    "id": run.id,
                    "name": run.name,
                    "path": str(run.path),
                    "versions": run.info.get("versions", {}),
                    "complete": run.complete,
                },
                "calls": [
                    {
                        "driver": call.driver,
                        "model": call.model,
                        "weight_kind": call.weight_kind,
                        "arguments": call.arguments,
                        "epochs": [dataclasses.asdict(each) for each in epochs],
                    }
                    for call, epochs in chosen_epochs(run, calls, self.options)
                ],
                "statistics": {
                    request.text: statistic(run, request, self.options).tolist()
                    for request in self.options.statistics
                },
            }
        )


class JsonList(Renderer[Listing]):
    """The runs of a folder as one object: `directory`, `runs` and `older`."""

    def render(self, content: Listing) -> str:
        """Gives the folder's object."""
        runs = [{**vars(listed), "path": str(listed.path)} for listed in content.runs]
        return _text({"directory": str(content.directory), "runs": runs, "older": content.older})


def _text(value: dict[str, Any]) -> str:
    return json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    """JSON has no words for non-finite numbers: they are the texts "nan", "inf", "-inf"."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [_plain(item) for item in cast("list[Any]", value)]
    return value
