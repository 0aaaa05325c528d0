"""What an entry says of the optimizer: learning rate, and whether the step moved the weights."""

from dataclasses import dataclass
from typing import Any

import keras
from keras.optimizers.schedules import LearningRateSchedule

from lossledger.keras.trace import Trace


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
