"""Find out what a file is, and read it."""

import os
from collections.abc import Mapping

import numpy as np

from lossledger.errors import LossLedgerError
from lossledger.explain.explained import Explained
from lossledger.explain.keras_files import KerasCsvLogger
from lossledger.explain.keras_history import KerasHistory
from lossledger.explain.kind import Kind
from lossledger.explain.lightning_csv import LightningCsv
from lossledger.explain.source import Source
from lossledger.explain.tensorboard import TensorBoard
from lossledger.explain.trainer_state import TrainerState

KINDS: tuple[Kind, ...] = (
    TensorBoard(),
    TrainerState(),
    KerasHistory(),
    LightningCsv(),
    KerasCsvLogger(),
)
"""The kinds of files, in the order in which they are tried."""

_PICKLES = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"(dp", b"ccopy_reg", b"cpandas")
_OTHERS = {
    b"\x89HDF": "an HDF5 file, which holds weights",
    b"PK\x03\x04": "a zip archive, such as a .keras model or a .npz file",
    b"\x93NUMPY": "a numpy array, which says nothing of its numbers",
    b"\x1f\x8b": "a gzip file; unpack it first",
    b"PAR1": "a Parquet file",
    b"\xff\xfe": "text in UTF-16; save it as UTF-8 first",
    b"\xfe\xff": "text in UTF-16; save it as UTF-8 first",
}


def read(path: str | os.PathLike[str], versions: Mapping[str, str] | None = None) -> Explained:
    """Reads a file of losses that another tool wrote; it never runs anything in it.

    What the file is, is told by what is in it, not by its name.

    Args:
        path: A Keras `CSVLogger` file, `History.history` as JSON, a TensorBoard event file or
            its folder, a Hugging Face `trainer_state.json`, or a Lightning `metrics.csv`.
        versions: Versions of the tools that wrote it, where known: `{"keras": "3.8"}`. Where one is
            not, every version's convention is given.

    Returns:
        An `Explained`: its `kind`, its `notes`, its `series`, and `losses`, the series whose
        statistic is known. A series has `name`, `statistic`, `per`, `steps` and `values`.

    Raises:
        LossLedgerError: It can't be read (`no-file`), is none of these (`file-unknown`,
            `file-pickled`), damaged (`file-damaged`) or too large (`file-too-large`).

    Example:

    ```python
    from lossledger import explain

    for series in explain.read("log.csv").losses:
        print(series.name, series.statistic, series.values)
    ```
    """
    source = Source(path)
    if not source.head:
        raise source.unknown("an empty file")
    if source.head.startswith(_PICKLES):
        raise LossLedgerError(
            f"A pickle is not read: opening one runs what is in it. Received: {source.path}. Where "
            "it was made, write JSON instead: json.dump(history.history, open('history.json', "
            "'w'), default=float)",
            slug="file-pickled",
        )
    for start, what in _OTHERS.items():
        if source.head.startswith(start):
            raise source.unknown(what)
    for kind in KINDS:
        if kind.recognises(source):
            with np.errstate(over="ignore"):  # a number may be any: what overflows shows as inf
                return kind.read(source, dict(versions or {}))
    raise source.unknown(_looks(source))


def _looks(source: Source) -> str:
    """What a file of no known kind looks like."""
    lines = source.opening.split("\n")
    if lines[0] or len(lines) > 1:
        return f"text that begins {lines[0][:60]!r}"
    return "binary of an unknown kind" if b"\0" in source.head else "no text in UTF-8"
