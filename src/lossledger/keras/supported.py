"""What can be tapped: checked before anything is touched."""

from typing import Any

import keras

from lossledger.backends import BACKENDS
from lossledger.errors import LossLedgerError
from lossledger.keras.describe import replicas

OLDEST = (3, 8)


def check() -> None:
    """Raise a `LossLedgerError` where this Keras or its backend is not supported."""
    version = tuple(int(part) for part in keras.__version__.split(".")[:2])
    if version < OLDEST:
        raise LossLedgerError(
            f"lossledger records Keras 3.8 or newer. Received: Keras {keras.__version__}. "
            "Upgrade with `pip install -U keras`.",
            slug="keras-too-old",
        )
    if keras.backend.backend() not in BACKENDS:
        raise LossLedgerError(
            "lossledger records Keras on TensorFlow, JAX and PyTorch. "
            f"Received: the backend {keras.backend.backend()}. Set KERAS_BACKEND to one of them.",
            slug="backend-unsupported",
        )


def why_not(model: Any) -> str | None:
    """Why a model can't be tapped, in a sentence; `None` where it can."""
    count = replicas(model)
    if count > 1 and model.jit_compile:
        return (
            f"{count} replicas are compiled by XLA, which can't train on several devices under "
            "tf.distribute; such a model is not recorded."
        )
    backend = keras.backend.backend()
    if backend == "jax" and getattr(keras.config, "is_nnx_enabled", bool)():
        return "Keras with flax.nnx takes train_step from the class; the model is not recorded."
    return None
