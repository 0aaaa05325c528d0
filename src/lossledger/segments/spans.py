"""Which rows of a run are meant: those of some calls, each from a first to a last step."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from lossledger.vectors import Mask

if TYPE_CHECKING:
    import pyarrow as pa


class Spans:
    """Rows of some calls. A run may have tens of thousands of them, and a row is looked up in one.

    Args:
        spans: By call, its first and its last step that are meant; `None` means all of it.
    """

    def __init__(self, spans: Mapping[int, tuple[int, int] | None]) -> None:
        numbers = sorted(spans)
        whole = (0, np.iinfo(np.int64).max)
        edges = [spans[number] or whole for number in numbers]
        self._calls = np.array(numbers, np.int64)
        self._first, self._last = np.array(edges, np.int64).reshape(-1, 2).T

    def holds(self, call: np.ndarray, step: np.ndarray) -> Mask:
        """Which of some rows are meant, (rows,)."""
        if not len(self._calls):
            return np.zeros(len(call), bool)
        place = np.minimum(np.searchsorted(self._calls, call), len(self._calls) - 1)
        within = (self._first[place] <= step) & (step <= self._last[place])
        return (self._calls[place] == call) & within

    def meets(self, calls: tuple[int, int], steps: tuple[int, int]) -> bool:
        """Whether rows may be meant whose calls and steps lie between these, ends included."""
        of_calls = (calls[0] <= self._calls) & (self._calls <= calls[1])
        return bool((of_calls & (self._first <= steps[1]) & (steps[0] <= self._last)).any())

    def of(self, chunk: "pa.Table") -> "pa.Table":
        """The rows of a chunk that are meant."""
        import pyarrow as pa

        columns = (chunk.column(name).to_numpy() for name in ("call", "step"))
        return chunk.filter(pa.array(self.holds(*columns)))
