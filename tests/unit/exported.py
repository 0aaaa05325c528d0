"""Runs to export."""

import numpy as np
from made import Made
from read_back import values

FILES = ("tensorboard", "csv", "parquet")
"""Trackers that need no package; the others have a module of their own."""
ULP = 2.0**-23


def trained(folder, *, epochs=3, per_epoch=7, close=True, **columns):
    """A run of one fit, of unequal batches; its losses and weights."""
    made = Made(folder / "runs", segment_rows=5)
    made.call(0, driver="fit", model=0, model_name="net", loss_name="loss")
    n = epochs * per_epoch
    losses, weights = made.steps(
        np.random.default_rng(n).normal(size=n) ** 2,
        epoch=np.arange(n) // per_epoch,
        batch=np.arange(n) % per_epoch,
        time=np.arange(n) * 1_000_000,
        weight=np.where(np.arange(n) % per_epoch == per_epoch - 1, 3.0, 8.0),
        updated=columns.pop("updated", np.ones(n, bool)),
        **columns,
    )
    made.call(0, ended=1)
    if close:
        made.close()
    return made, losses, weights


def close_to(found, wanted, tracker):
    """TensorBoard keeps float32."""
    rtol = ULP if tracker == "tensorboard" else 1e-14
    np.testing.assert_allclose(values(found), wanted, rtol=rtol)
