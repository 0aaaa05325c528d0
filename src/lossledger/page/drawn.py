"""What the page's program draws, as JSON: curves by their statistic's name, and their arrays."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from lossledger.page.content import Content, Line
from lossledger.page.gather import GLANCE, GLANCES, bucket_for
from lossledger.page.pack import pack
from lossledger.statistics import STATISTICS

PARTS = "parts"
"""The chart of what a loss is made of."""

_OWN = {
    "penalty": (PARTS, "The part of the loss that is no data term: regularizers, add_loss."),
    "learning_rate": ("learning_rate", "The optimizer's, at the step."),
    "step_time": (
        "step_time",
        "From the return of the step before to that of this one; not of a call's first step.",
    ),
}
_MEASURED = "Measured in inference mode with weights held fixed, at the place where it stands."


def drawn(content: Content, have: Mapping[tuple[int, int], int] | None = None) -> dict[str, Any]:
    """The data of the page's program.

    Args:
        content: The runs.
        have: Of each track that the program has, by run and model, how many buckets; the last of
            these is sent again, since it may not have been full.
    """
    known = have or {}
    return {**_named(content), "lines": [_line(content, each, known) for each in content.lines]}


def glance(content: Content) -> dict[str, Any] | None:
    """The same in few buckets, to be painted first; `None` where all of it is not much more."""
    if content.enveloped or content.entries <= GLANCE:
        return None
    lines: list[dict[str, Any]] = []
    for line in content.lines:
        bucket = bucket_for(line.track.entries, GLANCES, len(content.lines))
        arrays = line.track.glance(bucket)
        lines.append({**_line(content, line, {}, arrays), "bucket": bucket, "glance": True})
    return {**_named(content), "lines": lines}


def _named(content: Content) -> dict[str, Any]:
    return {
        "runs": [
            {"name": name, "id": run.id}
            for name, run in zip(content.names, content.runs, strict=True)
        ],
        "series": series(content),
    }


def _line(
    content: Content,
    line: Line,
    have: Mapping[tuple[int, int], int],
    arrays: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    track = line.track
    begin = max(have.get((line.run, track.model), 0) - 1, 0)
    names = dict.fromkeys(each.name for each in line.measured)
    epochs = track.epochs()
    points = [
        *((name, epochs["end"], epochs[name]) for name in ("epoch_mean", "batch_mean")),
        *(
            (
                name,
                pack([m.at for m in line.measured if m.name == name], "f8", delta=True),
                pack([m.value for m in line.measured if m.name == name]),
            )
            for name in names
        ),
    ]
    return {
        "run": line.run,
        "model": track.model,
        "name": line.model_name,
        "entries": track.entries,
        "bucket": track.bucket,
        "begin": begin,
        "growing": not content.runs[line.run].complete,
        **(arrays or track.packed(begin)),
        "epochs": epochs,
        "calls": pack(np.cumsum([0, *(call.steps for call in line.calls)])[:-1], "f8", delta=True),
        "points": [{"name": name, "at": at, "value": value} for name, at, value in points],
    }


def series(content: Content) -> list[dict[str, str]]:
    """All that can be drawn, in the order of the legend: `id`, `name`, `kind`, `group`, `about`."""
    found = [_folded("raw"), _folded("running_mean")]
    found += [_folded(name, "points") for name in ("epoch_mean", "batch_mean")]
    ema = f"ema, beta {content.beta:g}"
    if any(line.track.notable.nonfinite for line in content.lines):
        ema += ", of finite losses"
    found.append({**_folded("ema"), "name": ema})
    for name in dict.fromkeys(m.name for line in content.lines for m in line.measured):
        text = name if name == "evaluate" else f"{name} (evaluate)"
        whose = "On the validation data. " if name != "evaluate" else ""
        found.append(_one(name, text, "points", "loss", whose + _MEASURED))
    curves = dict.fromkeys(name for line in content.lines for name in line.track.curves())
    for name in curves:
        group, about = _OWN.get(name, (PARTS, f"The named loss {name}, of each step."))
        if name not in STATISTICS:
            found.append(_one(name, name, "entries", group, about))
    return found


def _folded(name: str, kind: str = "entries") -> dict[str, str]:
    known = STATISTICS[name]
    return _one(name, name, kind, "loss", f"{known.meaning} {known.formula}")


def _one(name: str, text: str, kind: str, group: str, about: str) -> dict[str, str]:
    return {"id": name, "name": text, "kind": kind, "group": group, "about": about}
