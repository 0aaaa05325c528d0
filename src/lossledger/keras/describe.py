"""What a call's record says of its model, its data and the machine: plain JSON values."""

import contextlib
import functools
import hashlib
import inspect
import math
import os
import platform
import sys
from collections.abc import Generator, Mapping, Sequence
from importlib import metadata
from typing import Any

import keras
import numpy as np

FINGERPRINT_LIMIT = 2**30
"""Bytes of weights above which no fingerprint of them is taken."""
LAYERS = 256
"""Layers that are described, at most."""

_SAID_OF_LAYERS = ("units", "filters", "activation", "rate", "stddev", "momentum", "mask_value")
_SAID_OF_LAYERS += ("mask_zero", "dropout", "recurrent_dropout", "kernel_regularizer")
_SAID_OF_LAYERS += ("bias_regularizer", "activity_regularizer")
_UNSAID_OF_LAYERS = ("class", "name", "seed", "function", "arguments", "layer", "batch_shape")
_UNSAID_OF_LAYERS += ("dtype",)
"""What tells no layer from another that computes the same: seeds are chance, dtypes said apart."""


def versions() -> dict[str, str]:
    """Versions of Python, Keras, its backend, numpy and ourselves."""
    backend = keras.backend.backend()
    return {
        "python": platform.python_version(),
        "keras": keras.__version__,
        "backend": backend,
        "backend_version": _backend_version(backend),
        "numpy": np.__version__,
        "lossledger": metadata.version("lossledger"),
    }


def _backend_version(backend: str) -> str:
    module = __import__(backend)
    return str(getattr(module, "__version__", "unknown"))


def device() -> str:
    """The device that trains, as the backend names it."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        found = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        return str(found[0].name)
    if backend == "jax":
        import jax

        return str(jax.devices()[0])
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def configuration(model: Any) -> dict[str, Any]:
    """How a compiled model trains.

    Args:
        model: A compiled `keras.Model`.

    Returns:
        Optimizer, loss, reduction, loss weights, dtype policy, compilation and seed, as JSON
        values; what can't be read off is left out.
    """
    optimizer = getattr(model, "optimizer", None)
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    loss = getattr(model, "loss", None)
    compiled_loss = getattr(model, "_compile_loss", None)
    found = {
        "model": type(model).__name__,
        "layers": layers(model),
        "optimizer": _config(optimizer),
        "optimizers": {n: _config(e) for n, e in optimizers_of(model).items() if e is not optimizer}
        or None,
        "loss": plain(loss),
        "reduction": getattr(loss, "reduction", None),
        "loss_weights": plain(getattr(compiled_loss, "_user_loss_weights", None)),
        "dtype_policy": getattr(getattr(model, "dtype_policy", None), "name", None),
        "loss_scaling": inner is not optimizer,
        "gradient_accumulation_steps": getattr(inner, "gradient_accumulation_steps", None) or 1,
        "steps_per_execution": getattr(model, "steps_per_execution", 1),
        "jit_compile": bool(getattr(model, "jit_compile", False)),
        "run_eagerly": bool(getattr(model, "run_eagerly", False)),
        "custom_train_step": not type(model).train_step.__module__.startswith("keras."),
        "custom_compute_loss": not type(model).compute_loss.__module__.startswith("keras.") or None,
        "replicas": replicas(model),
        "seed": _seed(),
    }
    return {key: value for key, value in found.items() if value is not None}


def layers(model: Any) -> list[dict[str, Any]]:
    """What of a model's layers decides its loss; those that hold other layers stand by these.

    But an RNN's `stateful`, say, is no choice of the cell that it holds.

    Returns:
        A dictionary a layer: `class`, `training` where it may act otherwise in training, and of
        its configuration sizes, activation, rates of noise, masks, regularizers, and all that
        isn't its class's default;
        `trainable`, false, where its weights are held; `dtype` where it isn't the model's.
    """
    found: list[dict[str, Any]] = []
    own = getattr(getattr(model, "dtype_policy", None), "name", None)
    for layer in model._flatten_layers(include_self=False):
        config = _config(layer)
        if next(iter(layer._flatten_layers(include_self=False)), None) is not None:
            chosen = _choices(type(layer), config)
            found += [{"class": type(layer).__name__, **chosen}] if chosen else []
            continue
        said = {"class": type(layer).__name__}
        if isinstance(config, dict):
            said |= {name: config[name] for name in _SAID_OF_LAYERS if config.get(name)}
            said |= _unusual(type(layer), config)
        if "training" in inspect.signature(layer.call).parameters and _has_modes(layer, said):
            said["training"] = True
        if not layer.trainable and layer.weights:
            said["trainable"] = False
        policy = getattr(getattr(layer, "dtype_policy", None), "name", None)
        if policy != own and said["class"] != "InputLayer":
            said["dtype"] = policy
        found.append(said)
        if len(found) == LAYERS:
            break
    return found


def _unusual(kind: type, config: Mapping[str, Any]) -> dict[str, Any]:
    """What of a layer's configuration isn't its class's default."""
    usual = _defaults(kind)
    return {
        name: value
        for name, value in config.items()
        if name in usual
        and name not in _UNSAID_OF_LAYERS
        and not name.endswith("_initializer")
        and value != plain(usual[name])
        and value != (usual[name], usual[name])  # one number for both axes
    }


def _choices(kind: type, config: Any) -> dict[str, Any]:
    """What a layer that holds others does with them, where that isn't its class's default."""
    said = _unusual(kind, config) if isinstance(config, dict) else {}
    return {name: value for name, value in said.items() if isinstance(value, bool)}


@functools.cache
def _defaults(kind: type) -> dict[str, Any]:
    """The parameters that a class is made with, and their defaults."""
    found = inspect.signature(kind.__init__).parameters.values()
    return {each.name: each.default for each in found if each.kind is not each.VAR_KEYWORD}


def _has_modes(layer: Any, said: Mapping[str, Any]) -> bool:
    """Most layers of Keras take `training` and pass it on; a layer of the user's may heed it."""
    module = type(layer).__module__
    noisy = any(name in said for name in ("rate", "stddev", "dropout", "recurrent_dropout"))
    normalizes = "momentum" in said
    return noisy or normalizes or not module.startswith("keras.") or "preprocessing" in module


def _seed() -> int | None:
    """What `keras.utils.set_random_seed` was given, where this Keras keeps it."""
    from keras.src.utils import rng_utils

    read = getattr(rng_utils, "get_random_seed", None)
    return None if read is None else read()


def replicas(model: Any) -> int:
    """How many replicas of the model train at once on this process's devices."""
    strategy = getattr(model, "_distribute_strategy", None)
    return 1 if strategy is None else int(strategy.num_replicas_in_sync)


def mean_of_rows(model: Any) -> bool:
    """Whether the compiled loss is a mean of row losses, as Keras's own reductions make it."""
    loss = getattr(model, "loss", None)
    losses = keras.tree.flatten(loss) if loss is not None else []
    return all(getattr(each, "reduction", "mean") not in ("sum", "none", None) for each in losses)


def optimizers_of(model: Any) -> dict[str, Any]:
    """The Keras optimizers that a model holds, by attribute: a GAN has more than `optimizer`."""
    own = vars(model).items()
    return {name: each for name, each in own if isinstance(each, keras.optimizers.Optimizer)}


def _config(thing: Any) -> Any:
    if thing is None:
        return None
    try:
        with _tensorflow_left_out():
            config = thing.get_config()
    except Exception:
        return type(thing).__name__
    # A loss made of a function keeps what it passes on; not all of them list it (`Huber`).
    config = {**getattr(thing, "_fn_kwargs", {}), **config}
    return {"class": type(thing).__name__, **{key: plain(value) for key, value in config.items()}}


@contextlib.contextmanager
def _tensorflow_left_out() -> Generator[None]:
    """Keeps Keras from importing TensorFlow to ask whether a value is of it: seconds, 450 MB."""
    from keras.src.utils import module_utils

    module = module_utils.tensorflow
    unasked = "tensorflow" not in sys.modules and getattr(module, "_available", True) is None
    if not unasked:
        yield
        return
    module._available = False
    try:
        yield
    finally:
        module._available = None


def plain(value: Any, depth: int = 4) -> Any:
    """`value` as JSON can hold it: arrays by shape and dtype, other objects by their class."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float | np.floating):
        number = float(value)
        return number if np.isfinite(number) else str(number)
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        if len(value.shape) == 0:
            return str(value)
        return {
            "shape": [None if n is None else int(n) for n in value.shape],
            "dtype": str(value.dtype),
        }
    if depth == 0:
        return type(value).__name__
    if isinstance(value, Mapping):
        return {str(key): plain(each, depth - 1) for key, each in value.items()}
    if isinstance(value, Sequence):
        return [plain(each, depth - 1) for each in value[:32]]
    if hasattr(value, "get_config"):
        return _config(value) if depth > 2 else type(value).__name__
    return getattr(value, "__name__", None) or type(value).__name__


def fit_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """`fit`'s or `train_on_batch`'s arguments as JSON values; data by shape and dtype."""
    found = {name: plain(value) for name, value in arguments.items() if value is not None}
    if isinstance(found.get("x"), str):
        found["x"] = _data_set(arguments["x"])
    return found


def _data_set(value: Any) -> str:
    """A data set's class, and those that it is made of, which tell whether it shuffles."""
    names = [type(value).__name__]
    if hasattr(value, "sampler"):  # torch's DataLoader
        names.append(type(value.sampler).__name__)
    inputs = getattr(value, "_inputs", None)  # tf.data's
    while callable(inputs) and len(names) < LAYERS:
        before: Any = inputs()
        if not isinstance(before, Sequence) or not before:
            break
        names.append(type(before[0]).__name__)
        inputs = getattr(before[0], "_inputs", None)
    return " of ".join(names)


def weights_fingerprint(weights: Sequence[np.ndarray]) -> str | None:
    """Hash of weights' shapes, dtypes and bytes; `None` above `FINGERPRINT_LIMIT`."""
    if sum(weight.nbytes for weight in weights) > FINGERPRINT_LIMIT:
        return None
    digest = hashlib.blake2b(digest_size=16)
    for weight in weights:
        digest.update(f"{weight.shape}{weight.dtype}".encode())
        digest.update(np.ascontiguousarray(weight).view(np.uint8).data)
    return digest.hexdigest()


def size_of(variables: Sequence[Any]) -> int:
    """Bytes of variables, at most: of 32 bits a value."""
    return sum(math.prod(each.shape) for each in variables) * 4


def environment() -> dict[str, str]:
    """The environment variables that change how Keras trains; no others are kept."""
    names = ("KERAS_BACKEND", "KERAS_MAX_EPOCHS", "KERAS_MAX_STEPS_PER_EPOCH", "KERAS_NNX_ENABLED")
    names += ("TF_USE_LEGACY_KERAS", "TF_DETERMINISTIC_OPS", "TF_ENABLE_ONEDNN_OPTS", "XLA_FLAGS")
    names += ("CUDA_VISIBLE_DEVICES", "PYTHONHASHSEED", "JAX_ENABLE_X64", "JAX_PLATFORMS")
    return {name: os.environ[name] for name in names if name in os.environ}
