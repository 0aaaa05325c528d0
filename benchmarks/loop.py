"""How fast `lossledger.Loop` is beside Keras's own ways, loops by hand, and other libraries.

    python benchmarks/loop.py [tensorflow|jax|torch ...] [toy|convnet|transformer ...] [steps|first]

One process a backend for the time of a step: all ways train the same model on the same data, by
turns, an epoch or more of each, then again, so that a busy moment meets them all. The time to the
end of a first epoch is measured in a fresh process each, by turns as well. Figures are medians over
the rounds. Orbit and PyTorch Lightning come from the environment that `peers.py` makes; one that
can't run is left out by name, with its reason.
"""

import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
BACKENDS = ("tensorflow", "jax", "torch")
PARTS = ("steps", "first")
ONE = "--first-epoch-of"
"""The argument of a process that trains one epoch, in the way that follows."""

ROUNDS = 3
FIRST = int(os.environ.get("FIRST", "5"))
"""How often a first epoch is measured."""

EPOCHS = {"toy": 20, "convnet": 3, "transformer": 5}
"""Epochs of a round; they share what a call of `fit`, or a loop, takes before its first step.
On PyTorch, where a step takes far longer than that, a quarter of them."""

Train = Callable[[int], Any]


def with_fit(name: str, **compiled: Any) -> Train:
    model, x, y = made(name, **compiled)
    return lambda epochs: model.fit(x, y, batch_size=SIZE, epochs=epochs, verbose=0)


def with_train_on_batch(name: str) -> Train:
    model, x, y = made(name)

    def train(epochs: int) -> None:
        for _ in range(epochs):
            order = np.random.permutation(len(x))
            for start in range(0, len(x), SIZE):
                rows = order[start : start + SIZE]
                model.train_on_batch(x[rows], y[rows])

    return train


def with_loop(name: str, *, stepping: bool = False) -> Train:
    model, x, y = made(name)
    make = lossledger.Loop

    def train(epochs: int) -> None:
        loop = make(model, x, y, batch_size=SIZE, epochs=epochs, verbose=0)
        if not stepping:
            loop.run()
            return
        for epoch in loop:
            for _ in epoch:
                pass

    return train


def recorded(name: str, folder: str) -> Train:
    """Training in a recording; what begins and ends a run is not timed."""
    train = with_loop(name)

    def timed(epochs: int) -> float:
        with lossledger.record(folder):
            train(1)
            began = time.perf_counter()
            train(epochs)
            return time.perf_counter() - began

    return timed


def ways(name: str) -> dict[str, Callable[[], Train]]:
    """What makes each way's model and training, by the way's name."""
    keras_ways: dict[str, Callable[[], Train]] = {
        "`fit`": partial(with_fit, name),
        "`train_on_batch`": partial(with_train_on_batch, name),
    }
    if keras.backend.backend() != "torch":
        keras_ways["`fit`, 32 steps an execution"] = partial(with_fit, name, steps_per_execution=32)
        keras_ways["`fit`, `jit_compile=True`"] = partial(with_fit, name, jit_compile=True)
    return {
        **keras_ways,
        **by_hand(name),
        **peers(name),
        "`Loop`": partial(with_loop, name),
        "`Loop`, a step at a time": partial(with_loop, name, stepping=True),
    }


def timed(train: Train, epochs: int) -> float:
    began = time.perf_counter()
    own = train(epochs)
    took = own if isinstance(own, float) else time.perf_counter() - began
    return took / epochs


def first_epochs(name: str) -> dict[str, float]:
    """Seconds of each way's first epoch, each time in a process of its own."""
    seconds: dict[str, list[float]] = {}
    # As where the package is installed: its modules are compiled once, not in each process.
    environment = {key: value for key, value in os.environ.items() if "BYTECODE" not in key}
    for _ in range(FIRST):
        for way in ways(name):
            command = [sys.executable, __file__, ONE, way, name]
            ended = subprocess.run(command, env=environment, capture_output=True, text=True)
            if ended.returncode == 0:
                seconds.setdefault(way, []).append(float(ended.stdout.split()[-1]))
    return {way: statistics.median(each) for way, each in seconds.items()}


def step_times(name: str, folder: str) -> tuple[dict[str, float], dict[str, str]]:
    """Microseconds a step by way; reasons of peers left out."""
    steps = {"toy": 125}.get(name, 20)
    trained: dict[str, Train] = {}
    left_out: dict[str, str] = {}
    for way, make in (ways(name) | {"`Loop`, recorded": partial(recorded, name, folder)}).items():
        try:
            trained[way] = make()
            trained[way](1)
        except Exception as error:
            if way not in peers(name):
                raise
            left_out[way] = f"{type(error).__name__}: {str(error)[:200]}"
            trained.pop(way, None)
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
    took = {way: statistics.median(each[way] for each in rounds) for way in trained}
    return took, left_out


def ratios(took: Mapping[str, float]) -> str:
    """How many times as fast as others `Loop` is."""
    own = min(us for way, us in took.items() if way.startswith("`fit") or "on_batch" in way)
    loop, stepping = took["`Loop`"], took["`Loop`, a step at a time"]
    return (
        f"\n`Loop` is {took['`fit`'] / loop:.1f} x `fit`, "
        f"{took['`train_on_batch`'] / loop:.1f} x `train_on_batch`, "
        f"{own / loop:.2f} x the best of Keras's own; a step at a time it is "
        f"{took['`train_on_batch`'] / stepping:.1f} x `train_on_batch`.\n"
    )


def main(names: list[str], parts: list[str]) -> None:
    import tempfile

    for name in names:
        took: dict[str, float] = {}
        left_out: dict[str, str] = {}
        first = first_epochs(name) if "first" in parts else {}
        if "steps" in parts:
            with tempfile.TemporaryDirectory() as folder:
                took, left_out = step_times(name, folder)
        print(f"| {keras.backend.backend()}, {name} | us a step | first epoch, s |")
        print("| --- | ---: | ---: |")
        for way in took or first:
            us = f"{took[way]:,.1f}" if way in took else ""
            print(f"| {way} | {us} | {f'{first[way]:.2f}' if way in first else ''} |")
        for way, why in left_out.items():
            print(f"\n{way} is left out: {why}.")
        print(ratios(took) if took else "", flush=True)


def python() -> str:
    """The Python of an environment that has the peers, or else this one."""
    from peers import installed

    try:
        return str(installed())
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"no peers: {error}", file=sys.stderr)
        return sys.executable


if __name__ == "__main__":
    given = sys.argv[1:]
    if "KERAS_BACKEND" not in os.environ:
        chosen = [word for word in given if word in BACKENDS] or BACKENDS
        rest = [word for word in given if word not in BACKENDS]
        for backend in chosen:
            environment = {**os.environ, "KERAS_BACKEND": backend}
            subprocess.run([python(), __file__, *rest], env=environment, check=True)
    else:
        warnings.simplefilter("ignore")
        import keras
        import numpy as np
        from loop_parts.by_hand import by_hand
        from loop_parts.models import MODELS, SIZE, made
        from loop_parts.with_peers import peers

        import lossledger

        if given[:1] == [ONE]:
            print(timed(ways(given[2])[given[1]](), 1))
        else:
            main(
                [word for word in given if word in MODELS] or list(MODELS),
                [word for word in given if word in PARTS] or list(PARTS),
            )
