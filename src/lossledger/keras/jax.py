"""The tap on JAX: the compiled step returns its row as one more output.

`jit` keeps the row on the device; the host holds one small array a step until it is fetched. Keras
calls the jitted step once a batch, `steps_per_execution` included, so each has its own row.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import get_opaque_trace_state
from keras import StatelessScope, tree

from lossledger.keras import tap as base
from lossledger.keras.optimizer import Rate, applied, micro_steps, scaled
from lossledger.keras.trace import Trace, carry, current, tracing

GONE = object()
"""Stands for a value noted inside a transformation of the user's, which can't leave it."""


class JaxTap(base.Tap):
    """Rows as outputs of the jitted step; see `lossledger.keras.tap.Tap`."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.rows: list[Any] = []

    def wrap_step(self, train_step: Any) -> Any:
        """See base class; the step returns `((logs, row), state)`."""

        def step(state: Any, data: Any) -> Any:
            here = _trace_state()
            trace = Trace(keep=lambda value: value if _trace_state() == here else GONE)
            with tracing(trace):
                logs, new_state = train_step(state, data)
            trace.updates = [
                update for update in trace.updates if not any(v is GONE for v in update)
            ]
            trace.data = None if trace.data is GONE else trace.data
            row = self.leave(trace, logs, state[2], new_state[2], data)
            return (logs, row), new_state

        return step

    def row(self, selection: Any, trace: Trace, *context: Any) -> Any:
        """See base class."""
        before, after, data = context
        columns = self.named(selection, data)
        if self.full:
            columns |= self._optimizer_columns(trace, before, after)
        row = jnp.stack([jnp.asarray(value, jnp.float32) for value in columns.values()])
        lanes = fingerprint(data) if self.full else None
        if lanes is not None:
            row = jnp.concatenate([row, jax.lax.bitcast_convert_type(lanes, jnp.float32)])
        whole = self.settle(selection.layout, [*columns], fingerprint=lanes is not None)
        return row if whole else None

    def _optimizer_columns(self, trace: Trace, before: Any, after: Any) -> dict[str, Any]:
        optimizer = applied(trace, self.model)
        variables = getattr(self.model.optimizer, "variables", ())
        places = {id(variable): place for place, variable in enumerate(variables)}
        place = None if optimizer is None else places.get(id(optimizer._iterations))
        if place is None or len(variables) != len(before):
            return {}
        columns: dict[str, Any] = {}
        rate = Rate.of(optimizer)
        if rate is not None:
            with StatelessScope(state_mapping=list(zip(variables, before, strict=True))):
                columns["learning_rate"] = rate.at(optimizer._iterations.value)
        if scaled(self.model):
            columns["updated"] = before[place] != after[place]
        elif micro_steps(optimizer):
            columns["updated"] = after[place] % micro_steps(optimizer) == 0
        return columns

    def wrap_jitted(self, jitted: Any) -> Any:
        """The jitted step as Keras expects it, with the row kept back."""

        def step(state: Any, data: Any) -> Any:
            if self.position is None:
                (logs, _), state = jitted(state, data)
                return logs, state
            self.begin((state,))
            with self.lock:
                (logs, row), state = jitted(state, data)
                if row is not None:
                    self.rows.append(row)
                self.executed(1)
            return logs, state

        return step

    def weights(self, arguments: tuple[Any, ...]) -> list[np.ndarray]:
        """See base class; during `fit` the weights are in the state, not in the variables."""
        if not arguments:
            return super().weights(arguments)
        model, state = self.model, arguments[0]
        variables = [*model.trainable_variables, *model.non_trainable_variables]
        values = {id(v): value for v, value in zip(variables, [*state[0], *state[1]], strict=True)}
        # A view of a buffer would keep it from being donated to the first step.
        return [np.array(jnp.copy(values[id(variable)])) for variable in model.weights]

    def take(self) -> Any:
        """See base class."""
        rows, self.rows = self.rows, []
        return rows

    def fetch(self, handle: Any) -> np.ndarray:
        """See base class."""
        if not handle:
            return np.zeros((0, len(self.columns)), "f4")
        return np.stack(jax.device_get(handle))


def noting_standard_step(original: Any) -> Any:
    """`JAXTrainer.train_step` that says so: only there is the bare loss safe to replace."""

    def train_step(self: Any, state: Any, data: Any) -> Any:
        trace = current()
        if trace is None:
            return original(self, state, data)
        trace.standard = True
        try:
            return original(self, state, data)
        finally:
            trace.standard = False

    return train_step


def carrying_loss(original: Any) -> Any:
    """`JAXTrainer.compute_loss_and_updates` that lets what was noted out of the gradient trace."""

    def compute_loss_and_updates(self: Any, *args: Any, **kwargs: Any) -> Any:
        trace = current()
        own = type(self).compute_loss_and_updates is compute_loss_and_updates
        if trace is None or not trace.standard or not own:
            return original(self, *args, **kwargs)
        with tracing(Trace()) as inner:
            loss, (unscaled, *rest) = original(self, *args, **kwargs)
        return loss, (carry(trace, inner, unscaled), *rest)

    return compute_loss_and_updates


def _trace_state() -> Any:
    """What tells a transformation's trace from the one around it."""
    return get_opaque_trace_state(convention="flax")


def fingerprint(data: Any) -> Any:
    """Fingerprint of a batch, equal to that of `lossledger.keras.tensorflow.fingerprint`."""
    content = data[:2] if isinstance(data, tuple) else data
    leaves = [_columns(leaf) for leaf in tree.flatten(content)]
    leaves = [leaf for leaf in leaves if leaf is not None]
    if not leaves:
        return None
    fewest = min(leaf.shape[0] for leaf in leaves)
    bits = jnp.concatenate([leaf[:fewest] for leaf in leaves], axis=1)
    bits = bits ^ (bits >> 16)
    table = base.multipliers(bits.shape[1])
    lanes = bits @ table[:-1] + table[-1]
    lanes = lanes ^ (lanes >> 15)
    return (lanes * (lanes | 1)).sum(0)


def _columns(leaf: Any) -> Any:
    if not hasattr(leaf, "shape") or not leaf.shape or 0 in leaf.shape[1:]:
        return None
    flat = jnp.reshape(jnp.asarray(leaf), (leaf.shape[0], -1))
    flat = flat[:, base.stride(flat.shape[1])]
    if jnp.issubdtype(flat.dtype, jnp.floating):
        return jax.lax.bitcast_convert_type(flat.astype(jnp.float32), jnp.int32)
    whole = jnp.issubdtype(flat.dtype, jnp.integer) or flat.dtype == bool
    return flat.astype(jnp.int32) if whole else None
