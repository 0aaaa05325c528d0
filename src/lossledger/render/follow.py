"""`show --follow`: a growing run as lines, in the order in which things happen."""

from collections import deque
from collections.abc import Iterable, Iterator

import numpy as np

from lossledger.call import noted
from lossledger.export.pieces import Epochs, Piece, Steps
from lossledger.render.base import Options
from lossledger.render.figures import Format
from lossledger.run import Run
from lossledger.statement import EpochStatement
from lossledger.words import command_line, counted, when

EPOCHS = 20
"""Epochs of one call that are told at once, at most: a run may have gone on for long."""


class Follow:
    """What is new in a run, reading after reading.

    Args:
        run: The run.
        options: Which call and model to follow.
    """

    def __init__(self, run: Run, options: Options) -> None:
        self._run = run
        self._options = options
        self._told: set[int] = set()
        self._steps: dict[int, int] = {}
        self._form: Format | None = None

    def head(self) -> Iterator[str]:
        """The lines that say which run it is."""
        parts = (self._run.name, when(self._run.info.get("created")), self._run.where)
        yield ", ".join(part for part in parts if part)

    def lines(self, pieces: Iterable[Piece]) -> tuple[list[str], str]:
        """What has happened.

        Args:
            pieces: Of one reading.

        Returns:
            Lines to keep; and one on the newest entry, "" where there is none.
        """
        kept: list[str] = []
        ended: dict[int, _Ended] = {}
        newest = ""
        for piece in pieces:
            if not self._chosen(piece):
                continue
            if piece.call not in self._told:
                self._told.add(piece.call)
                kept.append(self._call(piece))
            if isinstance(piece, Epochs):
                ended.setdefault(piece.call, _Ended()).add(piece.statements)
            elif isinstance(piece, Steps) and piece.count:
                self._steps[piece.call] = piece.start + piece.count
                newest = self._newest(piece)
        for call, epochs in ended.items():
            if len(ended) > 1:
                kept.append(f"call {call}:")
            kept += self._epochs(epochs)
        return kept, newest

    def foot(self, complete: bool) -> Iterator[str]:
        """The lines that say how it ended, as `run.json` has it by then."""
        steps = counted(sum(self._steps.values()), "step")
        how = "complete" if complete else "incomplete: whatever recorded it has ended"
        yield f"{how}, {steps}  next: {command_line('show', self._run.where)}"

    def _chosen(self, piece: Piece) -> bool:
        call, model = self._options.call, self._options.model
        return call in (None, piece.call) and model in (None, piece.model)

    def _call(self, piece: Piece) -> str:
        info = noted(self._run.path)[0].get(piece.call, {})
        name = info.get("model_name")
        model = f"model {piece.model}{f' ({name})' if name else ''}"
        return f"call {piece.call}: {info.get('driver', 'custom')}, {model}"

    def _epochs(self, epochs: "_Ended") -> Iterator[str]:
        for each in epochs.first:
            yield self._epoch(each)
        if epochs.between:
            yield f"...  {counted(epochs.between, 'epoch')} left out"
        for each in epochs.last:
            yield self._epoch(each)

    def _epoch(self, each: EpochStatement) -> str:
        parts = [f"epoch {each.epoch:>4}", f"{counted(each.steps, 'step'):>12}"]
        for name in ("epoch_mean", "batch_mean", "min", "max"):
            parts.append(f"{name} {self._text(getattr(each, name))}")
        if each.nonfinite:
            parts.append(f"{each.steps - each.nonfinite:,} of {each.steps:,} finite")
        return "  ".join(parts)

    def _newest(self, piece: Steps) -> str:
        place = piece.start + piece.count
        parts = [f"step {place:,}" + (f" of call {piece.call}" if len(self._told) > 1 else "")]
        if piece.epoch is not None:
            parts.append(f"epoch {int(piece.epoch[-1])}")
        parts.append(f"loss {self._text(float(piece.block['loss'][-1]))}")
        if piece.running_mean is not None:
            parts.append(f"running_mean {self._text(float(piece.running_mean[-1]))}")
        return "  ".join(parts)

    def _text(self, value: float) -> str:
        """With the digits that suit the first losses, so that lines compare."""
        if self._form is None and np.isfinite(value) and value:
            self._form = Format.of([value])
        return (self._form or Format.of([value])).text(value)


class _Ended:
    """Epochs that ended in one reading: the first and the last, and how many lie between."""

    def __init__(self) -> None:
        self.first: list[EpochStatement] = []
        self.last: deque[EpochStatement] = deque()
        self.between = 0

    def add(self, statements: Iterable[EpochStatement]) -> None:
        for each in statements:
            if len(self.first) < EPOCHS // 2:
                self.first.append(each)
                continue
            self.last.append(each)
            if len(self.last) > EPOCHS // 2:
                self.last.popleft()
                self.between += 1
