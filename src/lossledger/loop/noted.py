"""The operations of one training step on PyTorch, noted while it runs, below autograd.

What may change from one step to another is looked at before a step is taken for the next one's
like. The code that ran must be that of Keras and PyTorch alone, and have read no number of the
device; each number and each constant that goes into an operation must be the same.
"""

import contextlib
import functools
import gc
import os
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, NamedTuple

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

CONSTANT = 16
"""Elements of a constant at most: what is larger is no constant of the code's."""

MASKS = (torch.bool, torch.uint8)
"""Types of an index that picks as many elements as it has true ones."""

READS = {"item", "tolist", "numpy", "__array__", "__bool__", "__int__", "__float__", "__index__"}
"""Methods of a tensor by which code learns a number that operations have computed."""

PLAIN = (torch.Tensor, torch.nn.Parameter)

KNOWN = ("keras", "torch", "numpy", "lossledger")
"""Packages whose code keeps no count of a model's steps; so does Python's own."""

RESTORING = {"torch.random", "torch.utils.checkpoint"}
"""Modules that set a random stream back, which no operation shows."""


class Slot(NamedTuple):
    """A tensor that the step was given or has made."""

    number: int


class Outside(NamedTuple):
    """A tensor that was there before: a variable, or a constant of the code's."""

    number: int


@dataclass
class Noted:
    """The operations of one step.

    Args:
        calls: Of each its function, arguments and what it returned, tensors by their places.
        outside: The tensors that `Outside` numbers, the small ones with a copy.
        written: Which of them operations write to.
        told: What the step's trace holds, tensors by their places.
        fit: Whether they may be all that the step did.
    """

    calls: list[tuple[Any, Any, Any, Any]] = field(default_factory=list[tuple[Any, Any, Any, Any]])
    outside: list[tuple[Any, Any]] = field(default_factory=list[tuple[Any, Any]])
    written: set[int] = field(default_factory=set[int])
    told: Any = None
    fit: bool = True

    def equals(self, other: "Noted") -> bool:
        """Whether another step made the same operations, with the same numbers and constants."""
        if not (self.fit and other.fit and len(self.outside) == len(other.outside)):
            return False
        if self.calls != other.calls or self.told != other.told:
            return False
        return all(
            a[0] is b[0] or (place not in self.written and _constant(*a, b[1]))
            for place, (a, b) in enumerate(zip(self.outside, other.outside, strict=True))
        )


class Operations(TorchDispatchMode):
    """Notes operations below autograd."""

    def __init__(self, inputs: Sequence[torch.Tensor]) -> None:
        super().__init__()
        self.noted = Noted()
        # Weak: autograd makes a view anew where somebody else holds it.
        self._places: Any = WeakTensorKeyDictionary()
        self._outside: Any = WeakTensorKeyDictionary()
        self._count = 0
        for leaf in inputs:
            self._made(leaf)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        if _tells(func, args) or given.get("generator") is not None or not hasattr(func, "_schema"):
            self.noted.fit = False
        if not self.noted.fit:
            return func(*args, **given)
        where = self.place(args), self.place(given)
        self._note_written(func, *where)
        result = func(*args, **given)
        self.noted.calls.append((func, *where, self._results(result)))
        return result

    def _note_written(self, func: Any, args: list[Any], given: dict[str, Any]) -> None:
        for place, argument in enumerate(func._schema.arguments):
            if argument.alias_info is not None and argument.alias_info.is_write:
                value = args[place] if place < len(args) else given.get(argument.name)
                found = [each.number for each in flat(value) if type(each) is Outside]
                self.noted.written.update(found)

    def place(self, value: Any) -> Any:
        """A structure with places for its tensors."""
        if isinstance(value, torch.Tensor):
            if type(value) not in PLAIN:
                self.noted.fit = False
            slot = self._places.get(value)
            if slot is None:
                slot = self._outside.get(value)
            if slot is None:
                slot = self._outside[value] = Outside(len(self.noted.outside))
                copy = value.detach().clone() if value.numel() <= CONSTANT else None
                self.noted.outside.append((value, copy))
            return slot
        if isinstance(value, list | tuple):
            return [self.place(each) for each in value]
        if isinstance(value, dict):
            return {name: self.place(each) for name, each in value.items()}
        return value

    def _results(self, result: Any) -> Any:
        if isinstance(result, list | tuple):
            return [self._results(each) for each in result]
        if not isinstance(result, torch.Tensor):
            return None
        known = self._places.get(result)
        if known is None and result in self._outside:
            known = self._outside[result]
        return self._made(result) if known is None else known

    def _made(self, value: torch.Tensor) -> Slot:
        slot = self._places[value] = Slot(self._count)
        self._count += 1
        return slot


class _Reads(TorchFunctionMode):
    """Notes whether numbers of the device were read."""

    def __init__(self) -> None:
        super().__init__()
        self.found = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in READS:
            self.found = True
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def watching(noted: Noted) -> Iterator[None]:
    """Notes whether code runs that is neither Keras's nor PyTorch's, or reads numbers."""
    before, reads, collecting = sys.gettrace(), _Reads(), gc.isenabled()

    def saw(frame: FrameType, event: str, value: Any) -> Any:
        # Of calls alone: a profiler's function is called for returns, and for calls of C, too.
        if not _is_known(frame.f_globals.get("__name__", ""), frame.f_code.co_filename):
            noted.fit = False
        return None if before is None else before(frame, event, value)  # a debugger's

    # The collector calls code that is none of the step's.
    gc.disable()
    sys.settrace(saw)
    try:
        with reads:
            yield
    finally:
        sys.settrace(before)
        if collecting:
            gc.enable()
        noted.fit = noted.fit and not reads.found


def flat(value: Any) -> Iterator[Any]:
    """The leaves of a structure of places."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list) or type(value) is tuple:
        for each in value:
            yield from flat(each)
    else:
        yield value


@functools.cache
def _is_known(module: str, file: str) -> bool:
    """Whether code is Keras's, PyTorch's or Python's own; anybody's may be named like it."""
    if module in RESTORING:
        return False
    if file.startswith("<"):
        root = module.partition(".")[0]
        return root in (*KNOWN, *sys.stdlib_module_names) or module.startswith("namedtuple_")
    homes = [str(sys.modules[name].__file__) for name in KNOWN if name in sys.modules]
    if file.startswith(tuple(f"{os.path.dirname(home)}{os.sep}" for home in homes)):
        return True
    return file.startswith(sysconfig.get_path("stdlib")) and "-packages" not in file


def _tells(func: Any, args: Sequence[Any]) -> bool:
    """Whether an operation lets code know numbers of the device, be it by its result's shape."""
    tags = getattr(func, "tags", ())
    if torch.Tag.data_dependent_output in tags:
        return True
    if func is torch.ops.aten.index.Tensor:
        return any(each is not None and each.dtype in MASKS for each in args[1])
    return torch.Tag.dynamic_output_shape in tags


def opaque(model: Any) -> bool:
    """Whether code may run in a model's step that is seen neither as Python nor as operations.

    TorchScript has code of its own, a compiled module has kernels of its own, and on a GPU hooks of
    the backward pass run in another thread.
    """
    # A model of Keras's doesn't name its layers to PyTorch.
    modules = [each for layer in model._flatten_layers() for each in layer.modules()]
    parameters = [each for module in modules for each in module.parameters(recurse=False)]
    return any(
        isinstance(each, torch.jit.ScriptModule)
        or type(each).__name__ == "OptimizedModule"  # importing its class takes seconds
        or each._compiled_call_impl is not None
        or each._backward_hooks
        or each._backward_pre_hooks
        for each in modules
    ) or any(each._backward_hooks or each._post_accumulate_grad_hooks for each in parameters)


def _constant(value: Any, before: Any, other: Any) -> bool:
    """Whether a small tensor is what it was before the step, and what another one was."""
    if before is None or other is None or before.dtype != other.dtype:
        return False
    return bool(torch.equal(before, other) and torch.equal(value, before))
