"""Which callbacks must be called at every batch: what they override, and what of it matters."""

from collections.abc import Callable
from typing import Any

import keras

BEFORE = ("on_batch_begin", "on_train_batch_begin")
AFTER = ("on_batch_end", "on_train_batch_end")


def _saves_by_epoch(callback: Any) -> bool:
    return callback.save_freq == "epoch"


def _logs_by_epoch(callback: Any) -> bool:
    tracing = getattr(callback, "_should_trace", False)
    return callback.update_freq == "epoch" and not (callback.write_steps_per_second or tracing)


_IDLE: dict[str, Callable[[Any], bool]] = {
    "ProgbarLogger": lambda _: True,
    "ModelCheckpoint": _saves_by_epoch,
    "OrbaxCheckpoint": _saves_by_epoch,
    "BackupAndRestore": _saves_by_epoch,
    "TensorBoard": _logs_by_epoch,
}
"""Keras's callbacks whose batch hooks do nothing, or nothing that every batch is needed for."""


def needs_batches(callback: Any) -> bool:
    """Whether a callback must be called before and after every batch."""
    for name in (*BEFORE, *AFTER):
        method = getattr(callback, name, None)
        if method is None or getattr(method, "_is_default", False):
            continue
        # `Callback`'s own `on_train_batch_*` call `on_batch_*`, which is looked at as well.
        owner = _owner(callback, name)
        if owner is keras.callbacks.Callback:
            continue
        idle = None if owner is None else _IDLE.get(owner.__name__)
        known = owner is not None and owner.__module__.startswith("keras.")
        if not (known and idle is not None and idle(callback)):
            return True
    return False


def _owner(callback: Any, name: str) -> type | None:
    """The class that defines a method; `None` where it is set on the instance."""
    if name in vars(callback):
        return None
    return next(cls for cls in type(callback).__mro__ if name in vars(cls))
