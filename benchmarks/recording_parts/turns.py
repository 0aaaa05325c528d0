"""Equal models that train by turns, a few steps each, so that a busy moment meets them all."""

import functools
import itertools
import math
import statistics
import time

import keras
import numpy as np
from greenlet import greenlet

STEPS, STRETCH = 201, 20
"""Of an epoch, of which the first is not counted; of a turn of `fit`."""
CALLED = 20
"""Steps of an epoch of a call of `fit`, where it is the call that is timed."""
BATCHES = 5
"""Of a turn of `train_on_batch`, of which the first is not counted."""
SIZE = 32
MODELS = 3
ORDERS = list(itertools.permutations(range(MODELS)))
"""Each as often before as after each other: what slows the machine down slows all."""


def fit(models, x, y, seconds):
    """Seconds a step of `fit`, of shape `(rounds, models)`: of one call of each."""
    times = Turns(models, seconds).trained(x, y)
    rounds = min(map(len, times))
    return np.array([each[:rounds] for each in times]).T


def calls_of_fit(models, x, y, seconds):
    """Seconds of a call of `fit` that are no step's, of shape `(rounds, models)`."""
    return compared(models, functools.partial(_call_of_fit, x=x, y=y), seconds)


def train_on_batch(models, x, y, seconds):
    """Seconds a step of `train_on_batch`, of shape `(rounds, models)`."""
    return compared(models, functools.partial(_batches, x=x, y=y), seconds)


class Turns:
    """Lets calls of `fit` go on one at a time, for a stretch of steps each.

    In one thread: PyTorch has workers, and the C library memory, for each that trains.

    Args:
        models: What trains; each as Keras trains it, but that it waits for the others, and at the
            end of a stretch for its own last step.
        seconds: Until all are told to stop, from when each has trained a stretch.
    """

    def __init__(self, models, seconds):
        self._models = models
        self._times = [[] for _ in models]
        self._began = [0.0 for _ in models]
        self._steps = [0 for _ in models]
        self._next = itertools.cycle(itertools.chain(*ORDERS))
        self._seconds, self._end = seconds, math.inf

    def trained(self, x, y):
        """Train all until time is up; gives the seconds a step of the stretches of each."""
        calls = [functools.partial(self._train, place, x, y) for place in range(len(self._models))]
        self._calls = [greenlet(call) for call in calls]
        self._calls[next(self._next)].switch()
        while running := [call for call in self._calls if not call.dead]:
            running[0].switch()
        return self._times

    def _train(self, place, x, y):
        model = self._models[place]
        model.make_train_function = functools.partial(self._make, place, model.make_train_function)
        try:
            model.fit(x, y, batch_size=SIZE, epochs=10**6, verbose=0)
        finally:
            del model.make_train_function
            model.train_function = None

    def _make(self, place, make, *arguments, **options):
        make(*arguments, **options)
        model = self._models[place]
        step = model.train_function

        @functools.wraps(step)
        def followed(*data):
            result = step(*data)
            self._stepped(place, result)
            return result

        model.train_function = followed

    def _stepped(self, place, result):
        number = self._steps[place] % STEPS
        self._steps[place] += 1
        if number % STRETCH:
            return
        float(keras.tree.flatten(result)[0])
        now = time.perf_counter()
        if number and now < self._end:
            self._times[place].append((now - self._began[place]) / STRETCH)
            if self._end == math.inf and all(self._times):  # compiled
                self._end = now + self._seconds
            self._calls[next(self._next)].switch()
        elif now >= self._end:
            self._models[place].stop_training = True
        self._began[place] = time.perf_counter()


def compared(models, train, seconds):
    """What `train` gives of each turn of the models in turn."""
    for model in models * 2:
        train(model)
    times = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < len(ORDERS):
        turns = {place: train(models[place]) for place in ORDERS[len(times) % len(ORDERS)]}
        times.append([turns[place] for place in range(MODELS)])
    return np.array(times)


class _Clock(keras.callbacks.Callback):
    """When each step ended."""

    async_safe = True

    def __init__(self):
        super().__init__()
        self.marks = []

    def on_train_batch_end(self, batch, logs=None):
        self.marks.append(time.perf_counter())


def _call_of_fit(model, x, y):
    clock, rows = _Clock(), SIZE * CALLED
    began = time.perf_counter()
    model.fit(x[:rows], y[:rows], batch_size=SIZE, epochs=2, verbose=0, callbacks=[clock])
    whole = time.perf_counter() - began
    marks = clock.marks
    return whole - (marks[CALLED - 1] - marks[0]) - (marks[-1] - marks[CALLED])


def _batches(model, x, y):
    marks = [time.perf_counter()]
    for start in range(0, SIZE * BATCHES, SIZE):
        model.train_on_batch(x[start : start + SIZE], y[start : start + SIZE])
        marks.append(time.perf_counter())
    return statistics.median(b - a for a, b in itertools.pairwise(marks[1:]))
