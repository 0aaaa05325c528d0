"""How fast `lossledger.Loop` is beside Keras's own ways, loops by hand, and other libraries.

    python benchmarks/loop.py [tensorflow|jax|torch ...] [toy|convnet|transformer ...]

One process a backend. All ways train the same model on the same data, by turns: an epoch of each,
then again, so that a busy moment meets them all. The figure is the median over the rounds. Before
that each way's first epoch is timed, by turns as well, in a process of its own that has imported
all and done nothing. Orbit and PyTorch Lightning come from the environment that `peers.py` makes;
one that can't run is left out by name, with its reason. Rewrites a section a backend of
`docs/benchmarks.md`. ROUNDS and FIRST say how many rounds of each model, and first epochs.
"""

import contextlib
import importlib
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import section

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
BACKENDS = ("tensorflow", "jax", "torch")
ROUNDS = {"toy": 7, "convnet": 3, "transformer": 3}
"""Rounds of a model: more where a round is short, and where the threads run counts."""
FIRST = int(os.environ.get("FIRST", 3))
EPOCHS = {"toy": 50, "convnet": 3, "transformer": 5}
"""Epochs of a round; they share what a call of `fit`, or a loop, takes before its first step."""
TORCH = {"toy": 20}
"""Of PyTorch, whose steps take longer than what is before the first."""

SETTLES = {"toy": 300, "convnet": 100, "transformer": 100}
"""Epochs in which trying another form pays, so that a loop settles on the fastest."""

STEPS = {"toy": 125, "convnet": 20, "transformer": 20}
"""Steps of an epoch."""

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

    def train(epochs: int) -> None:
        loop = Loop(model, x, y, batch_size=SIZE, epochs=epochs, verbose=0)
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
        with lossledger.record(folder) as recording:
            train(1)
            began = time.perf_counter()
            train(epochs)
            took = time.perf_counter() - began
        entries = len(lossledger.open(recording.path).losses())
        assert entries == STEPS[name] * (epochs + 1)
        return took

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


def rounds_of(name: str) -> int:
    return int(os.environ.get("ROUNDS", ROUNDS[name]))


def timed(train: Train, epochs: int) -> float:
    began = time.perf_counter()
    own = train(epochs)
    took = own if isinstance(own, float) else time.perf_counter() - began
    return took / epochs


def first_epochs(name: str) -> dict[str, list[float]]:
    """Seconds of each way's first epoch, each time in a process of its own."""
    seconds: dict[str, list[float]] = {}
    for number in range(FIRST):
        section.doing(f"{name}: first epochs, {number + 1} of {FIRST}")
        for way, make in ways(name).items():
            if (took := first_epoch(make)) is not None:
                seconds.setdefault(way, []).append(took)
    return seconds


def first_epoch(make: Callable[[], Train]) -> float | None:
    """Seconds of a first epoch, in a copy of this process; nothing may have run in it yet."""
    processes = multiprocessing.get_context("fork")
    told, tell = processes.Pipe(duplex=False)

    def train() -> None:
        # Why a peer can't run is told by the process that times its steps.
        with contextlib.suppress(Exception):
            tell.send(timed(make(), 1))

    child = processes.Process(target=train)
    child.start()
    tell.close()
    try:
        return told.recv()
    except EOFError:
        return None
    finally:
        child.join()


def step_times(name: str, folder: str) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Microseconds a step by way, a number a round; reasons of peers left out."""
    trained: dict[str, Train] = {}
    left_out: dict[str, str] = {}
    for way, make in (ways(name) | {"`Loop`, recorded": partial(recorded, name, folder)}).items():
        section.doing(f"{name}: {way}")
        try:
            train = make()
            train(1)
            trained[way] = train
        except Exception as error:
            if way not in peers(name):
                raise
            left_out[way] = f"{type(error).__name__}: {str(error)[:200]}"
    # A loop settles on its plan while it trains; what `fit` compiles, it has by now.
    settles = keras.backend.backend() != "torch"
    for way, train in trained.items():
        if "Loop" in way and settles:
            train(30 if "a time" in way else SETTLES[name])
    epochs = (EPOCHS | TORCH if keras.backend.backend() == "torch" else EPOCHS)[name]
    count = rounds_of(name)
    section.doing(f"{name}: {count} rounds of all by turns")
    rounds = [
        {way: timed(train, epochs) / STEPS[name] * 1e6 for way, train in trained.items()}
        for _ in range(count)
    ]
    return {way: [each[way] for each in rounds] for way in trained}, left_out


def main() -> None:
    names = [name for name in sys.argv[1:] if name in MODELS] or list(MODELS)
    first = {name: first_epochs(name) for name in names}
    found = {}
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            took, left_out = step_times(name, folder)
        found[name] = Measured(took, first[name], left_out)
    counts = f"{' or '.join(sorted({str(rounds_of(each)) for each in names}))} rounds"
    counts = f"{counts} and {FIRST} first epochs"
    tell(keras.backend.backend(), found, counts, whole=names == list(MODELS))


def python() -> str:
    """The Python of an environment that has the peers, or else this one."""
    from peers import installed

    try:
        return str(installed())
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"no peers: {error}", file=sys.stderr)
        return sys.executable


if __name__ == "__main__":
    if sys.argv[1:2] != ["--child"]:
        chosen = [name for name in sys.argv[1:] if name in BACKENDS] or BACKENDS
        rest = [name for name in sys.argv[1:] if name not in BACKENDS]
        for backend in chosen:
            # As where the package is installed: a module is compiled once, not in each process.
            environment = {key: each for key, each in os.environ.items() if "BYTECODE" not in key}
            environment["KERAS_BACKEND"] = backend
            section.doing(f"on {backend}")
            subprocess.run([python(), __file__, "--child", *rest], env=environment, check=True)
    else:
        warnings.simplefilter("ignore")
        import keras
        import numpy as np
        from loop_parts.by_hand import by_hand
        from loop_parts.models import MODELS, SIZE, made
        from loop_parts.told import Measured, tell
        from loop_parts.with_peers import peers

        import lossledger
        from lossledger import Loop

        # Keras imports it on each backend to ask whether a loss is of it: each copy would anew.
        with contextlib.suppress(ImportError):
            importlib.import_module("tensorflow")
        main()
