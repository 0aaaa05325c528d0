"""What is on record of optimizers: of a step, the rate and whether it updated; of a call, state."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
from keras.optimizers.schedules import LearningRateSchedule

from lossledger.keras.describe import size_of, weights_fingerprint
from lossledger.keras.held import Held
from lossledger.keras.trace import Trace

STATE_LIMIT = 2**26
"""Bytes of an optimizer's variables above which no fingerprint of them is taken."""


@dataclass(frozen=True)
class Rate:
    """The learning rate of an optimizer: a variable's value, or a schedule's at a step."""

    value: Any
    schedule: Any = None

    @classmethod
    def of(cls, optimizer: Any) -> "Rate | None":
        """The optimizer's rate; `None` for a callable, which may not be called once more."""
        rate = optimizer._learning_rate
        if isinstance(rate, LearningRateSchedule):
            return cls(None, rate)
        return cls(rate) if isinstance(rate, keras.Variable) else None

    def at(self, iterations: Any) -> Any:
        """The rate of the step before which `iterations` updates had been made."""
        return self.value.value if self.schedule is None else self.schedule(iterations)


def applied(trace: Trace, model: Any) -> Any:
    """The one Keras optimizer that `train_step` applied; `None` for none or several.

    A loss-scaling one is not applied, where the step runs eagerly, if a gradient is not finite.
    """
    if len(trace.optimizers) == 1:
        return trace.optimizers[0]
    optimizers = {id(optimizer): optimizer for optimizer in trace.optimizers}
    if not optimizers and scaled(model):
        return model.optimizer.inner_optimizer
    return next(iter(optimizers.values())) if len(optimizers) == 1 else None


def micro_steps(optimizer: Any) -> int:
    """Steps that one update accumulates; 0 where every step updates."""
    steps = getattr(optimizer, "gradient_accumulation_steps", None)
    return steps if steps and steps > 1 else 0


def scaled(model: Any) -> bool:
    """Whether the model's optimizer may skip an update because a gradient is not finite."""
    return isinstance(getattr(model, "optimizer", None), keras.optimizers.LossScaleOptimizer)


class State(NamedTuple):
    """What an optimizer has come to.

    Args:
        held: The updates that it has made, and then what all else held that an update changes.
        whole: Whether that is all, not the number alone: its variables aren't above `STATE_LIMIT`.
    """

    held: Held
    whole: bool

    @classmethod
    def of(cls, optimizer: Any, copies: Callable[[Sequence[Any]], Held]) -> "State":
        """The state of a Keras optimizer; `copies` are of what some of its variables hold."""
        inner = getattr(optimizer, "inner_optimizer", optimizer)
        counters = [inner._iterations, optimizer._iterations]
        aside = {id(each) for each in (*counters, inner._learning_rate, optimizer._learning_rate)}
        variables = [each for each in optimizer.variables if id(each) not in aside]
        variables = variables if optimizer.built else []
        whole = size_of(variables) <= STATE_LIMIT
        return cls(copies([counters[0], *(variables if whole else ())]), whole)

    def told(self) -> dict[str, Any]:
        """What is kept of it: no fingerprint where there are no variables (yet)."""
        iterations, *variables = self.held.read()
        found: dict[str, Any] = {"iterations": int(iterations)}
        if variables or not self.whole:
            found["variables"] = weights_fingerprint(variables) if self.whole else None
        return found
