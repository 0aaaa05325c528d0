"""Data that are not on the device whole: read ahead, in chunks, and no further than said."""

import gc
import itertools
import math
import os
import signal
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest

import lossledger
from lossledger.loop.engine import Engine
from lossledger.loop.pack import DEPTH

from .conftest import BACKEND, KERAS, X, Y, assert_same, network, once
from .looping import ARGUMENTS, assert_as_fit, drive, engine_of, layered

SMALL = 4 * 3 * 16 * 4 * 4
"""Bytes of four chunks of three batches of 16 rows of four float32."""

AHEAD = BACKEND != "torch"
"""Whether a stream is read ahead: not where its random numbers are also the model's."""


def compiled() -> Any:
    model = network()
    model.compile("sgd", "mse")
    return model


@pytest.mark.parametrize(
    ("name", "mode", "make"),
    [("within", "run", layered), ("short", "step", compiled), ("weights", "mixed", compiled)],
)
def test_arrays_that_stay_on_the_host(name: str, mode: str, make: Any) -> None:
    assert_as_fit(make, mode, X, Y, loop={"memory": SMALL}, **ARGUMENTS[name])


@pytest.mark.parametrize(
    "kind", ["float64", "tensor", pytest.param("memmap", marks=pytest.mark.one_backend)]
)
def test_kinds_of_arrays_on_the_host(kind: str, tmp_path: Any) -> None:
    x: Any = X.astype("f8") + 1e-9
    if kind == "tensor":
        x = keras.ops.convert_to_tensor(X)
    elif kind == "memmap":
        x = np.memmap(tmp_path / "x", "f4", "w+", shape=X.shape)
        x[:] = X
    assert_as_fit(compiled, "run", x, Y, loop={"memory": SMALL}, batch_size=16)


def test_single_batches_that_are_all_whole() -> None:
    assert_as_fit(layered, "run", X, Y, loop={"memory": 400}, batch_size=10)


def test_more_steps_are_asked_of_arrays_than_they_have_batches() -> None:
    assert_as_fit(
        compiled, "mixed", X, Y, loop={"memory": SMALL}, batch_size=16, steps_per_epoch=8, epochs=2
    )


def aligned(shape: tuple[int, ...]) -> np.ndarray:
    """An array that a device on the host would read where it lies: aligned to 64 bytes."""
    size = 4 * math.prod(shape)
    memory = np.zeros(size + 64, "u1")
    start = -memory.ctypes.data % 64
    return memory[start : start + size].view("f4").reshape(shape)


@pytest.mark.parametrize("memory", [2**30, SMALL])
def test_what_a_change_of_the_arrays_in_place_does(memory: int) -> None:
    x, y = np.tile(X, (4, 1)), aligned((280, 1))
    y[:] = 1.0
    model = network()
    model.compile(keras.optimizers.SGD(0.0), "mse")
    predicted, means = model.predict(x, verbose=0), []
    for epoch in lossledger.Loop(model, x, y, 16, epochs=2, verbose=0, memory=memory):
        means.append(epoch.run().mean)
        y[:] = 3.0
    before, after = (float(np.mean((predicted - target) ** 2)) for target in (1.0, 3.0))
    assert before != pytest.approx(after, rel=0.1)
    np.testing.assert_allclose(means, [before, before if memory == 2**30 else after], rtol=1e-5)


def test_the_device_holds_no_more_than_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokens, most = compiled(), itertools.count(), [0]
    alive: dict[int, int] = {}  # entered and left by several threads, each in one operation
    engine = engine_of(model)
    put = engine.put

    def counted(self: Any, data: Any) -> Any:
        made = put(self, data)
        for leaf in keras.tree.flatten(made):
            token = next(tokens)
            alive[token] = int(np.prod(leaf.shape)) * 4
            weakref.finalize(leaf, alive.pop, token)
        if sum(list(alive.values())) > SMALL:
            gc.collect()  # Keras on PyTorch leaves what a step was called with in closures
        most[0] = max(most[0], sum(list(alive.values())))
        return made

    monkeypatch.setattr(engine, "put", counted)
    x = np.tile(X, (40, 1))
    loop = lossledger.Loop(model, x, x[:, :1], 16, epochs=3, verbose=0, memory=SMALL)
    loop.run()
    assert 0 < most[0] <= SMALL < x.nbytes / 4
    assert int(model.optimizer.iterations) == 2 * 3 * 175 // 2 + 3  # three of the engine's making


class Source(keras.utils.PyDataset):
    """Makes batches of its own; notes which, on which thread, and how many are alive."""

    def __init__(self, batches: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.batches = batches
        self.read: list[int] = []
        self.threads: set[int] = set()
        self.alive = self.most = 0

    def __len__(self) -> int:
        return self.batches

    def __getitem__(self, index: int) -> Any:
        self.read.append(index)
        self.threads.add(threading.get_ident())
        x = np.full((8, 3), index, "f4")
        self.alive += 1
        self.most = max(self.most, self.alive)
        weakref.finalize(x, self._freed)
        return x, x[:, :1] * 2

    def _freed(self) -> None:
        self.alive -= 1


def losses_of(source: Any, *parts: int | None, **arguments: Any) -> list[float]:
    losses: list[float] = []
    keras.utils.set_random_seed(3)
    loop = lossledger.Loop(compiled(), source, verbose=0, shuffle=False, **arguments)
    for epoch in loop:
        for part in parts:
            epoch.run(part)
        losses.extend(epoch.losses)
    return losses


def expected_losses(order: list[int]) -> list[float]:
    keras.utils.set_random_seed(3)
    model, losses = compiled(), []
    for index in order:
        model.reset_metrics()
        x = np.full((8, 3), index, "f4")
        losses.append(float(np.ravel(model.train_on_batch(x, x[:, :1] * 2))[0]))
    return losses


@pytest.mark.skipif(BACKEND == "tensorflow", reason="tf.data reads ahead as it likes, in fit too")
def test_a_stream_is_read_as_far_as_it_is_trained() -> None:
    source = Source(6)
    losses = losses_of(source, 4, 1, epochs=2)
    assert source.read[1:] == [0, 1, 2, 3, 4] * 2  # after the one that `fit` builds from, too
    np.testing.assert_allclose(losses, expected_losses([0, 1, 2, 3, 4] * 2), rtol=1e-4)


@pytest.mark.skipif(BACKEND == "tensorflow", reason="tf.data reads ahead as it likes, in fit too")
def test_of_a_generator_nothing_is_lost_when_an_epoch_is_left() -> None:
    def generated() -> Iterator[Any]:
        for index in range(1000):
            read.append(index)
            x = np.full((8, 3), index % 10, "f4")
            yield x, x[:, :1] * 2

    read: list[int] = []
    losses = losses_of(generated(), 5, epochs=3, steps_per_epoch=8)
    assert len(read) == 15
    np.testing.assert_allclose(
        losses, expected_losses([index % 10 for index in range(15)]), rtol=1e-4
    )


@pytest.mark.skipif(not AHEAD, reason="read when its turn comes")
def test_how_far_ahead_a_stream_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    source, trained, ahead = Source(200), [0], []
    run, read = Engine.run, Source.__getitem__

    def slow(self: Any, form: str, key: Any, chunk: Any, window: Any) -> Any:
        time.sleep(0.02)
        logs = run(self, form, key, chunk, window)
        trained[0] += chunk.count
        return logs

    def noting(self: Any, index: int) -> Any:
        ahead.append(index - trained[0])
        return read(self, index)

    monkeypatch.setattr(Engine, "run", slow)
    monkeypatch.setattr(Source, "__getitem__", noting)
    losses_of(source, None)
    if BACKEND == "jax":
        assert source.threads == {threading.get_ident()}
        assert max(ahead) == DEPTH - 1
        assert source.most <= 3  # a batch is free as soon as it is copied into its chunk


@pytest.mark.skipif(BACKEND == "tensorflow", reason="tf.data reads on its threads, in fit too")
def test_a_source_may_be_bound_to_its_thread() -> None:
    table = sqlite3.connect(":memory:")
    table.execute("CREATE TABLE numbers (x REAL)")
    table.executemany("INSERT INTO numbers VALUES (?)", [[k / 400] for k in range(400)])

    def rows() -> Iterator[Any]:
        while True:
            read = table.execute("SELECT x FROM numbers")
            while found := read.fetchmany(8):
                x = np.array(found, "f4")
                yield np.repeat(x, 3, axis=1), x * 2

    assert_as_fit(compiled, "mixed", rows, steps_per_epoch=45)
    table.close()


def test_what_a_source_raises_says_where() -> None:
    class Failing(Source):
        def __getitem__(self, index: int) -> Any:
            if index == 45:
                raise OSError("the disk is gone")
            return super().__getitem__(index)

    model = compiled()
    loop = lossledger.Loop(model, Failing(60), verbose=0, shuffle=False, epochs=2)
    with pytest.raises(Exception, match="the disk is gone") as caught:
        loop.run()
    notes = getattr(caught.value, "__notes__", [])
    assert notes == ["lossledger.Loop was in epoch 0, batch 45."]
    assert int(model.optimizer.iterations) == 45


@pytest.mark.parametrize("kind", [SystemExit, KeyError])
def test_whatever_a_generator_raises_comes_out(kind: type[BaseException]) -> None:
    def generated() -> Iterator[Any]:
        yield from [(X[:8], Y[:8])] * 5
        raise kind("over")

    if BACKEND == "tensorflow" and kind is SystemExit:
        pytest.skip("TensorFlow prints it and waits for ever, in fit too")
    with pytest.raises(Exception if kind is KeyError else kind):
        lossledger.Loop(compiled(), generated(), verbose=0, steps_per_epoch=9).run()


def test_an_interruption_while_a_source_is_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    stuck, release, trained, run = threading.Event(), threading.Event(), [0], Engine.run
    released = []

    def counted(self: Any, form: str, key: Any, chunk: Any, window: Any) -> Any:
        logs = run(self, form, key, chunk, window)
        trained[0] += chunk.count
        return logs

    monkeypatch.setattr(Engine, "run", counted)

    def generated() -> Iterator[Any]:
        yield from [(X[:8], Y[:8])] * 5
        stuck.set()
        released.append(release.wait(60))
        yield X[:8], Y[:8]

    # Read in the thread that trains, the batches before were to go with the one that is stuck.
    before = 0 if BACKEND == "jax" else 5

    def interrupt() -> None:
        stuck.wait(60)
        while trained[0] < before:
            time.sleep(0.05)
        time.sleep(0.5)  # CPython overlooks a signal that comes as a thread begins to wait
        os.kill(os.getpid(), signal.SIGINT)

    model, thread = compiled(), threading.Thread(target=interrupt, daemon=True)
    loop = lossledger.Loop(model, generated(), verbose=0, steps_per_epoch=6)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            loop.run()
    finally:
        release.set()
    thread.join()
    assert False not in released, "the training went on only when its source did"
    assert int(model.optimizer.iterations) == before


@pytest.mark.skipif(BACKEND == "tensorflow", reason="tf.data draws on threads of its own")
def test_a_source_that_draws_draws_what_it_does_in_fit() -> None:
    class Drawing(keras.utils.PyDataset):
        def __len__(self) -> int:
            return 5

        def __getitem__(self, index: int) -> Any:
            noise = keras.ops.convert_to_numpy(keras.random.normal((16, 3)))
            return X[:16] + noise, Y[:16] + np.random.random((16, 1)).astype("f4")

    assert_as_fit(compiled, "run", Drawing)


def grain_data(kind: str) -> Any:
    grain = pytest.importorskip("grain")
    if KERAS < (3, 11):
        pytest.skip("Keras takes Grain's data sets from 3.11 on")
    pairs = list(zip(X, Y, strict=True))
    if kind == "loader":
        sampler = grain.samplers.IndexSampler(70, shuffle=True, seed=1, num_epochs=1)
        return grain.DataLoader(
            data_source=pairs, sampler=sampler, operations=[grain.transforms.Batch(16)]
        )
    data = grain.MapDataset.source(pairs).shuffle(seed=1).batch(16)
    return data if kind == "map" else data.to_iter_dataset()


@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        ("iterated", "mixed"),
        pytest.param("map", "run", marks=pytest.mark.one_backend),
        pytest.param("loader", "run", marks=pytest.mark.one_backend),
    ],
)
def test_grain(kind: str, mode: str) -> None:
    def train(loop: bool) -> Any:
        def run() -> Any:
            model, data = compiled(), grain_data(kind)
            if loop:
                history = drive(lossledger.Loop(model, data, epochs=2, verbose=0), mode)
                assert int(model.optimizer.iterations) == 2 * 5
            else:
                history = model.fit(data, epochs=2, verbose=0)
            # On TensorFlow, `fit`'s step that finds no more data has been counted all the same.
            model.optimizer.iterations.assign(0)
            return model, (history.history, history.epoch)

        return once(run)

    assert_same(train(False), train(True))


@pytest.mark.parametrize("remainder", [False, True])
def test_shapes_that_tf_data_knows(remainder: bool) -> None:
    def dataset() -> Any:
        tf = pytest.importorskip("tensorflow")
        pairs = tf.data.Dataset.from_tensor_slices((X, Y))
        return pairs.batch(16, drop_remainder=remainder)

    assert_as_fit(layered, "run", dataset)


def test_batches_of_many_shapes() -> None:
    class Ragged(keras.utils.PyDataset):
        def __len__(self) -> int:
            return 7

        def __getitem__(self, index: int) -> Any:
            rows = (16, 16, 5, 5, 16, 16, 6)[index]
            return X[:rows] + index, Y[:rows]

    assert_as_fit(compiled, "run", Ragged)


@pytest.mark.skipif(not AHEAD, reason="one batch at a time")
@pytest.mark.parametrize("memory", [SMALL, 2**30])
def test_short_memory_leaves_single_batches(memory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def train(loop: bool) -> Any:
        def run() -> Any:
            model, data = compiled(), (X, Y, 16) if memory == SMALL else (Source(9),)
            arguments = {"epochs": 2, "verbose": 0, "shuffle": False}
            if loop:
                return model, lossledger.Loop(model, *data, **arguments, memory=memory).run()
            return model, model.fit(*data, **arguments)

        return once(run)

    fit, whole = train(False), Engine.run

    def short(self: Any, form: str, key: Any, chunk: Any, window: Any) -> Any:
        if chunk.order is not None and chunk.start > 0:
            raise RuntimeError("RESOURCE_EXHAUSTED: out of memory")
        return whole(self, form, key, chunk, window)

    monkeypatch.setattr(Engine, "run", short)
    with pytest.warns(lossledger.LossLedgerWarning, match="chunk-too-big"):
        loop = train(True)
    for a, b in zip(fit["state"], loop["state"], strict=True):
        np.testing.assert_array_equal(a, b)
