"""Run the shell commands of the documents, each once, in one folder.

    python shell.py FOLDER PAGE ... > results.json

The folder has what the commands speak of: `train.py`, its `training.log`, `examples`, and runs
named `fit`, `loop`, `baseline`, `a` and `b`, the last two also on the store of `on a disk`. Prints
a list of objects: `where`, `command`, `status`, `got`. A command that several pages show is run
where it stands first.
"""

import contextlib
import json
import os
import shutil
import sys
from pathlib import Path

from pages import ROOT, Block, blocks, commands
from play import execute

TRAIN = """\
import sys
import keras
import numpy as np

rate = float(sys.argv[2]) if sys.argv[1:2] == ["--lr"] else 0.1
x = np.random.default_rng(0).random((70, 3)).astype("float32")
y = x.sum(1, keepdims=True)
keras.utils.set_random_seed(0)
model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
model.compile(keras.optimizers.SGD(rate), "mse")
log = keras.callbacks.CSVLogger("training.log")
data = {"validation_data": (x[:10], y[:10]), "callbacks": [log]}
model.fit(x, y, batch_size=32, epochs=4, verbose=0, **data)
"""
SMALL = {"EPOCHS": "1", "STEPS": "12"}
"""Of the examples."""


def prepare() -> None:
    """Makes what the commands speak of, in the folder where we are."""
    Path("train.py").write_text(TRAIN)
    Path("examples").symlink_to(ROOT / "examples")
    Path("store/runs").mkdir(parents=True)
    import keras
    import numpy as np

    import lossledger

    x = np.random.default_rng(0).random((70, 3)).astype("float32")
    y = x.sum(1, keepdims=True)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    for name in ("fit", "baseline", "b"):
        with lossledger.record("runs", name=name):
            model.fit(x, y, batch_size=32, epochs=2, verbose=0)
    with lossledger.record("runs", name="loop"):
        for start in (0, 32, 64) * 2:
            model.train_on_batch(x[start : start + 32], y[start : start + 32])
    with lossledger.record("runs", name="a"):
        model.fit(x, y, batch_size=32, verbose=0)
        model.fit(x, y, batch_size=16, verbose=0)
    for name in ("a", "b"):
        status, printed = execute(["lossledger", "push", name, store() + "/runs"])
        assert status == 0, printed


def store() -> str:
    """What stands for the bucket."""
    return Path("store").absolute().as_uri()


def played(block: Block, done: set[str]) -> list[dict]:
    """Runs the commands of a block that no other has run."""
    found = []
    for command in commands(block.code):
        line = " ".join(command)
        if line in done:
            continue
        done.add(line)
        if bucket := block.said("on a disk"):
            command = [word.replace(bucket, store()) for word in command]
        status, got = execute(command)
        found.append({"where": block.where, "command": line, "status": status, "got": got})
    return found


def main() -> None:
    """Runs the pages named."""
    folder, *paths = map(Path, sys.argv[1:])
    os.environ |= {"LOSSLEDGER_CACHE": str(folder / "cache"), **SMALL}
    found, done = [], set()
    with contextlib.chdir(folder):
        prepare()
        for path in paths:
            for page in Path().glob("*.html"):
                page.unlink()  # of the page before
            for block in blocks(path):
                if block.is_shell:
                    found += played(block, done)
    shutil.rmtree(folder / "cache", ignore_errors=True)
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    os.environ["COLUMNS"] = "80"
    main()
