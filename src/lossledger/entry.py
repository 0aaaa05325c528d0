"""The entry: what one training step produced, column by column.

Entries pass between modules as *blocks*: a dictionary of equally long numpy arrays under the
column names below. A column that a block lacks is null for its rows. A name that is no column
below is the loss of a named output (float32), as Keras names it (`a_loss`).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

FORMAT = 2
"""Newest version of the run folder's format; each run says its own in `run.json`.

1: first format. `run.json`, `calls.jsonl`, `entries/NNNNNN.arrows` sealed to `.parquet`.
2: what several replicas or workers record together: a row a replica (column `replica`), and a
   folder `worker-N` a worker. A reader of format 1 would count such steps twice, so only these
   runs have it.
"""

PLAIN_FORMAT = 1
"""The format of a run that one process recorded, a row a step."""


@dataclass(frozen=True)
class Column:
    """One column of the ledger."""

    name: str
    dtype: str
    unit: str
    meaning: str


COLUMNS = (
    Column("step", "i8", "1", "place in the run, from 0, over all models and calls"),
    Column("call", "i4", "1", "the call that trained: a fit, a series of train_on_batch, a loop"),
    Column("model", "i4", "1", "the model trained, numbered as first seen in the run"),
    Column("epoch", "i4", "1", "epoch of the call, from 0; -1 where the driver has none"),
    Column("batch", "i4", "1", "batch within the epoch, from 0; within the call where epoch is -1"),
    Column("loss", "f4", "loss", "the value that the step computed, before any scaling"),
    Column("weight", "f8", "weight kind", "what the reported mean weights this loss by"),
    Column("rows", "i4", "rows", "rows of the batch"),
    Column("elements", "f8", "1", "loss values that a mask left in; null without a mask"),
    Column("sample_weight", "f8", "1", "sum of the sample weights applied; null without any"),
    Column("penalty", "f4", "loss", "part of `loss` that is no data term; null if unknown"),
    Column("learning_rate", "f4", "1", "the optimizer's, at this step; null without an optimizer"),
    Column("time", "i8", "ns", "since the run began, when the step's execution returned"),
    Column("batch_id", "u8", "1", "fingerprint of the batch's content; null if it has none"),
    Column("updated", "?", "1", "whether the step moved the weights; null if unknown"),
    Column("reported", "f8", "loss", "what train_on_batch returned for the step; null elsewhere"),
    Column("replica", "i4", "1", "the replica that computed this share of the step, where several"),
)

SPARSE = ("replica",)
"""Columns that only those segments have that need them."""

NAMES = tuple(column.name for column in COLUMNS if column.name not in SPARSE)
"""Columns that every segment has."""

WHOLE = -1
"""`replica` of an entry that is the whole step already, the same in every worker."""

OF_EPOCHS = ("fit", "loop")
"""The drivers that are given all data at once, and count epochs."""

MEASURES = "evaluate"
"""The driver of a call that trains nothing: evaluations of a model before a training of it."""

MEASURED = ("evaluate", "tested")
"""Where losses of weights held fixed were measured: by `evaluate`, by `test_on_batch`."""

DTYPES = {column.name: np.dtype(column.dtype) for column in COLUMNS}
OUTPUT_DTYPE = np.dtype("f4")

NO_EPOCH = -1
"""`epoch` of an entry whose driver has no epochs and whose user named none."""


def dtype_of(name: str) -> np.dtype:
    """The dtype of a column, or of a named output's loss where `name` is no column."""
    return DTYPES.get(name, OUTPUT_DTYPE)


def number(value: Any) -> float:
    """`value`, a number or an array of one, as a float; NaN for anything else.

    Raises:
        RuntimeError: The device could not compute it.
    """
    try:
        value = value.detach().cpu() if hasattr(value, "detach") else value
        return float(np.ravel(np.asarray(value))[0])
    except (TypeError, ValueError, IndexError):
        return float("nan")
