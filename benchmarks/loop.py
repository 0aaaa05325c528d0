"""How fast `lossledger.Loop` is beside Keras's own ways, loops by hand, and other libraries.

    python benchmarks/loop.py [tensorflow|jax|torch ...] [toy|convnet|transformer ...]

One process a backend. All ways train the same model on the same data, by turns: an epoch of each,
then again, so that a busy moment meets them all. The figure is the median over the rounds. Orbit
and PyTorch Lightning come from the environment that `peers.py` makes; one that can't run is left
out by name, with its reason. Rewrites a section a backend of `docs/benchmarks.md`. ROUNDS says how
many.
"""

import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
BACKENDS = ("tensorflow", "jax", "torch")
ROUNDS = int(os.environ.get("ROUNDS", 3))
EPOCHS = {"toy": 20, "convnet": 3, "transformer": 5}
"""Epochs of a round; they share what a call of `fit`, or a loop, takes before its first step.
On PyTorch, where a step takes far longer than that, a quarter of them."""


def with_fit(name: str, **compiled: Any) -> Callable[[int], None]:
    model, x, y = made(name, **compiled)
    return lambda epochs: model.fit(x, y, batch_size=SIZE, epochs=epochs, verbose=0)


def with_train_on_batch(name: str) -> Callable[[int], None]:
    model, x, y = made(name)

    def train(epochs: int) -> None:
        for _ in range(epochs):
            order = np.random.permutation(len(x))
            for start in range(0, len(x), SIZE):
                rows = order[start : start + SIZE]
                model.train_on_batch(x[rows], y[rows])

    return train


def with_loop(name: str, *, stepping: bool = False) -> Callable[[int], None]:
    model, x, y = made(name)

    def train(epochs: int) -> None:
        loop = lossledger.Loop(model, x, y, batch_size=SIZE, epochs=epochs, verbose=0)
        if not stepping:
            loop.run()
            return
        for epoch in loop:
            for _ in epoch:
                pass

    return train


def recorded(train: Callable[[int], None], folder: str) -> Callable[[int], float]:
    """Training in a recording; what begins and ends a run is not timed."""

    def timed(epochs: int) -> float:
        with lossledger.record(folder):
            train(1)
            began = time.perf_counter()
            train(epochs)
            return time.perf_counter() - began

    return timed


def ways(
    name: str, folder: str, others: dict[str, Callable[[int], None]]
) -> dict[str, Callable[[int], Any]]:
    torch = keras.backend.backend() == "torch"
    keras_ways = {"`fit`": with_fit(name), "`train_on_batch`": with_train_on_batch(name)}
    if not torch:
        keras_ways["`fit`, 32 steps an execution"] = with_fit(name, steps_per_execution=32)
        keras_ways["`fit`, `jit_compile=True`"] = with_fit(name, jit_compile=True)
    return {
        **keras_ways,
        **by_hand(name),
        **others,
        "`Loop`": with_loop(name),
        "`Loop`, recorded": recorded(with_loop(name), folder),
        "`Loop`, a step at a time": with_loop(name, stepping=True),
    }


def timed(train: Callable[[int], Any], epochs: int) -> float:
    began = time.perf_counter()
    own = train(epochs)
    took = own if isinstance(own, float) else time.perf_counter() - began
    return took / epochs


def measure(name: str, folder: str) -> "Measured":
    """Microseconds a step, and seconds of the first epoch, by way; reasons of peers left out."""
    steps = {"toy": 125}.get(name, 20)
    others, left_out = peers(name)
    trained, first = ways(name, folder, others), {}
    for way, train in list(trained.items()):
        try:
            first[way] = timed(train, 1)
        except Exception as error:
            if way not in others:
                raise
            left_out[way] = f"{type(error).__name__}: {str(error)[:200]}"
            del trained[way]
    # A loop settles on its plan while it trains; what `fit` compiles, it has by now.
    settles = keras.backend.backend() != "torch"
    for way, train in trained.items():
        if "Loop" in way and settles:
            train(300 if name == "toy" and "a time" not in way else 30)
    epochs = EPOCHS[name] if settles else EPOCHS[name] // 4 or 1
    rounds = [
        {way: timed(train, epochs) / steps * 1e6 for way, train in trained.items()}
        for _ in range(ROUNDS)
    ]
    return Measured({way: [each[way] for each in rounds] for way in trained}, first, left_out)


def main() -> None:
    import tempfile

    names = [name for name in sys.argv[1:] if name in MODELS] or list(MODELS)
    found = {}
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            found[name] = measure(name, folder)
    tell(keras.backend.backend(), found, ROUNDS, whole=names == list(MODELS))


def python() -> str:
    """The Python of an environment that has the peers, or else this one."""
    from peers import installed

    try:
        return str(installed())
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"no peers: {error}", file=sys.stderr)
        return sys.executable


if __name__ == "__main__":
    if "KERAS_BACKEND" not in os.environ:
        chosen = [name for name in sys.argv[1:] if name in BACKENDS] or BACKENDS
        rest = [name for name in sys.argv[1:] if name not in BACKENDS]
        for backend in chosen:
            environment = {**os.environ, "KERAS_BACKEND": backend}
            subprocess.run([python(), __file__, *rest], env=environment, check=True)
    else:
        warnings.simplefilter("ignore")
        import keras
        import numpy as np
        from loop_parts.by_hand import by_hand
        from loop_parts.models import MODELS, SIZE, made
        from loop_parts.told import Measured, tell
        from loop_parts.with_peers import peers

        import lossledger

        main()
