"""What one `train_step` computed, noted while it is traced (or, run eagerly, executed).

Keras hands the raw loss of a step to its loss tracker, a `keras.metrics.Mean`, inside the compiled
step. The methods below are replaced while a recording is on; they only keep references to what
passes through them, so they add no operation to the step. A backend's tap then decides, after
`train_step` has returned, which of these values make the entry.
"""

import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import keras


class Update(NamedTuple):
    """One `metric.update_state(values, sample_weight=weight)`."""

    metric: Any
    values: Any
    weight: Any


class Reduction(NamedTuple):
    """What one loss was reduced with: `keras.losses` applies both to its values."""

    sample_weight: Any
    mask: Any


class Carried(NamedTuple):
    """What leaves JAX's gradient trace in the place of the bare loss (a pytree)."""

    loss: Any
    data: Any
    outputs: tuple[Any, ...]
    reductions: tuple[Reduction, ...]


GONE = object()
"""Stands for a value that can't leave the transformation or the nested graph it was noted in."""


def _itself(value: Any) -> Any:
    return value


@dataclass(slots=True)
class Trace:
    """The values noted during one `train_step`.

    Args:
        keep: Called with each noted value; returns what to hold on to, or `GONE`. TensorFlow uses
            it to carry a scalar out of a nested graph.
        copy: Makes a copy of sample weights where the loss will write to them, as Keras's does on
            PyTorch where there is a mask, too (`apply_mask` in `keras/src/losses/loss.py`).
    """

    keep: Callable[[Any], Any] = _itself
    copy: Callable[[Any], Any] = _itself
    updates: list[Update] = field(default_factory=list)
    data: Any = None
    data_calls: int = 0
    reductions: list[Reduction] = field(default_factory=list)
    shapes: list[Any] = field(default_factory=list)
    optimizers: list[Any] = field(default_factory=list)
    standard: bool = False
    inner: "Trace | None" = None

    def noted(self) -> list[Any]:
        """The data term, then of each update in turn its metric, values and weight."""
        found = [self.data]
        for update in self.updates:
            found += update
        return found

    def let_go(self) -> None:
        """Forget the values that are out of reach now that `train_step` has returned."""
        self.updates = [u for u in self.updates if u.values is not GONE and u.weight is not GONE]
        self.data = None if self.data is GONE else self.data


_local = threading.local()


def current() -> Trace | None:
    """The trace that is on in this thread, if any."""
    return getattr(_local, "trace", None)


class tracing:
    """Note into `trace` what passes; an outer trace is put back afterwards.

    A class of its own: `contextlib.contextmanager` takes a step three times as long.
    """

    __slots__ = ("_outer", "_trace")

    def __init__(self, trace: Trace) -> None:
        self._trace = trace

    def __enter__(self) -> Trace:
        self._outer = current()
        _local.trace = self._trace
        return self._trace

    def __exit__(self, *error: object) -> None:
        _local.trace = self._outer


def noting_update(original: Any) -> Any:
    """`keras.metrics.Mean.update_state` that notes values of plain means."""

    def update_state(self: Any, values: Any, sample_weight: Any = None) -> Any:
        trace = current()
        if trace is not None and type(self).update_state is update_state:
            if isinstance(values, Carried):
                values = _unpack(trace, values)
            # Whatever the values are: the user's step goes on. A context manager would cost an
            # eager step more than what it guards.
            try:  # noqa: SIM105
                trace.updates.append(Update(self, trace.keep(values), trace.keep(sample_weight)))
            except Exception:
                pass
        return original(self, values, sample_weight=sample_weight)

    return update_state


def carry(trace: Trace, inner: Trace, loss: Any) -> Carried:
    """Pack what was noted inside a gradient trace, to be unpacked by the loss tracker's update."""
    trace.inner = inner
    data = None if inner.data is loss else inner.data
    outputs = tuple((update.values, update.weight) for update in inner.updates)
    return Carried(loss, data, outputs, tuple(inner.reductions))


def _unpack(trace: Trace, carried: Carried) -> Any:
    inner = trace.inner
    if inner is None:
        return carried.loss
    trace.data_calls = inner.data_calls
    if inner.data is not None:
        trace.data = carried.loss if carried.data is None else carried.data
    trace.reductions.extend(carried.reductions)
    trace.shapes.extend(inner.shapes)
    trace.updates.extend(
        Update(update.metric, *outputs)
        for update, outputs in zip(inner.updates, carried.outputs, strict=True)
    )
    return carried.loss


def noting_data_loss(original: Any) -> Any:
    """`CompileLoss.call` that notes its value: the data term, before penalties are added."""

    def call(self: Any, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        value = original(self, y_true, y_pred, sample_weight)
        trace = current()
        if trace is not None and value is not None:
            trace.data_calls += 1
            try:  # noqa: SIM105 # see above
                trace.data = trace.keep(value)
            except Exception:
                pass
        return value

    return call


def noting_reduction(original: Any) -> Any:
    """`keras.src.losses.loss.reduce_weighted_values` that notes sample weights and mask."""

    def reduce_weighted_values(
        values: Any, sample_weight: Any = None, mask: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        trace = current()
        if trace is not None:
            try:
                # Made a number later: here it would split a graph that torch compiles.
                trace.shapes.append(values.shape)
                weights = None if sample_weight is None else trace.keep(sample_weight)
                held = None if mask is None else trace.keep(mask)
                if weights is not None and held is not None:
                    weights = trace.copy(weights)
                trace.reductions.append(Reduction(weights, held))
            except Exception:
                pass
        return original(values, sample_weight, mask, *args, **kwargs)

    return reduce_weighted_values


def _per_row(shape: Any) -> int | None:
    """Loss values that one row has; 0 of a number for the whole batch, `None` if not known."""
    if getattr(shape, "rank", 0) is None:  # TensorFlow's, of a number of axes that isn't known
        return None
    sizes = [None if size is None else int(size) for size in shape]
    if not sizes:
        return 0
    return None if None in sizes[1:] else math.prod(size or 0 for size in sizes[1:])


def counted(trace: Trace) -> dict[str, Any]:
    """How many loss values a mask left in, and the sum of the sample weights applied to them.

    The latter is what `mean_with_sample_weight` divides by (`keras/src/losses/loss.py`). NaN where
    there is none, where several losses make the step's, and for what is out of reach.
    """
    found = {"elements": float("nan"), "sample_weight": float("nan")}
    if len(trace.reductions) != 1:
        return found
    weights, mask = trace.reductions[0]
    if weights is GONE or mask is GONE:
        return found
    ops = keras.ops
    if mask is not None:
        mask = ops.cast(mask, "float32")
        found["elements"] = ops.sum(mask)
    if weights is not None:
        weights = ops.cast(weights, "float32")
        if mask is not None:
            missing = [1] * (len(mask.shape) - len(weights.shape))
            weights = ops.reshape(weights, (*ops.shape(weights), *missing)) * mask
        found["sample_weight"] = ops.sum(weights)
    return found


@dataclass(frozen=True)
class Layout:
    """How a model's entries are to be read; the same for all steps of a compiled function.

    Args:
        loss_name: The name under which Keras reports the loss (`"loss"`, or a custom key).
        weight_kind: What the reported mean weights by: `"rows"`, `"one"`, `"sample_weight"`.
        history_is: `"epoch_mean"` where History holds the metric's result, `"last"` where it
            holds the last step's logs.
        columns: Names of the row's values, in order.
        output_weights: Weight kind by named output loss.
        penalty: `"none"` (the loss is its data term), `"known"` (column `data`), `"unknown"`.
        losses_per_row: Loss values that one row has, as the steps of a sequence; 0 where the loss
            is one number for the batch, `None` where that isn't known, or losses are several.
        hidden_by: The class of a metric of the user's that has the loss's name: under it Keras
            reports the metric, and the loss not at all.
    """

    loss_name: str
    weight_kind: str
    history_is: str
    columns: tuple[str, ...]
    output_weights: Mapping[str, str]
    penalty: str
    losses_per_row: int | None = None
    hidden_by: str | None = None


class Selection(NamedTuple):
    """The values of one step, chosen from its trace; `values` go with `layout.columns`."""

    layout: Layout
    values: tuple[Any, ...]


def select(model: Any, trace: Trace, logs: Any) -> Selection | None:
    """Choose the step's loss, weight and output losses from what was noted.

    Keras's own loss tracker comes first; then a `Mean` of the user's named like a loss; then a
    loss in the logs that `train_step` returns, where no metric was updated with it.

    Args:
        model: The model trained.
        trace: What was noted during its `train_step`.
        logs: What `train_step` returned as logs.

    Returns:
        The selection, or `None` where the step shows no loss.
    """
    logs = logs if isinstance(logs, Mapping) else {}
    means = _by_metric(trace.updates)
    main = _main_mean(model, means)
    if main is None:
        return _from_logs(logs)
    updates = means.pop(id(main))
    loss, weight = _fold(updates)
    own = main is getattr(model, "_loss_tracker", None)
    named = [group for group in means.values() if "loss" in group[0].metric.name]
    outputs = {group[0].metric.name: group for group in named}
    outputs.pop("loss", None)
    penalty, data = _penalty(trace, loss, own and len(updates) == 1)
    key = main.name if main.name in logs or not logs else _loss_key(logs) or main.name
    layout = Layout(
        loss_name=key,
        weight_kind=_weight_kind(weight, own),
        history_is=_history_is(model, logs, key, loss),
        columns=("loss", "weight", *(["data"] if penalty == "known" else []), *outputs),
        output_weights={
            name: _weight_kind(group[0].weight, True) for name, group in outputs.items()
        },
        penalty=penalty,
        losses_per_row=_per_row(trace.shapes[0]) if len(trace.shapes) == 1 else None,
        hidden_by=_hider(model, key) if own else None,
    )
    values = (loss, 1.0 if weight is None else weight, *data)
    return Selection(layout, (*values, *(_fold(group)[0] for group in outputs.values())))


def _by_metric(updates: list[Update]) -> dict[int, list[Update]]:
    groups: dict[int, list[Update]] = {}
    for update in updates:
        groups.setdefault(id(update.metric), []).append(update)
    return groups


def _main_mean(model: Any, means: Mapping[int, list[Update]]) -> Any:
    tracker = getattr(model, "_loss_tracker", None)
    if id(tracker) in means:
        return tracker
    metrics = [group[0].metric for group in means.values() if "loss" in group[0].metric.name]
    for name in ("loss", "total_loss"):
        for metric in metrics:
            if metric.name == name:
                return metric
    return metrics[0] if metrics else None


def _fold(updates: list[Update]) -> tuple[Any, Any]:
    """Loss and weight as `Mean` accounts them: a vector, or several updates, are one mean."""
    if len(updates) == 1 and len(getattr(updates[0].values, "shape", ())) == 0:
        return updates[0].values, updates[0].weight
    ops = keras.ops
    total = weight = 0.0
    for update in updates:
        values = ops.cast(update.values, "float32")
        weights = ops.ones_like(values) if update.weight is None else update.weight
        weights = ops.broadcast_to(ops.cast(weights, "float32"), ops.shape(values))
        total = total + ops.sum(values * weights)
        weight = weight + ops.sum(weights)
    return ops.divide_no_nan(total, weight), weight


def _weight_kind(weight: Any, own: bool) -> str:
    if weight is None:
        return "one"
    return "rows" if own else "sample_weight"


def _penalty(trace: Trace, loss: Any, standard: bool) -> tuple[str, tuple[Any, ...]]:
    if not standard or trace.data_calls > 1 or trace.data is None:
        return "unknown", ()
    if trace.data is loss:
        return "none", ()
    return "known", (trace.data,)


def _loss_key(logs: Mapping[str, Any]) -> str | None:
    if "loss" in logs:
        return "loss"
    return next((key for key in logs if "loss" in key), None)


def _hider(model: Any, name: str) -> str | None:
    """The class of a compiled metric of a name: Keras puts it over the loss (`Trainer`)."""
    compiled = getattr(model, "_compile_metrics", None)
    metrics = getattr(compiled, "metrics", None) or ()
    return next((type(each).__name__ for each in metrics if each.name == name), None)


def _history_is(model: Any, logs: Mapping[str, Any], key: str, loss: Any) -> str:
    """Keras puts the last step's logs into History where their keys are not the metrics' names."""
    compiled = [type(metric).__name__ == "CompileMetrics" for metric in model.metrics]
    names = {m.name for m, several in zip(model.metrics, compiled, strict=True) if not several}
    same_keys = names <= set(logs) and any(compiled) == bool(set(logs) - names)
    if not logs or same_keys:
        return "epoch_mean"
    return "last" if logs.get(key) is loss else "epoch_mean"


def _from_logs(logs: Mapping[str, Any]) -> Selection | None:
    key = _loss_key(logs)
    if key is None or len(getattr(logs[key], "shape", ())) > 0:
        return None
    outputs = {name: value for name, value in logs.items() if "loss" in name and name != key}
    outputs = {name: v for name, v in outputs.items() if len(getattr(v, "shape", ())) == 0}
    layout = Layout(
        loss_name=key,
        weight_kind="rows",
        history_is="last",
        columns=("loss", *outputs),
        output_weights=dict.fromkeys(outputs, "rows"),
        penalty="unknown",
    )
    return Selection(layout, (logs[key], *outputs.values()))
