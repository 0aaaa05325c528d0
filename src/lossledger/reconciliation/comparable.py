"""Whether two numbers may be compared, and what is not the same about how they came about."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from lossledger.call import Call
from lossledger.entry import OF_EPOCHS
from lossledger.reconciliation.compiled import (
    integer_targets,
    layers_of,
    loss_weights_of,
    of_outputs,
    same_functions,
    takes_logits,
    targets_of,
)
from lossledger.reconciliation.factors import masks
from lossledger.reconciliation.result import Difference
from lossledger.reconciliation.weights import shapes_in, weights_file
from lossledger.run import Run
from lossledger.words import argument

# What of the arguments decides nothing, or is looked at in the entries.
_ARGUMENTS = {"verbose", "callbacks", "workers", "use_multiprocessing", "max_queue_size"}
_DATA = {"x", "y"}
_OWN = """
x y batch_size epochs initial_epoch shuffle steps_per_epoch validation_data validation_split
validation_freq return_dict
"""
_DRIVERS_OWN = {f"arguments.{name}" for name in _OWN.split()}
_NAMELESS = {"name", "registered_name", "module"}
_VERSIONS = ("keras", "backend", "backend_version", "numpy", "python", "lossledger")


def differences(a: tuple[Run, Call], b: tuple[Run, Call]) -> tuple[Difference, ...]:
    """All that the two calls' records say differently, `optimizer.learning_rate` by name."""
    rows = all(call.driver in OF_EPOCHS for _, call in (a, b))
    ours, theirs = record(*a, rows=rows), record(*b, rows=rows)
    other_driver = ours["driver"] != theirs["driver"]  # which has arguments of its own
    found = [
        Difference(name, ours.get(name), theirs.get(name))
        for name in dict.fromkeys((*ours, *theirs))
        if ours.get(name) != theirs.get(name)
        and not (other_driver and name in _DRIVERS_OWN and not (name in ours and name in theirs))
    ]
    layers = [list(call.configuration.get("layers") or ()) for _, call in (a, b)]
    only = [_without(*layers), _without(*reversed(layers))]
    return (*found, *([Difference("layers", *only)] if any(only) and all(layers) else ()))


def _without(layers: Sequence[Any], others: Sequence[Any]) -> list[Any]:
    """The layers that the others don't have, or have fewer of."""
    left = list(others)
    found: list[Any] = []
    for layer in layers:
        if layer in left:
            left.remove(layer)
        else:
            found.append(layer)
    return found


def record(run: Run, call: Call, *, rows: bool = True) -> dict[str, Any]:
    """What decides how a call trains, as it is recorded, by dotted names; layers are left out.

    Args:
        run: The run.
        call: The call.
        rows: Whether to say how many rows the data have, where the call was given all of them.
    """
    found = dict(_flat("", {"driver": call.driver}))
    for name, value in call.arguments.items():
        if name in _DATA and not (rows and call.driver in OF_EPOCHS):
            value = _of_any_batch(value)  # of a series, the first batch alone
        if name not in _ARGUMENTS:
            found |= dict(_flat(f"arguments.{name}", value))
    weights = loss_weights_of(call)
    same = {"loss_weights": weights if set(weights) != {1.0} else None}
    found |= dict(_flat("", {**call.configuration, **same, "optimizer": _optimizer(call)}))
    found |= dict(_flat("loss", of_outputs(call)))
    versions = run.info.get("versions", {})
    found |= {f"versions.{name}": versions[name] for name in _VERSIONS if name in versions}
    found |= dict(_flat("environment", run.info.get("environment") or {}))
    if run.info.get("device"):
        found["device"] = run.info["device"]
    for name in ("weight_kind", "mean_of_rows", "initial_weights"):
        if name in call.info:
            found[name] = call.info[name]
    return found


def _of_any_batch(value: Any) -> Any:
    """What is said of a batch's arrays, but for how many rows it has."""
    if isinstance(value, list):
        return [_of_any_batch(each) for each in cast("list[Any]", value)]
    if not isinstance(value, Mapping):
        return value
    table = cast("Mapping[str, Any]", value)
    if "shape" in table:
        return {**table, "shape": [None, *table["shape"][1:]]}
    return {name: _of_any_batch(each) for name, each in table.items()}


def _optimizer(call: Call) -> Any:
    """The optimizer, without the one around it that scales the loss."""
    optimizer = call.configuration.get("optimizer")
    inner = optimizer.get("inner_optimizer") if isinstance(optimizer, Mapping) else None
    if not isinstance(inner, Mapping):
        return optimizer
    table = cast("Mapping[str, Any]", inner)
    return {"class": table.get("class_name"), **(table.get("config") or {})}


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    """A record as names and plain values; lists stay whole."""
    if isinstance(value, Mapping):
        table = cast("Mapping[str, Any]", value)
        if set(table) == {"shape", "dtype"}:
            yield prefix, argument(table)
            return
        for key, each in table.items():
            if key not in _NAMELESS and not (key == "layers" and not prefix):
                yield from _flat(f"{prefix}.{key}".strip("."), each)
    elif value is not None:
        yield prefix, value


def reasons(a: tuple[Run, Call], b: tuple[Run, Call], *, agree: bool = False) -> tuple[str, ...]:
    """Why a gap between the two has no meaning; empty where it has.

    Losses of other functions, of other targets, or of models of another structure are numbers of
    different things. What is not recorded can't tell: a loop of the user's has no configuration.

    Args:
        a: The first.
        b: The second.
        agree: Whether both gave the same loss of the same batch at the same weights: then their
            functions are one, whatever they are called.
    """
    losses = () if agree else (*_losses(a[1], b[1]), *_logits(a, b))
    return (*losses, *_targets(a[1], b[1]), *_structure(a, b))


def _losses(a: Call, b: Call) -> Iterator[str]:
    ours, theirs = (call.configuration.get("loss") for call in (a, b))
    if not same_functions(a, b):
        yield f"The losses are different functions: {_short(ours)} in a, {_short(theirs)} in b."


def _logits(a: tuple[Run, Call], b: tuple[Run, Call]) -> Iterator[str]:
    """A loss that takes logits, and one that doesn't, of outputs that are the same.

    TensorFlow alone finds the logits that a sigmoid or softmax hides.
    """
    takes = [takes_logits(call) for _, call in (a, b)]
    ends = [(call.configuration.get("layers") or [{}])[-1] for _, call in (a, b)]
    backends = {run.info.get("versions", {}).get("backend") for run, _ in (a, b)}
    if None in takes or takes[0] == takes[1] or not ends[0] or backends == {"tensorflow"}:
        return
    activations = [end.get("activation") or "linear" for end in ends]
    if activations[0] == activations[1]:
        names = "a", "b"
        logits, other = names if takes[0] else reversed(names)
        yield (
            f"The losses are different functions: {logits}'s takes the outputs for logits, "
            f"{other}'s for probabilities, and the outputs are {activations[0]} in both."
        )


def _targets(a: Call, b: Call) -> Iterator[str]:
    """Targets of another shape a row; a series of `train_on_batch` shows its first batch's."""
    shapes = [targets_of(call) for call in (a, b)]
    if integer_targets(a) != integer_targets(b) or None in shapes:
        return
    if all(any(map(masks, layers_of(call))) for call in (a, b)):
        shapes = [[each[1:] for each in found or ()] for found in shapes]  # padded, and masked
    if shapes[0] != shapes[1]:
        told = [each[0] if each and len(each) == 1 else each for each in shapes]
        yield f"The targets have other shapes a row: {told[0]} in a, {told[1]} in b."


def _structure(a: tuple[Run, Call], b: tuple[Run, Call]) -> Iterator[str]:
    shapes = [_shapes(*each) for each in (a, b)]
    if None in shapes:
        shapes = [_sizes(call) for _, call in (a, b)]
    if None not in shapes and shapes[0] != shapes[1]:
        counts = [f"{len(each or ())} arrays of weights" for each in shapes]
        same = counts[0] == counts[1]
        what = f"{counts[0]} in both, of other shapes" if same else f"{counts[0]} and {counts[1]}"
        yield f"The models differ in structure: {what}."


def _shapes(run: Run, call: Call) -> Any:
    """Shapes of the weights, from the copy of the initial ones; a number is no structure."""
    path = weights_file(run, call)
    found = None if path is None else shapes_in(path)  # or the layers' sizes are compared
    return None if found is None else [shape for shape in found if shape]


def _sizes(call: Call) -> Any:
    """Sizes of the layers that have one, where there is no copy of the weights."""
    layers = call.configuration.get("layers")
    if layers is None:
        return None
    sized = [(each.get("class"), each.get("units") or each.get("filters")) for each in layers]
    return sorted((name, size) for name, size in sized if size)


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        table = cast("Mapping[str, Any]", value)
        if "class" in table:
            own = [f"{k}={v}" for k, v in table.items() if k not in ("class", "name") and v]
            return f"{table['class']}({', '.join(own)})"
    return str(value)
