"""Exact loss accounting for Keras 3: record every step's raw loss, state every number.

Importing the package imports neither Keras nor pyarrow.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lossledger.errors import LossLedgerError, LossLedgerWarning

if TYPE_CHECKING:
    from lossledger.callback import Recorder
    from lossledger.loop.loop import Loop
    from lossledger.reconciliation.main import reconcile
    from lossledger.recorder.record import record
    from lossledger.replay.compare import compare
    from lossledger.run import Run, open

__version__ = "0.1.0"

_LAZY = {
    "Loop": "lossledger.loop.loop",
    "Recorder": "lossledger.callback",
    "Run": "lossledger.run",
    "compare": "lossledger.replay.compare",
    "open": "lossledger.run",
    "reconcile": "lossledger.reconciliation.main",
    "record": "lossledger.recorder.record",
}

__all__ = [
    "Loop",
    "LossLedgerError",
    "LossLedgerWarning",
    "Recorder",
    "Run",
    "compare",
    "open",
    "reconcile",
    "record",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'lossledger' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
