"""Runs that grow, and what of them a page does not have yet."""

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lossledger import copies, shares
from lossledger.errors import LossLedgerError
from lossledger.page.content import Content
from lossledger.page.drawn import drawn
from lossledger.render.base import Options
from lossledger.render.page import PageReport, page_sections
from lossledger.run import Run
from lossledger.workers import is_written

SHARE = 3
"""Reading takes at most one part in so many of the time: the training wants the machine, too."""
QUIET = 2.0
"""Seconds without growth after which the process that recorded is looked for."""


class Growing:
    """Runs as they are on disk by now; safe to ask from several threads.

    Args:
        opened: Opens the runs anew.
        beta: Of the exponential moving average.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        opened: Callable[[], Sequence[Run]],
        beta: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._opened = opened
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: list[object] | None = self._look(runs := opened())
        self._content = Content(runs, beta)
        self._version = 0
        self._trouble = ""
        self._grown = clock()
        self._rest_until = 0.0

    def page(self) -> str:
        """The page with all that there is."""
        with self._lock:
            self._update()
            return PageReport(Options()).render(self._content, self._counts())

    def since(self, generation: int, version: int, have: Mapping[tuple[int, int], int]) -> str:
        """What a page lacks, as JSON.

        Args:
            generation: The page's; arrays of another are sent whole.
            version: The page's; nothing is sent that is not newer.
            have: How many buckets of each track it has, by run and model.
        """
        with self._lock:
            self._update()
            changed = version != self._version or generation != self._content.generation
            answer: dict[str, Any] = {
                "state": self._state(),
                "ended": all(run.complete for run in self._content.runs),
                # In trouble the page keeps what it has.
                "changed": changed and not self._trouble,
                **self._counts(),
            }
            if answer["changed"]:
                known = have if generation == self._content.generation else {}
                answer |= {**drawn(self._content, known), "sections": page_sections(self._content)}
            return json.dumps(answer, allow_nan=False)

    def _counts(self) -> dict[str, int]:
        return {"generation": self._content.generation, "version": self._version}

    def _update(self) -> None:
        begun = self._clock()
        if begun < self._rest_until:
            return
        seen: list[object] | None = None
        try:
            seen = self._look(self._content.runs)
            if seen == self._seen:
                return
            self._content.runs = self._opened()
            self._content.update()
            self._trouble = ""
        except (LossLedgerError, OSError) as error:
            self._trouble = f"the run can't be read at the moment: {error}"
        self._seen = seen
        self._version += 1
        self._grown = self._clock()
        self._rest_until = self._grown + (SHARE - 1) * (self._grown - begun)

    @staticmethod
    def _look(runs: Sequence[Run]) -> list[object]:
        for run in runs:
            copies.refresh(run.path)
        return [shares.state(run.path) for run in runs]

    def _state(self) -> str:
        if self._trouble:
            return self._trouble
        growing = [run for run in self._content.runs if not run.complete]
        if not growing:
            return "the run has ended: this is all of it"
        quiet = self._clock() - self._grown > QUIET
        if quiet and not any(is_written(run.path) for run in growing):
            return "the process that recorded is gone: the run was cut short"
        return "live"
