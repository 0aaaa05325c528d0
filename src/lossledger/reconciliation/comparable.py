"""Whether two numbers may be compared, and what is not the same about how they came about."""

import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from lossledger.call import Call
from lossledger.reconciliation.result import Difference
from lossledger.run import Run

WHOLE = ("fit", "loop")
"""Drivers that are given all data at once, and count epochs."""

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

_ALIASES = {
    "mse": "meansquarederror",
    "mae": "meanabsoluteerror",
    "mape": "meanabsolutepercentageerror",
    "msle": "meansquaredlogarithmicerror",
    "bce": "binarycrossentropy",
    "kld": "kldivergence",
    "kullbackleiblerdivergence": "kldivergence",
}
# Parts of a loss's configuration that don't change what its number means.
_HOW = {"class", "name", "reduction", "dtype", "from_logits", "ignore_class", "axis", "fn"}


def differences(a: tuple[Run, Call], b: tuple[Run, Call]) -> tuple[Difference, ...]:
    """All that the two calls' records say differently, `optimizer.learning_rate` by name."""
    ours, theirs = _record(*a), _record(*b)
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


def _record(run: Run, call: Call) -> dict[str, Any]:
    found = dict(_flat("", {"driver": call.driver}))
    for name, value in call.arguments.items():
        if name in _DATA and call.driver not in WHOLE:
            continue  # of a series, the first batch alone
        if name not in _ARGUMENTS:
            found |= dict(_flat(f"arguments.{name}", value))
    found |= dict(_flat("", {**call.configuration, "optimizer": _optimizer(call)}))
    versions = run.info.get("versions", {})
    found |= {f"versions.{name}": versions[name] for name in _VERSIONS if name in versions}
    found |= dict(_flat("environment", run.info.get("environment") or {}))
    if run.info.get("device"):
        found["device"] = run.info["device"]
    for name in ("weight_kind", "mean_of_rows", "initial_weights"):
        if name in call.info:
            found[name] = call.info[name]
    return found


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
            yield prefix, f"{table['dtype']}{table['shape']}".replace(" ", "")
            return
        for key, each in table.items():
            if key not in _NAMELESS and not (key == "layers" and not prefix):
                yield from _flat(f"{prefix}.{key}".strip("."), each)
    elif value is not None:
        yield prefix, value


def reasons(a: tuple[Run, Call], b: tuple[Run, Call]) -> tuple[str, ...]:
    """Why a gap between the two has no meaning; empty where it has.

    Losses of other functions, of other targets, or of models of another structure are numbers of
    different things. What is not recorded can't tell: a loop of the user's has no configuration.
    """
    found = [*_losses(a[1], b[1]), *_targets(a[1], b[1]), *_structure(a, b)]
    return tuple(found)


def _losses(a: Call, b: Call) -> Iterator[str]:
    ours, theirs = (call.configuration.get("loss") for call in (a, b))
    if ours is None or theirs is None:
        return
    names = _meaning(ours), _meaning(theirs)
    if names[0] != names[1]:
        yield f"The losses are different functions: {_short(ours)} in a, {_short(theirs)} in b."


def _meaning(loss: Any) -> Any:
    """What of a loss makes its number mean what it does."""
    if isinstance(loss, str):
        name = re.sub(r"[^a-z0-9]", "", loss.lower())
        return _ALIASES.get(name, name)
    if isinstance(loss, Mapping):
        table = cast("Mapping[str, Any]", loss)
        if "class" not in table:
            return {key: _meaning(value) for key, value in table.items()}
        more = {key: value for key, value in table.items() if key not in _HOW and value}
        name = _meaning(table["class"])
        return (name, sorted(map(repr, more.items()))) if _shaped(name, more) else name
    if isinstance(loss, Sequence):
        return [_meaning(each) for each in cast("Sequence[Any]", loss)]
    return loss


def _shaped(name: str, more: Mapping[str, Any]) -> bool:
    """Whether a loss's parameters differ from those that its plain name has."""
    usual = {"huber": {"delta": 1.0}, "poisson": {}, "kldivergence": {}}.get(name, {})
    return any(usual.get(key) != value for key, value in more.items())


def _targets(a: Call, b: Call) -> Iterator[str]:
    """Targets of another shape a row; a series of `train_on_batch` shows its first batch's."""
    ours, theirs = (call.arguments.get("y") for call in (a, b))
    shapes = [_row_shape(each) for each in (ours, theirs)]
    if None not in shapes and shapes[0] != shapes[1]:
        yield f"The targets have other shapes a row: {shapes[0]} in a, {shapes[1]} in b."


def _row_shape(data: Any) -> Any:
    if isinstance(data, Mapping):
        table = cast("Mapping[str, Any]", data)
        if set(table) == {"shape", "dtype"}:
            # (rows,) and (rows, 1) are the same targets to Keras's losses.
            return [size for size in table["shape"][1:] if size != 1]
        return {key: _row_shape(value) for key, value in table.items()}
    if isinstance(data, list):
        return [_row_shape(each) for each in cast("list[Any]", data)]
    return None


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
    """Shapes of the weights, from the copy of the initial ones."""
    import numpy as np

    name = call.info.get("weights_file")
    # A path that a file gives is followed only where it is one that the recorder would have given.
    if not isinstance(name, str) or not re.fullmatch(r"weights/\d{6,9}\.npz", name):
        return None
    path = Path(run.path, name)
    if not path.is_file() or path.resolve().parent.parent != run.path.resolve():
        return None
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return [list(arrays[key].shape) for key in arrays.files]
    except (OSError, ValueError, zipfile.BadZipFile, MemoryError):
        return None  # damaged: the layers' sizes are compared in its place


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
