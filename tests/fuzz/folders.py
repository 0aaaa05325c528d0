"""The run folders whose files the fuzzer changes: closed, resumed, of several processes."""

import json
import shutil

import numpy as np

import lossledger as ll
from lossledger import store
from lossledger.folder import append_line, write_json


def recorded(directory):
    """A small closed run with two calls, a named loss and weights; its folder."""
    with ll.record(directory, name="seed") as run:
        for epoch in range(2):
            run.epoch(epoch)
            for batch in range(3):
                run.step(epoch + batch / 8, rows=2 + batch, a_loss=0.5)
        run.step(1.0, model="other")
    weights = run.path / "weights" / "000000.npz"
    weights.parent.mkdir()
    np.savez(weights, np.zeros((2, 3), "f4"), np.zeros(3))
    append_line(run.path / "calls.jsonl", {"call": 0, "weights_file": "weights/000000.npz"})
    append_line(
        run.path / "calls.jsonl",
        {
            "call": 0,
            "configuration": {"layers": [{"class": "Dense", "units": 3}], "optimizer": "sgd"},
            "reported": [{"place": "history", "name": "loss", "epoch": 0, "value": 0.1}],
        },
    )
    return run.path


def shared(path):
    """A run of two workers, who recorded the same."""
    run = path.parent / "shared"
    info = json.loads((path / "run.json").read_bytes())
    del info["crc"]
    info |= {"format": 2, "id": "shared"}
    for rank in range(2):
        shutil.copytree(path, run / f"worker-{rank}")
        (run / f"worker-{rank}" / "run.json").write_text(json.dumps({**info, "worker": rank}))
    (run / "run.json").write_text(json.dumps({**info, "workers": 2}))
    return run


class _Written:
    """A folder that is written as the recorder of a training with Keras does it."""

    def __init__(self, path, **info):
        path.mkdir(parents=True)
        self.path = path
        self.writer = store.Writer(path)
        self.info = {"format": 1, "id": path.name, "name": path.name, "complete": False, **info}
        write_json(path / "run.json", self.info)

    def call(self, number, **info):
        append_line(self.path / "calls.jsonl", {"call": number, **info})

    def steps(self, step, **columns):
        rows = np.full(len(step), 4)
        plain = {"call": 0 * rows, "model": 0 * rows, "epoch": 0 * rows, "weight": rows * 1.0}
        loss = np.asarray(step) / 8
        self.writer.append({"step": step, **plain, "rows": rows, "loss": loss, **columns})
        self.writer.flush()


def resumed(path):
    """A run that was killed and resumed twice, in an epoch, in a series, and evaluated only."""
    run = _Written(path.parent / "resumed", resumed=[{"call": 1, "step": 7}, {"call": 3}])
    x = {"x": {"shape": [16, 2], "dtype": "float32"}}
    fit = {"driver": "fit", "model": 0, "arguments": x, "validation": {"rows": 4, "trained": 2}}
    series = {"driver": "train_on_batch", "model": 1, "initial_weights": "b"}
    loss = {"place": "history", "name": "loss", "epoch": 0, "value": 0.1875}
    ids = np.arange(1, 5, dtype="u8") << np.uint64(32)
    run.call(0, **fit, initial_weights="a", initial_optimizers=_made(0), reported=[loss])
    run.call(0, saved=[[3, "a3"], [4, "a4"]])
    run.steps(np.arange(7), epoch=np.arange(7) // 4, batch=np.arange(7) % 4)
    begun = {"attempt": 1, "initial_weights": "a4", "initial_optimizers": _made(5)}
    run.call(1, **fit, **begun, final_weights="a8", final_optimizers=_made(8), ended=9)
    run.steps(np.arange(7, 11), call=np.full(4, 1), epoch=np.full(4, 1), batch=np.arange(4))
    run.call(2, **series, attempt=1, loads=[2])
    about = {"model": np.full(9, 1), "epoch": np.full(9, -1)}
    ids = np.resize(ids, 9)
    run.steps(np.arange(11, 20), call=np.full(9, 2), batch_id=ids, **about)
    run.call(3, **{**series, "initial_weights": None}, attempt=2, failed="ValueError", ended=12)
    run.steps(np.arange(20, 29), call=np.full(9, 3), batch_id=np.roll(ids, 1), **about)
    tested = {"place": "tested", "name": "loss", "epoch": None, "value": "nan", "weights": "b"}
    data = {"rows": 16, "weighted": False, "batch_id": "00000001" * 2, "batches": ["1"]}
    measured = {"place": "evaluate", "name": "loss", "epoch": 0, "batch": 2, "value": 0.5}
    run.call(4, driver="evaluate", model=2, reported=[{**measured, "data": data}, tested])
    run.call(1, reported=[{**measured, "data": {**data, "trained": 16, "batch_size": 4}}])
    run.writer.close()
    return run.path


def _made(updates):
    return {"optimizer": {"iterations": updates, "variables": f"v{updates}"}}


def replicas(path):
    """A run of two workers with two replicas each, of which one stopped early; still open."""
    run, about = path.parent / "replicas", {"format": 2, "id": "replicas"}
    for rank, steps in enumerate((6, 5)):
        worker = _Written(run / f"worker-{rank}", worker=rank, **about)
        worker.call(0, driver="fit", model=0)
        worker.call(1, driver="train_on_batch", model=0, attempt=rank)
        for call, replica in ((0, [0, 1]), (1, [-1])):
            step = np.repeat(np.arange(steps) + 6 * call, len(replica))
            shares, calls = np.resize(replica, len(step)), np.full(len(step), call)
            ids = (step + 1).astype("u8")
            worker.steps(step, call=calls, replica=shares, batch_id=ids, a_loss=step / 2)
    write_json(run / "run.json", {**about, "workers": 2, "complete": False})
    return run
