"""Which entries a call, a model and an epoch mean: the rows that they select."""

import operator
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lossledger import shares
from lossledger.call import Call, entries_of
from lossledger.errors import LossLedgerError
from lossledger.segments.spans import Spans
from lossledger.series import bounds
from lossledger.vectors import Mask

if TYPE_CHECKING:
    import pyarrow as pa


def table(
    path: Path,
    calls: Sequence[Call] | None,
    columns: Sequence[str] | None,
    epoch: int | None,
    replicas: bool,
) -> "pa.Table":
    """The entries of some calls, or of one epoch of them.

    Args:
        path: The run's folder.
        calls: The calls; None means all entries that there are.
        columns: Names of columns; all by default.
        epoch: An epoch; a negative one counts from the end of what the calls have.
        replicas: Give a step that replicas share a row a replica.
    """
    if calls is None:
        return shares.table(path, columns=columns, shares=replicas)
    meant = {call.number: None for call in calls} if epoch is None else _spans(path, calls, epoch)
    return shares.table(path, columns=columns, spans=Spans(meant), shares=replicas)


def _spans(path: Path, calls: Sequence[Call], epoch: int) -> dict[int, tuple[int, int]]:
    """The calls that have an epoch, with its first and last step."""
    spans: dict[tuple[int, int], tuple[int, int]] = {}
    for call, block in entries_of(path, calls, ["step", "epoch"]):
        begins, ends = bounds(block["epoch"])
        for begin, end in zip(begins.tolist(), ends.tolist(), strict=True):
            key = (call.number, int(block["epoch"][begin]))
            first, last = int(block["step"][begin]), int(block["step"][end])
            spans[key] = (spans[key][0] if key in spans else first, last)
    labels = sorted(spans)
    meant = chosen(np.array([label[1] for label in labels], np.int64), epoch)
    return {labels[place][0]: spans[labels[place]] for place in np.flatnonzero(meant).tolist()}


def chosen(epochs: np.ndarray, epoch: int | None) -> Mask:
    """Which of some epochs, in order, are meant.

    Args:
        epochs: Their labels, (epochs,).
        epoch: A label, or from -1 on a place from the end; None means all.

    Raises:
        LossLedgerError: None is (slug `no-epoch`).
    """
    if epoch is None:
        return np.ones(len(epochs), bool)
    try:
        label = operator.index(epoch)
        meant = epochs == label if label >= 0 else np.arange(-len(epochs), 0) == label
    except TypeError:  # no epoch is called by a text, a fraction or a slice
        meant = np.zeros(len(epochs), bool)
    if not meant.any():
        has = f"{epochs.min()} to {epochs.max()}" if len(epochs) else "none"
        raise LossLedgerError(
            f"The run has no such epoch. Received: {epoch!r}. It has: {has}.", slug="no-epoch"
        )
    return meant
