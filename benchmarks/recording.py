"""What recording costs a training step, against the same training without it.

Two equal models train on the same batches in one process, one of them recorded, in short blocks in
turn; the median of the blocks' differences and ratios. `fit` is timed within, by its second and
third epoch: what begins and ends a call is a row of its own.

    python benchmarks/recording.py                      # every backend that is installed
    python benchmarks/recording.py --backend jax --rounds 100

Rewrites a section a backend of `docs/benchmarks.md`.
"""

import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile
import time

import section

BACKENDS = ("tensorflow", "jax", "torch")
NAMES = ("backend", "model", "driver", "plain, µs a step", "recorded", "difference")
NAMES = (*NAMES, "ratio (quartiles)")
AIM, SHORT, ALLOWED = 1.02, 1000, 15
"""The ratio that we aim at; below so many microseconds a step, so many more instead."""


def toy(keras):
    """10 features, Dense 16, Dense 1: as little work as a step can have."""
    layers = keras.layers
    head = layers.Dense(1, activation="sigmoid")
    return keras.Sequential([keras.Input((10,)), layers.Dense(16, activation="relu"), head]), (10,)


def mlp(keras):
    """Four layers of 512 on 256 features."""
    layers = keras.layers
    hidden = [layers.Dense(512, activation="relu") for _ in range(4)]
    head = layers.Dense(1, activation="sigmoid")
    return keras.Sequential([keras.Input((256,)), *hidden, head]), (256,)


def convnet(keras):
    """Two convolutions on 16 x 16 x 3 images."""
    layers = keras.layers
    body = [
        layers.Conv2D(16, 3, activation="relu"),
        layers.MaxPooling2D(),
        layers.Conv2D(32, 3, activation="relu"),
        layers.Flatten(),
        layers.Dropout(0.2),
    ]
    head = layers.Dense(1, activation="sigmoid")
    return keras.Sequential([keras.Input((16, 16, 3)), *body, head]), (16, 16, 3)


MODELS = {"toy": (toy, 100), "mlp": (mlp, 30), "convnet": (convnet, 30)}
"""Each model, and the steps of a block."""
CALL = "a call of fit"


def measure(backend: str, rounds: int, chosen: list[str]) -> None:
    """Measures one backend, and writes its section."""
    os.environ["KERAS_BACKEND"] = backend
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras
    import numpy as np

    import lossledger

    rng, rows = np.random.default_rng(0), []
    for name in chosen:
        make, steps = MODELS[name]
        _, shape = make(keras)
        x = rng.random((32 * steps, *shape), dtype="float32")
        y = rng.integers(0, 2, (len(x), 1)).astype("float32")
        models = []
        for _ in range(2):
            keras.utils.set_random_seed(0)
            model, _ = make(keras)
            model.compile(keras.optimizers.Adam(1e-3), "binary_crossentropy")
            models.append(model)
        for driver, train in (("fit", fit), ("train_on_batch", train_on_batch)):
            with tempfile.TemporaryDirectory() as folder:
                with lossledger.record(folder, name="benchmark", model=models[1]):
                    times = compare(keras, models, train, x, y, rounds)
            rows.append((name, driver, times[:, :, 0] / steps * 1e6))
            if driver == "fit":
                rows.append((name, CALL, times[:, :, 1] * 1e6))
    package = {"tensorflow": "tensorflow-cpu"}.get(backend, backend)
    head = section.head(
        f"Recording on {backend}, {rounds} rounds", section.versions("keras", package)
    )
    table = section.table(NAMES, [row(backend, *each) for each in rows], 3)
    section.write(f"recording {backend}", head, table, missed(rows), whole=chosen == list(MODELS))


def missed(rows):
    """Which trainings take more than we aim at."""
    over = []
    for name, driver, times in rows:
        plain, more, (_, ratio, _) = figures(times)
        if driver != CALL and (more > ALLOWED if plain < SHORT else ratio > AIM):
            over.append(f"{name}, {driver} ({more:+.0f} µs, {ratio:.3f})")
    aim = f"{AIM} of a step, or {ALLOWED} µs where it takes less than a millisecond"
    return f"Above what we aim at ({aim}): {'; '.join(over) or 'none'}."


def figures(times):
    """Of the rounds: the plain training, what recording adds, and the ratio's quartiles."""
    import numpy as np

    plain = np.median(times[:, 0])
    ratios = np.percentile(times[:, 1] / times[:, 0], [25, 50, 75])
    return plain, np.median(times[:, 1] - times[:, 0]), ratios


def compare(keras, models, train, x, y, rounds):
    """Seconds of each block without and with the recording, of steps and of the rest."""
    import numpy as np

    for model in models:
        train(keras, model, x, y)
    times = []
    for number in range(rounds):
        # In turn, so that what slows the machine down slows both.
        order = (0, 1) if number % 2 else (1, 0)
        block = {each: train(keras, models[each], x, y) for each in order}
        times.append((block[0], block[1]))
    return np.array(times)


def fit(keras, model, x, y):
    """Three epochs; returns seconds of a later one, and of what is no epoch."""
    marks = []

    class Clock(keras.callbacks.Callback):
        async_safe = True

        def on_epoch_begin(self, epoch, logs=None):
            marks.append(time.perf_counter())

        def on_epoch_end(self, epoch, logs=None):
            marks.append(time.perf_counter())

    began = time.perf_counter()
    model.fit(x, y, batch_size=32, epochs=3, verbose=0, callbacks=[Clock()])
    whole = time.perf_counter() - began
    epochs = [end - begin for begin, end in zip(marks[::2], marks[1::2], strict=True)]
    return min(epochs[1:]), whole - sum(epochs)


def train_on_batch(keras, model, x, y):
    """One pass over the data in batches of 32; returns its seconds."""
    began = time.perf_counter()
    for start in range(0, len(x), 32):
        model.train_on_batch(x[start : start + 32], y[start : start + 32])
    return time.perf_counter() - began, 0.0


def row(backend, name, driver, times):
    """A line of the table, from microseconds a step of shape `(rounds, 2)`."""
    import numpy as np

    plain, more, (low, ratio, high) = figures(times)
    spread = f"{ratio:.3f} ({low:.3f} to {high:.3f})"
    took = (f"{plain:,.0f}", f"{np.median(times[:, 1]):,.0f}", f"{more:+.1f}")
    return (backend, name, driver, *took, spread)


def main() -> None:
    """Run each backend in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", choices=BACKENDS, action="append")
    parser.add_argument("--model", choices=MODELS, action="append")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--child", choices=BACKENDS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    chosen = options.model or list(MODELS)
    if options.child:
        measure(options.child, options.rounds, chosen)
        return
    for backend in options.backend or BACKENDS:
        if importlib.util.find_spec(backend) is None:
            print(f"{backend} is not installed: left out", file=sys.stderr)
            continue
        command = [sys.executable, __file__, "--child", backend, "--rounds", str(options.rounds)]
        for name in chosen:
            command += ["--model", name]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
