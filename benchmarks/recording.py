"""What recording costs a training step, against the same training without it.

Three equal models train in one process on the same batches by turns, a few steps each: one is
recorded, two are not. A turn of `train_on_batch` counts with the median of its steps. Each `fit`
is one long call, of which a turn is a stretch of twenty steps, waited for; what of a call is no
step is a row of its own, of many short calls. The difference of two models is the median over the
rounds, with its 95 % interval (of the order statistics). The two without a recording tell what it
is where there is none. The recorder's thread works now and then, in anybody's turn: its processor
time is measured apart, while only the recorded model trains.

    python benchmarks/recording.py                      # every backend that is installed
    python benchmarks/recording.py --backend jax --seconds 60

Rewrites a section a backend of `docs/benchmarks.md`.
"""

import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile
import threading
import time

import section

BACKENDS = ("tensorflow", "jax", "torch")
NAMES = ("backend", "model", "driver", "plain, µs a step", "recorded", "difference")
NAMES = (*NAMES, "ratio", "two plain ones differ by", "recorder's thread")
PLAIN, RECORDED = [0, 2], 1
"""Places of the models."""
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


MODELS = {"toy": toy, "mlp": mlp, "convnet": convnet}
CALL = "a call of fit"
ALONE = 4
"""Seconds for which the recorded model trains alone."""


def measure(backend: str, seconds: float, chosen: list[str]) -> None:
    """Measures one backend, and writes its section."""
    os.environ["KERAS_BACKEND"] = backend
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras
    import numpy as np
    from recording_parts import turns

    import lossledger

    rng, rows = np.random.default_rng(0), []
    for name in chosen:
        _, shape = MODELS[name](keras)
        x = rng.random((turns.SIZE * turns.STEPS, *shape), dtype="float32")
        y = rng.integers(0, 2, (len(x), 1)).astype("float32")
        models = []
        for _ in range(turns.MODELS):
            keras.utils.set_random_seed(0)
            model, _ = MODELS[name](keras)
            model.compile(keras.optimizers.Adam(1e-3), "binary_crossentropy")
            models.append(model)
        ways = {"fit": turns.fit, CALL: turns.calls_of_fit, "train_on_batch": turns.train_on_batch}
        for driver, train in ways.items():
            section.doing(f"{backend}, {name}, {driver}")
            with tempfile.TemporaryDirectory() as folder:
                with lossledger.record(folder, name="benchmark", model=models[RECORDED]):
                    times, thread = train(models, x, y, seconds), None
                    if driver != CALL:
                        thread = beside(models[RECORDED], driver, x, y, np.median(times))
            rows.append((name, driver, times * 1e6, thread))
    package = {"tensorflow": "tensorflow-cpu"}.get(backend, backend)
    head = section.head(
        f"Recording on {backend}, {seconds:g} s a row", section.versions("keras", package)
    )
    table = section.table(NAMES, [row(backend, *each) for each in rows])
    section.write(f"recording {backend}", head, table, missed(rows), whole=chosen == list(MODELS))


def missed(rows):
    """Which trainings take more than we aim at."""
    over = []
    for name, driver, times, _ in rows:
        plain, more, _ = figures(times)
        ratio = 1 + more / plain
        if driver != CALL and (more > ALLOWED if plain < SHORT else ratio > AIM):
            over.append(f"{name}, {driver} ({more:+.0f} µs, {ratio:.3f})")
    aim = f"{AIM} of a step, or {ALLOWED} µs where it takes less than a millisecond"
    return f"Above what we aim at ({aim}): {'; '.join(over) or 'none'}."


def figures(times):
    """Of the rounds: the plain training, what recording adds, and that as a text."""
    import numpy as np

    plain = times[:, PLAIN].mean(axis=1)
    difference = times[:, RECORDED] - plain
    return np.median(plain), np.median(difference), told(difference)


def told(differences):
    """Their median, with its 95 % interval."""
    import numpy as np

    ordered = np.sort(differences)
    apart = 0.98 * np.sqrt(len(ordered))
    low, high = (int(np.clip(len(ordered) / 2 + s * apart, 0, len(ordered) - 1)) for s in (-1, 1))
    return f"{np.median(ordered):+.1f} ({ordered[low]:+.1f} to {ordered[high]:+.1f})"


def beside(model, driver, x, y, step):
    """Processor time of the recorder's thread, µs a step, while `model` trains for a while.

    Args:
        step: Seconds that a step takes, about.
    """
    from recording_parts.turns import SIZE

    (thread,) = [each for each in threading.enumerate() if each.name == "lossledger"]
    clock = time.pthread_getcpuclockid(thread.ident)
    epochs = max(1, round(ALONE / step / (len(x) / SIZE)))
    began = time.clock_gettime(clock)
    if driver == "fit":
        model.fit(x, y, batch_size=SIZE, epochs=epochs, verbose=0)
    else:
        for _ in range(epochs):
            for start in range(0, len(x), SIZE):
                model.train_on_batch(x[start : start + SIZE], y[start : start + SIZE])
    return (time.clock_gettime(clock) - began) / (epochs * len(x) / SIZE) * 1e6


def row(backend, name, driver, times, thread):
    """A line of the table, from microseconds a step of shape `(rounds, 3)`."""
    import numpy as np

    plain, more, difference = figures(times)
    recorded = np.median(times[:, RECORDED])
    control = told(times[:, PLAIN[1]] - times[:, PLAIN[0]])
    texts = (f"{plain:,.0f}", f"{recorded:,.0f}", difference, f"{1 + more / plain:.3f}", control)
    return (backend, name, driver, *texts, "" if thread is None else f"{thread:.1f}")


def main() -> None:
    """Run each backend in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", choices=BACKENDS, action="append")
    parser.add_argument("--model", choices=MODELS, action="append")
    parser.add_argument("--seconds", type=float, default=20, help="of a row")
    parser.add_argument("--child", choices=BACKENDS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    chosen = options.model or list(MODELS)
    if options.child:
        measure(options.child, options.seconds, chosen)
        return
    for backend in options.backend or BACKENDS:
        if importlib.util.find_spec(backend) is None:
            section.doing(f"{backend} is not installed: left out")
            continue
        command = [sys.executable, __file__, "--child", backend, "--seconds", str(options.seconds)]
        for name in chosen:
            command += ["--model", name]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
