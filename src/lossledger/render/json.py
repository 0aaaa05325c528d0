"""The object that `show --json` prints."""

from typing import Any

from lossledger.render.base import Renderer
from lossledger.render.choice import chosen_calls, chosen_epochs, statistic
from lossledger.render.objects import to_json
from lossledger.render.story import resumed
from lossledger.run import EpochStatement, Reported, Run


class JsonShow(Renderer[Run]):
    """One run as one object: `run`, `calls` with their `epochs`, and `statistics`."""

    def render(self, content: Run) -> str:
        """Gives the run's object."""
        run = content
        calls = chosen_calls(run, self.options)
        reported: dict[int, list[Reported]] = {call.number: [] for call in calls}
        for item in run.reported(calls):
            reported[item.call].append(item)
        return to_json(
            {
                "run": {
                    "id": run.id,
                    "name": run.name,
                    "path": run.where,
                    "versions": run.info.get("versions", {}),
                    "complete": run.complete,
                    **_workers(run),
                    **resumed(run),
                },
                "calls": [
                    {
                        "driver": call.driver,
                        "model": call.model,
                        "weight_kind": call.weight_kind,
                        "arguments": call.arguments,
                        "epochs": [_epoch(run, each) for each in epochs],
                        "call": call.number,
                        "model_name": call.info.get("model_name"),
                        "steps": call.steps,
                        "superseded": call.standing.superseded,
                        "continues": call.standing.continues,
                        "epochs_from": call.epochs_from,
                        "reported": [vars(each) for each in reported[call.number]],
                    }
                    for call, epochs in chosen_epochs(run, calls, self.options)
                ],
                "statistics": {
                    request.text: statistic(run, request, self.options).tolist()
                    for request in self.options.statistics
                },
            }
        )


def _epoch(run: Run, epoch: EpochStatement) -> dict[str, Any]:
    """An epoch's statement; what is missing of it can be said where there are workers."""
    said = dict(vars(epoch))
    if not run.info.get("workers"):
        del said["missing"]
    return said


def _workers(run: Run) -> dict[str, Any]:
    if not run.info.get("workers"):
        return {}
    return {"workers": run.info["workers"], "missing": [vars(each) for each in run.missing]}
