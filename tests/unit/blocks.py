"""Blocks of entries for the tests of the store, and what its files give back."""

import numpy as np

from lossledger import store


def block(start, rows, **more):
    steps = np.arange(start, start + rows)
    loss = (steps * 0.25).astype("f4")
    return {"step": steps, "call": np.zeros(rows, "i4"), "loss": loss, **more}


def scanned(path, columns=None):
    blocks = list(store.scan(path, columns))
    return {
        name: np.concatenate([b[name] for b in blocks]) for name in (blocks[0] if blocks else ())
    }


def names(path):
    return sorted(found.name for found in (path / "entries").iterdir())
