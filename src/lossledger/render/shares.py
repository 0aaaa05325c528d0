"""The columns of a table of steps that show what each replica or worker computed of them."""

from collections.abc import Sequence

import numpy as np

from lossledger.entry import WHOLE
from lossledger.render.figures import Format
from lossledger.render.terminal import Column
from lossledger.run import Run
from lossledger.workers import is_shared


def columns(run: Run, call: int, epoch: int, places: Sequence[int]) -> list[Column]:
    """A column a share, with its loss and its rows; none where each step is whole.

    Args:
        run: The run.
        call: The call's number.
        epoch: The epoch.
        places: Which steps of it are shown.
    """
    if not is_shared(run.path):
        return []
    read = run.entries(["step", "loss", "rows"], call=call, epoch=epoch, replicas=True)
    steps, losses, rows = (read[name].to_numpy() for name in ("step", "loss", "rows"))
    of = np.stack([read[name].to_numpy() for name in ("worker", "replica")], axis=1)
    shares = [(int(worker), int(replica)) for worker, replica in np.unique(of, axis=0)]
    if len(shares) == 1 or any(replica == WHOLE for _, replica in shares):
        return []
    shown = np.unique(steps)[list(places)]
    found = []
    for rank, share in enumerate(shares, start=1):
        own = (of == share).all(axis=1) & np.isin(steps, shown)
        form = Format.of(losses[own].tolist())
        parts = zip(steps[own].tolist(), losses[own].tolist(), rows[own].tolist(), strict=True)
        texts = {step: f"{form.text(loss)} ({count})" for step, loss, count in parts}
        cells = [texts.get(step, "") for step in shown.tolist()]
        found.append(Column(_named(share, shares), cells, rank))
    return found


def _named(share: tuple[int, int], shares: Sequence[tuple[int, int]]) -> str:
    """By what tells it from the others."""
    names = [
        f"{kind} {number}"
        for kind, number, others in zip(
            ("worker", "replica"), share, zip(*shares, strict=True), strict=True
        )
        if len(set(others)) > 1
    ]
    return " ".join(names)
