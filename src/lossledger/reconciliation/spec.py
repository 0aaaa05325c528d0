"""Which number is meant: `RUN[@SELECTION][:STATISTIC]`, read into a value."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from lossledger.errors import LossLedgerError
from lossledger.objects import is_uri
from lossledger.request import Request
from lossledger.run import Run

Weight: TypeAlias = Literal["rows", "one", "elements", "sample_weight"]
Which: TypeAlias = "str | Path | Run | tuple[str | Path | Run, str]"
"""A number as Python takes it: text, a run, or a run and the text that follows its name."""

_WEIGHTS = ("rows", "one", "elements", "sample_weight")
_WORD = re.compile(r"[A-Za-z_]\w*(?=:|$)")
_INTEGERS = ("call", "model", "epoch", "batch", "every")
_FLAGS = ("finite", "again")
_KEYS = (*_INTEGERS, "loss", "weight", *_FLAGS)


@dataclass(frozen=True)
class Spec:
    """One number, as it was asked for.

    Args:
        run: The run's name or path, or the run.
        text: How to write it in a report.
        statistic: The statistic; `None` for what the run's driver reports.
        call: The number of the call.
        model: The number of the model.
        epoch: The epoch, before the one that is asked for on both sides.
        batch: The last batch of the epoch that counts.
        every: Only the last step of so many counts, as in a log with a stride.
        loss: `loss`, `data` (without its penalty), or named losses, added: `a_loss+b_loss`.
        weight: What an epoch's mean weights each loss by, in the place of what was recorded.
        finite: Whether losses that are not finite are left out.
        again: Whether steps that a resumed run trained again count, too, as in a log that was
            only appended to.
    """

    run: str | Path | Run
    text: str
    statistic: Request | None = None
    call: int | None = None
    model: int | None = None
    epoch: int | None = None
    batch: int | None = None
    every: int = 1
    loss: str = "loss"
    weight: Weight | None = None
    finite: bool = False
    again: bool = False

    @classmethod
    def of(cls, which: Which) -> "Spec":
        """Reads a number as Python or the command line gives it.

        Raises:
            LossLedgerError: The selection is written otherwise (slug `selection`), or the
                statistic's parameters are (slug `statistic-parameter`).
        """
        if isinstance(which, tuple):
            run, text = which
            return _parsed(run, f"{_name(run)}{text}", text if text[:1] in "@:" else f":{text}")
        if isinstance(which, str):
            run, rest = _split(which)
            return _parsed(run, which, rest)
        return cls(which, _name(which))


def _name(run: "str | Path | Run") -> str:
    return run.where if isinstance(run, Run) else str(run)


def _split(text: str) -> tuple[str, str]:
    """The run's name, and what follows it."""
    if _is_run(text):
        return text, ""
    ends = [m.start() for m in re.finditer(":", text) if _WORD.match(text, m.start() + 1)]
    end = ends[0] if ends else len(text)
    # A URI may have a password before its @.
    begin = text.rfind("/", 0, end) + 1 if is_uri(text) else 0
    if not _is_run(text[:end]) and "@" in text[begin:end]:
        end = text.rindex("@", 0, end)
    return text[:end], text[end:]


def _is_run(text: str) -> bool:
    return (Path(text) / "run.json").is_file()


def _parsed(run: "str | Path | Run", text: str, rest: str) -> Spec:
    selection, _, statistic = rest.partition(":")
    spec = Spec(run, text, Request.parse(statistic) if statistic else None)
    for part in selection.removeprefix("@").split(","):
        if part:
            spec = replace(spec, **_selected(part.strip(), text))
    if spec.statistic is None:
        return spec
    own = dict(spec.statistic.parameters)
    weight = own.pop("weight", spec.weight)
    if weight is not None and weight not in _WEIGHTS:
        raise _bad(text, f"weight={weight}", f"Write one of {', '.join(_WEIGHTS)}.")
    request = Request(spec.statistic.text, spec.statistic.name, own)
    return replace(spec, statistic=request, weight=weight)


def _selected(part: str, text: str) -> dict[str, Any]:
    key, equals, value = part.partition("=")
    if not equals:
        key, value = (part, "true") if part in _FLAGS else ("call", part)
    if key not in _KEYS:
        raise _bad(text, part, f"Keys are {', '.join(_KEYS)}.")
    if key in _INTEGERS:
        least = {"epoch": None, "every": 1}.get(key, 0)
        if not re.fullmatch(r"-?\d+", value) or (least is not None and int(value) < least):
            raise _bad(text, part, f"{key} is a whole number.")
        return {key: int(value)}
    if key in _FLAGS:
        return {key: value.lower() not in ("false", "0")}
    if key == "weight" and value not in _WEIGHTS:
        raise _bad(text, part, f"Write one of {', '.join(_WEIGHTS)}.")
    return {key: value}


def _bad(text: str, part: str, hint: str) -> LossLedgerError:
    return LossLedgerError(
        f"What stands between @ and : selects a part of the run. Received: {part!r} in {text!r}. "
        f"{hint} For example: runs/a@1:epoch_mean, or runs/a@call=1,epoch=3:batch_mean.",
        slug="selection",
        exit_code=2,
    )
