"""A training step on PyTorch repeated as the operations it makes, without the code around them.

A step of Keras makes some hundred operations, and spends most of its time in between. Where two
steps running made the same ones, those after them are these operations on other batches: forward,
backward, update and metrics, the same kernels in the same order, hence the same bits. Where other
code may have run since, a step is run and compared again.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from keras import tree

from lossledger.keras.trace import Reduction, Trace, Update
from lossledger.loop.noted import Noted, Operations, Outside, Slot, flat, watching

LEAST = 6
"""Steps of a chunk that it takes more than for repeating to pay."""
SOON = 32
"""Steps that take about what it takes to note two: fewer, at the beginning, are not repeated."""


class Tape:
    """Repeats the steps of one shape of batch, where that may be.

    Args:
        step: Trains on a batch; what it computed is in the `Trace` that it is given.
    """

    def __init__(self, step: Callable[[Any, Trace], Any]) -> None:
        self._step = step
        self._noted: Noted | None = None
        self._repeat: Callable[..., Any] | None = None
        self._trace = Trace()
        self._ready = False
        self._failed = 0

    @property
    def fit(self) -> bool:
        """Whether steps may yet be repeated."""
        return self._failed < 3

    def begin(self) -> None:
        """What a step does may have changed: the next one is run and compared."""
        self._ready = False

    def train(self, batch: Any, trace: Trace) -> None:
        """Train on a batch; the step's values go into `trace`."""
        plain = type(batch) is tuple and all([type(leaf) is torch.Tensor for leaf in batch])
        inputs = batch if plain else [leaf for leaf in tree.flatten(batch) if leaf is not None]
        if self._ready:
            assert self._repeat is not None
            self._tell(trace, self._repeat(*inputs))
            return
        noted = self._note(batch, inputs, trace)
        if self._noted is not None and self._noted.equals(noted):
            self._ready, self._failed = True, 0
            if self._repeat is None:
                self._repeat = _compiled(self._noted, len(inputs))
            return
        if self._noted is None and noted.fit:
            self._noted, self._trace = noted, trace
            return
        self._failed += 1 if noted.fit else 3
        self._noted = self._repeat = None

    def _note(self, batch: Any, inputs: Sequence[Any], trace: Trace) -> Noted:
        if not all(isinstance(leaf, torch.Tensor) for leaf in inputs):
            self._step(batch, trace)
            return Noted(fit=False)
        operations = Operations(inputs)
        with operations, watching(operations.noted):
            self._step(batch, trace)
        told = [
            operations.place(trace.data),
            operations.place([[each.values, each.weight] for each in trace.updates]),
            operations.place([[*each] for each in trace.reductions]),
        ]
        operations.noted.told = told
        return operations.noted

    def _tell(self, trace: Trace, told: Any) -> None:
        """Fill a trace with what a repeated step computed."""
        like = self._trace
        trace.data, updates, reductions = told
        trace.data_calls, trace.shapes = like.data_calls, like.shapes
        trace.optimizers, trace.standard = like.optimizers, like.standard
        trace.updates = [
            Update(each.metric, *pair) for each, pair in zip(like.updates, updates, strict=True)
        ]
        trace.reductions = [Reduction(*each) for each in reductions]


def _compiled(noted: Noted, inputs: int) -> Callable[..., Any]:
    """A function of a batch's tensors that makes the operations."""
    names: dict[str, Any] = {f"c{n}": tensor for n, (tensor, _) in enumerate(noted.outside)}
    lines: list[str] = []
    last = _last_uses(noted)
    for number, (func, args, kwargs, result) in enumerate(noted.calls):
        names[f"f{number}"] = getattr(func, "_op", func)
        given = [_source(each, names) for each in args]
        given += [f"{name}={_source(each, names)}" for name, each in kwargs.items()]
        target = _target(result)
        call = f"f{number}({', '.join(given)})"
        lines.append(f"{target} = {call}" if target else call)
        lines += [f"del t{slot}" for slot in last.get(number, ()) if slot >= inputs]
    parameters = ", ".join(f"t{n}" for n in range(inputs))
    body = "\n    ".join([*lines, f"return {_source(noted.told, names)}"])
    exec(f"def repeat({parameters}):\n    {body}\n", names)
    return torch.no_grad()(names["repeat"])


def _last_uses(noted: Noted) -> dict[int, list[int]]:
    """By operation the slots that none after it uses."""
    kept = {each.number for each in flat(noted.told) if type(each) is Slot}
    last: dict[int, int] = {}
    for number, call in enumerate(noted.calls):
        last.update({each.number: number for each in flat(call[1:]) if type(each) is Slot})
    uses: dict[int, list[int]] = {}
    for slot, number in last.items():
        if slot not in kept:
            uses.setdefault(number, []).append(slot)
    return uses


def _source(value: Any, names: dict[str, Any]) -> str:
    """An expression for a value in the function's code."""
    if type(value) is Slot:
        return f"t{value.number}"
    if type(value) is Outside:
        return f"c{value.number}"
    if isinstance(value, list):
        return f"[{', '.join(_source(each, names) for each in value)}]"
    if value is None or type(value) in (bool, int):
        return repr(value)
    name = f"v{len(names)}"
    names[name] = value
    return name


def _target(result: Any) -> str:
    """What an operation's result is bound to; nothing where it is what was there before."""
    if type(result) is Slot:
        return f"t{result.number}"
    if isinstance(result, list) and result:
        return ", ".join(_target(each) or "_" for each in result) + ","
    return ""
