"""The tap on JAX: the compiled step returns its row as one more output.

`jit` keeps the row on the device; the host holds one small array a step until it is fetched. Keras
calls the jitted step once a batch, `steps_per_execution` included, so each has its own row.
"""

import itertools
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np
from jax.extend.core import get_opaque_trace_state
from keras import StatelessScope, tree

from lossledger.entry import WHOLE
from lossledger.keras import fingerprint
from lossledger.keras import tap as base
from lossledger.keras.buffer import Buffer
from lossledger.keras.held import Held
from lossledger.keras.optimizer import Rate, applied, micro_steps, scaled
from lossledger.keras.trace import GONE, Trace, carry, current, tracing

STACKED = 64
"""Rows that are stacked on the device at once, to be fetched as one array."""


class JaxBuffer(Buffer):
    """Rows as small arrays on the device.

    For each array that it frees, JAX lets go of the interpreter's lock: in the recorder's thread
    that is a wait for the training, and one of the training, a row. So the training frees `spent`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.spent: list[Any] = []

    def fetch(self, handle: list[Any]) -> tuple[np.ndarray, Any]:
        """See base class."""
        try:
            return super().fetch(handle)
        except RuntimeError:
            # A step's computation failed, as all do once a process of several has died.
            found = self._left(handle)
            if not found[1]:
                raise
            return found
        finally:
            self.spent = handle

    def _left(self, handle: list[Any]) -> tuple[np.ndarray, list[int]]:
        """As `fetch`, row by row: those that were computed."""
        rows: dict[int, np.ndarray] = {}
        for place, row in enumerate(handle):
            with suppress(RuntimeError):
                if row is not None:
                    rows[place] = np.asarray(local(row))
        return np.array([*rows.values()]), [*rows]

    def stacked(self, rows: Sequence[Any]) -> np.ndarray:
        """See base class."""
        fetched: list[np.ndarray] = []
        if jax.process_count() > 1:
            # A computation of several processes would have to be begun by all of them alike.
            rows = [local(row) for row in rows]
        for place in range(0, len(rows), STACKED):
            few = rows[place : place + STACKED]
            # As many each time: the stack is compiled once.
            full = _stacked(*few, *[few[-1]] * (STACKED - len(few)))
            fetched.append(np.asarray(full)[: len(few)])
        return np.concatenate(fetched)


class JaxTap(base.Tap[Any]):
    """Rows as outputs of the jitted step; see `lossledger.keras.tap.Tap`."""

    def __init__(self, model: Any, buffer: Any = None) -> None:
        super().__init__(model, buffer or JaxBuffer())

    def wrap_step(self, train_step: Any) -> Any:
        """See base class; the step returns `((logs, row), state)`."""

        def step(state: Any, data: Any) -> Any:
            here = _trace_state()
            trace = Trace(keep=lambda value: value if _trace_state() == here else GONE)
            with tracing(trace):
                logs, new_state = train_step(state, data)
            trace.let_go()
            row = self.leave(trace, logs, state[2], new_state[2], data)
            return (logs, row), new_state

        return step

    def row(self, selection: Any, trace: Trace, *context: Any) -> Any:
        """See base class."""
        before, after, data = context
        columns = self.named(selection, trace, data)
        if self.full:
            columns |= self._optimizer_columns(trace, before, after)
        if spans_processes():
            columns["replica"] = float(WHOLE)
        row = jnp.stack([jnp.asarray(value, jnp.float32) for value in columns.values()])
        lanes = lanes_of(data) if self.full else None
        if lanes is not None:
            bits = jax.lax.bitcast_convert_type(lanes, jnp.float32)
            row = jnp.concatenate([row, bits if self.hashing else jnp.zeros_like(bits)])
        whole = self.settle(selection.layout, [*columns], hashed=lanes is not None)
        if not whole:
            return None
        # Whole on each device that shares the step, whatever lies where.
        lies = everywhere()
        return row if lies is None else jax.lax.with_sharding_constraint(row, lies)

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
        buffer = self.buffer
        rows = buffer.rows

        def step(state: Any, data: Any) -> Any:
            if self.position is None:
                (logs, _), state = jitted(state, data)
                return logs, state
            if self.fresh or len(buffer.times) >= buffer.backlog:
                self.begin((state,))
            (logs, row), state = jitted(state, data)
            rows.append(row)
            buffer.spent.clear()
            buffer.executed()
            return logs, state

        return step

    def copies(self, variables: Sequence[Any], arguments: tuple[Any, ...]) -> Held:
        """See base class; during `fit` they are in the state, not in the variables."""
        within: dict[int, Any] = {}
        if arguments:
            model, state = self.model, arguments[0]
            own = [*model.trainable_variables, *model.non_trainable_variables]
            own += getattr(model.optimizer, "variables", ())
            values = itertools.chain(*state[:3])
            within = {id(v): value for v, value in zip(own, values, strict=True)}

        def now(variable: Any) -> Any:  # a variable of the model has no value meanwhile
            value = within.get(id(variable))
            return local(variable.value if value is None else value)

        values = [now(variable) for variable in variables]
        if jax.default_backend() == "cpu":
            return Held([_copied(value) for value in values])
        for value in values:
            value.copy_to_host_async()
        return Held([np.asarray(value) for value in values])


def spans_processes() -> bool:
    """Whether a step is one computation of several processes, of which each sees all of it."""
    return jax.process_count() > 1 and keras.distribution.distribution() is not None


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


def local(value: Any) -> Any:
    """What this process has of an array that it shares with others, each of which has all of it."""
    shared = isinstance(value, jax.Array) and not value.is_fully_addressable
    if not shared or not value.is_fully_replicated:
        return value
    return value.addressable_data(0)


def _copied(value: Any) -> Any:
    """A copy of an array on a CPU; `numpy.asarray` would keep it from being donated."""
    try:
        # A copy by JAX takes ten times as long.
        return np.from_dlpack(value).copy()
    except (BufferError, RuntimeError, TypeError, ValueError):  # bfloat16; an array in shards
        return jnp.copy(value)


def everywhere() -> Any:
    """How an array lies that is whole on each of the devices; `None` where there is one."""
    distribution = keras.distribution.distribution()
    if distribution is None:
        return None
    mesh = distribution.device_mesh.backend_mesh
    return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())


@jax.jit
def _stacked(*rows: Any) -> Any:
    return jnp.stack(rows)


def lanes_of(data: Any) -> Any:
    """Fingerprint of a batch, two int32 lanes; `None` without any leaf that it can look at."""
    leaves = [_columns(leaf) for leaf in tree.flatten(fingerprint.content(data))]
    leaves = [leaf for leaf in leaves if leaf is not None]
    if not leaves:
        return None
    fewest = min(leaf.shape[0] for leaf in leaves)
    table = fingerprint.multipliers(sum(leaf.shape[1] for leaf in leaves))
    lanes, place = table[-1], 0
    for leaf in leaves:
        bits = leaf[:fewest]
        bits = bits ^ (bits >> 16)
        part = table[place : place + bits.shape[1]]
        # No matrix product: XLA fuses none, and on a CPU the step's convolutions wait for it.
        lanes = lanes + (bits[:, :, None] * part).sum(1, dtype=jnp.int32)
        place += bits.shape[1]
    lanes = lanes ^ (lanes >> 15)
    return (lanes * (lanes | 1)).sum(0, dtype=jnp.int32)


def _columns(leaf: Any) -> Any:
    if not hasattr(leaf, "shape") or not leaf.shape or 0 in leaf.shape[1:]:
        return None
    flat = jnp.reshape(jnp.asarray(leaf), (leaf.shape[0], -1))
    flat = flat[:, fingerprint.stride(flat.shape[1])]
    if jnp.issubdtype(flat.dtype, jnp.floating):
        return jax.lax.bitcast_convert_type(flat.astype(jnp.float32), jnp.int32)
    whole = jnp.issubdtype(flat.dtype, jnp.integer) or flat.dtype == bool
    return flat.astype(jnp.int32) if whole else None
