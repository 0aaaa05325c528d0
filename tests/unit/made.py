"""Run folders written as the recorder writes them, for tests that need no Keras."""

from datetime import datetime

import numpy as np

from lossledger import store
from lossledger.folder import append_line, create_folder, write_json
from lossledger.run import Run
from lossledger.statistics import keras_mean

NOW = datetime(2026, 11, 22, 18, 38, 54)


def ids(count, first=1):
    """Fingerprints of as many batches, no two the same."""
    return np.arange(first, first + count, dtype="u8") << np.uint64(32) | np.uint64(first)


def epochs_of(count, per_epoch, first=0):
    """The epoch of each of so many steps."""
    return np.repeat(np.arange(first, first + -(-count // per_epoch)), per_epoch)[:count]


class Made:
    """A run folder written as the recorder writes it."""

    def __init__(
        self, directory, name="train", *, when=NOW, keras="3.15.1", segment_rows=50, **info
    ):
        self.path = create_folder(directory, name, when)
        self.info = {"format": 1, "id": self.path.name, "name": name, "complete": False}
        self.info |= {"created": when.isoformat(), "versions": {"keras": keras}, **info}
        write_json(self.path / "run.json", self.info)
        self.writer = store.Writer(self.path, segment_rows=segment_rows)
        self.step = 0

    def call(self, number, **info):
        append_line(self.path / "calls.jsonl", {"call": number, **info})

    def history(self, number, name, values, first=0):
        items = [
            {"place": "history", "name": name, "epoch": first + place, "value": float(value)}
            for place, value in enumerate(values)
        ]
        self.call(number, reported=items)

    def steps(self, loss, *, call=0, model=0, epoch=-1, weight=8.0, **columns):
        loss = np.asarray(loss, "f4")
        n = len(loss)
        weight = np.broadcast_to(np.asarray(weight, "f8"), n)
        self.writer.append(
            {
                "step": np.arange(self.step, self.step + n),
                "call": np.full(n, call),
                "model": np.full(n, model),
                "epoch": np.broadcast_to(epoch, n),
                "loss": loss,
                "weight": weight,
                "rows": np.asarray(columns.pop("rows", weight)),
                **columns,
            }
        )
        self.step += n
        return loss.astype("f8"), weight

    def close(self):
        self.writer.close()
        self.info |= {"complete": True, "entries": self.step}
        write_json(self.path / "run.json", self.info)
        return Run(self.path)


def fitted(directory, rng):
    """A fit of three epochs of seven steps, the last batch of each smaller, from epoch 4 on."""
    made = Made(directory)
    made.call(0, driver="fit", model=0, weight_kind="rows", arguments={"initial_epoch": 4})
    loss = rng.random(21).astype("f4")
    weight = np.tile([8.0] * 6 + [3.0], 3)
    made.steps(loss, epoch=np.repeat([4, 5, 6], 7), weight=weight)
    made.history(0, "loss", keras_mean(loss, weight, np.repeat([0, 1, 2], 7)), first=4)
    return made, loss.astype("f8").reshape(3, 7), weight.reshape(3, 7)
