"""Fetches the entries that wait in the taps and in the user's own loops, and writes them."""

import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lossledger.recorder.call import RecordedCall
    from lossledger.recorder.custom import CustomSteps
    from lossledger.recorder.models import Models
    from lossledger.recorder.output import Output
    from lossledger.recorder.trouble import Trouble

FLUSH_SECONDS = 0.5
"""How often entries are fetched and written, in seconds."""

LATER_BYTES = 2**27
"""What work that waits for the thread may hold, in bytes."""


class Collector:
    """A thread that collects now and then; whoever needs what is written by now collects, too.

    Args:
        models: Where the open calls are known.
        custom: The steps of loops that Keras doesn't run.
        output: Where entries go.
        trouble: Where to say what can't be written.
    """

    def __init__(
        self, models: "Models", custom: "CustomSteps", output: "Output", trouble: "Trouble"
    ):
        self.steps = 0
        self._models = models
        self._custom = custom
        self._output = output
        self._trouble = trouble
        self._collecting = threading.RLock()
        self._working = threading.RLock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._later: deque[tuple[Callable[[], None], int]] = deque()

    def start(self) -> None:
        """Collect from here on."""
        self._wake.clear()
        self._thread = threading.Thread(target=self._run, name="lossledger", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread, and collect what is left."""
        if self._thread is not None:
            self._wake.set()
            self._thread.join()
            self._thread = None
        self._catch_up()
        self.collect()

    def _run(self) -> None:
        while not self._wake.wait(FLUSH_SECONDS):
            self._catch_up()
            self.collect()

    def later(self, work: Callable[[], None], size: int) -> None:
        """Let the thread do what the training need not wait for.

        Args:
            work: What to do.
            size: Bytes that it holds until then.
        """
        self._later.append((work, size))
        if sum(held for _, held in list(self._later)) > LATER_BYTES:
            self._catch_up()

    def _catch_up(self) -> None:
        with self._working:
            while self._later:
                work, _ = self._later[0]
                with self._trouble.guarded("weights-not-read"):
                    work()
                self._later.popleft()

    def collect(self) -> None:
        """Fetch the entries that the taps hold and write them out."""
        with self._collecting, self._trouble.guarded("cannot-write"):
            calls = self._models.open
            for call in calls:
                if block := self._collected(call):
                    self._output.waiting.append(block)
            self.steps += self._custom.collect()
            self._output.append()
            for call in calls:
                if call.gone:
                    call.finish()

    def _collected(self, call: "RecordedCall") -> dict[str, Any]:
        """The entries that wait in a call's buffer."""
        buffer, block = call.buffer, {}
        if buffer is not None:
            before = buffer.seen - buffer.lost
            with self._trouble.guarded("tap-failed"):
                block = buffer.collect()
            self.steps += buffer.seen - buffer.lost - before
        call.say()
        return block
