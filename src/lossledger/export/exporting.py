"""Export a run: what a tracker lacks of it, once, in bounded memory."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from lossledger.call import noted
from lossledger.entry import MEASURES
from lossledger.errors import LossLedgerError
from lossledger.export.base import Tracker, readable
from lossledger.export.feed import Feed
from lossledger.export.pieces import Epochs, Piece, Shown, Steps
from lossledger.export.progress import Done, Progress
from lossledger.growth import growth, is_over
from lossledger.run import Run

TRACKERS: Mapping[str, tuple[str, str]] = {
    "tensorboard": ("lossledger.export.tensorboard", "TensorBoard"),
    "mlflow": ("lossledger.export.mlflow", "MLflow"),
    "wandb": ("lossledger.export.wandb", "WandB"),
    "csv": ("lossledger.export.tables", "Csv"),
    "parquet": ("lossledger.export.tables", "Parquet"),
}
"""The trackers by name: module and class, imported when one is used."""


@dataclass(frozen=True)
class Exported:
    """What an export did.

    Args:
        tracker: Its name.
        where: Where the numbers are.
        entries: Entries of the run that the tracker has now.
        added: Numbers that were written: 0 where it had them all.
        next: The command to look at them, or `None`.
    """

    tracker: str
    where: str
    entries: int
    added: int
    next: str | None


def export(
    run: Run,
    to: str,
    directory: str | Path | None = None,
    *,
    force: bool = False,
    follow: bool = False,
) -> Exported:
    """Writes the numbers of a run that a tracker lacks.

    Args:
        run: The run. What a growing one has by now is written; the rest by another export.
        to: `tensorboard`, `mlflow`, `wandb`, `csv` or `parquet`.
        directory: The tracker's folder; `exports/<to>` by default.
        force: Whether to write all of it anew, in the place of what the tracker has of it.
        follow: Whether to go on while the run grows, until it is over.

    Returns:
        What was added, and where: an `Exported`.

    Raises:
        LossLedgerError: No such tracker (`unknown-tracker`), it isn't installed
            (`not-installed`), or what it has is not of this run (`export-differs`).

    Example:

    ```python
    from lossledger.export import export

    export(lossledger.open("runs/latest"), "tensorboard", "logs")
    ```
    """
    tracker = tracker_class(to)(run, Path(directory or Path("exports", to)))
    try:
        progress = tracker.open(force=force)
        _export(tracker, progress, follow=follow)
        return Exported(to, tracker.where, progress.entries, tracker.added, tracker.next)
    finally:
        tracker.close()


def tracker_class(name: str) -> type[Tracker]:
    """The class of a tracker.

    Raises:
        LossLedgerError: There is none of that name.
    """
    if name not in TRACKERS:
        raise LossLedgerError(
            f"No such tracker. Received: {name!r}. Choose one of {', '.join(TRACKERS)}.",
            slug="unknown-tracker",
            exit_code=2,
        )
    module, kind = TRACKERS[name]
    return getattr(import_module(module), kind)


def _export(tracker: Tracker, progress: Progress, *, follow: bool) -> None:
    run = tracker.run
    over = is_over(run.path)
    feed = Feed(run, tracker.columns, over=over)
    for now in growth(run.path) if follow else (over,):
        over = now
        _read(feed, tracker, progress, over=over)
        if follow and not over:
            tracker.commit(progress, last=False)
    if over and feed.uncertain:
        # What depends on its epochs, which all of its batches together have told.
        closed = Run(run.path, steps_per_epoch=run.steps_per_epoch)
        _read(Feed(closed, tracker.columns, over=True), tracker, progress, over=True)
    tracker.commit(progress, last=True)


def _read(feed: Feed, tracker: Tracker, progress: Progress, *, over: bool) -> None:
    waiting = 0
    _name_models(progress, noted(tracker.run.path)[0])
    for piece in feed.read(over=over):
        if piece.model not in progress.prefixes:
            _name_models(progress, noted(tracker.run.path)[0], piece.model)
        for part in _parts(piece, tracker.chunk):
            waiting += _take(part, tracker, progress)
            if waiting >= tracker.chunk:
                tracker.commit(progress, last=False)
                waiting = 0


def _parts(piece: Piece, size: int) -> Iterator[Piece]:
    if isinstance(piece, Steps) and piece.count > size:
        for begin in range(0, piece.count, size):
            yield piece.cut(piece.start + begin).head(size)
    else:
        yield piece


def _take(piece: Piece, tracker: Tracker, progress: Progress) -> int:
    """Writes what the tracker lacks of a piece; how many things that were."""
    done = progress.calls.setdefault(piece.call, Done())
    end = piece.start + piece.count
    if isinstance(piece, Epochs):
        count = max(end - done.epochs, 0)
        if count:
            tracker.epochs(piece.cut(done.epochs))
            done.epochs = end
        return count
    if isinstance(piece, Shown):
        count = max(end - done.shown, 0)
        if count:
            tracker.shown(piece.cut(done.shown))
            done.shown = end
        return count
    certain = piece.running_mean is not None
    if tracker.whole and not certain:
        return 0
    count = max(end - done.steps, 0)
    if certain and done.running == done.steps:
        if count:
            tracker.steps(piece.cut(done.steps), own=True, running=True)
            done.steps = done.running = end
        return count
    if count:
        tracker.steps(piece.cut(done.steps), own=True, running=False)
        done.steps = end
    if certain and end > done.running:
        tracker.steps(piece.cut(done.running), own=False, running=True)
        count += end - done.running
        done.running = end
    return count


def _name_models(
    progress: Progress, infos: Mapping[int, Mapping[str, Any]], seen: int | None = None
) -> None:
    """Gives each model a prefix where there are several; one that it has, it keeps."""
    names = {
        int(info["model"]): str(info.get("model_name") or "model")
        for info in infos.values()
        if "model" in info and info.get("driver") != MEASURES
    }
    if seen is not None:
        names.setdefault(seen, "model")
    if not names or (len(names) == 1 and not progress.prefixes):
        # Its name may be written down later; one model needs none.
        if seen is not None:
            progress.prefixes[seen] = ""
        return
    for model, name in sorted(names.items()):
        if model not in progress.prefixes:
            prefix = f"{readable(name)}/"
            if prefix in progress.prefixes.values():
                prefix = f"{readable(name)}-{model}/"
            progress.prefixes[model] = prefix
