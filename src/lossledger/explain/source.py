"""A file to explain: regular, of a bounded size, and looked at before it is read."""

import json
import os
import stat
from pathlib import Path
from typing import Any

from lossledger.errors import LossLedgerError

TEXT_BYTES = 64 * 2**20
"""Size of a text file, at most: its numbers take about ten times that in memory."""
EVENT_BYTES = 4 * 2**30
"""Size of an event file, at most; it is read record by record."""
NUMBERS = 20_000_000
"""Numbers taken from a file, at most."""
SERIES = 10_000
"""Series in a file, at most."""
HEAD_BYTES = 4096

KNOWN = (
    "a Keras CSVLogger file, a History as JSON, a TensorBoard event file or its folder, "
    "a Hugging Face trainer_state.json, a Lightning metrics.csv"
)


class Source:
    """One file.

    Args:
        path: The file, or a folder that TensorBoard's are in (`in_folder`).

    Raises:
        LossLedgerError: There is none (`no-file`), or it is no regular file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        try:
            if self.path.is_dir():
                self.path = _file_in(self.path)
            found = self.path.stat()
            if not stat.S_ISREG(found.st_mode):
                raise LossLedgerError(
                    f"Only a regular file can be explained. Received: {self.path}, a pipe or a "
                    "device. Write it to a file first.",
                    slug="no-file",
                )
            self.size = found.st_size
            with self.path.open("rb") as file:
                self.head = file.read(HEAD_BYTES)
        except (OSError, ValueError) as error:
            raise LossLedgerError(
                f"The file can't be read. Received: {self.path}: {error}. Name a file that is "
                "there and that you may read.",
                slug="no-file",
            ) from error

    def text(self) -> str:
        """All of it as text.

        Raises:
            LossLedgerError: It is too large (`file-too-large`) or no UTF-8 (`file-damaged`).
        """
        self.bound(TEXT_BYTES)
        with self.path.open("rb") as file:
            content = file.read(TEXT_BYTES + 1)
        try:
            return content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise self.damaged(f"byte {error.start:,} is no UTF-8") from error

    def json(self) -> Any:
        """Its JSON, NaN and infinities as Python writes them.

        Raises:
            LossLedgerError: It is none, or nested too deeply (`file-damaged`).
        """
        return self.parsed(self.text())

    def parsed(self, text: str) -> Any:
        """The JSON in a part of it, as `json` gives all of it."""
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            what = "nested too deeply" if isinstance(error, RecursionError) else str(error)
            raise self.damaged(f"no valid JSON: {what[:200]}") from error

    @property
    def opening(self) -> str:
        """The first characters, if it is text; else ""."""
        if b"\0" in self.head:
            return ""
        text = self.head.decode("utf-8-sig", errors="replace")
        # The head may end within a character.
        return "" if "\ufffd" in text[:-4] else text.rstrip("\ufffd")

    def bound(self, most: int) -> None:
        """Checks the size before anything is read.

        Raises:
            LossLedgerError: It is larger (`file-too-large`).
        """
        if self.size > most:
            raise self.too_large(f"{self.size:,} bytes; at most {most:,} are read")

    def damaged(self, what: str) -> LossLedgerError:
        """The error for a file that is not what it began as."""
        return LossLedgerError(
            f"The file is damaged. Received: {self.path}: {what}. Restore it from a copy, or "
            "write it again.",
            slug="file-damaged",
        )

    def too_large(self, what: str) -> LossLedgerError:
        """The error for a file with more in it than is read."""
        return LossLedgerError(
            f"The file is too large. Received: {self.path}: {what}. Cut out the part that you "
            "ask about.",
            slug="file-too-large",
        )

    def unknown(self, what: str) -> LossLedgerError:
        """The error for a file that is none of the known kinds."""
        return LossLedgerError(
            f"The file is none that can be explained. Received: {self.path}: {what}. Give {KNOWN}.",
            slug="file-unknown",
        )


def _file_in(path: Path) -> Path:
    found = in_folder(path)
    if found is None:
        raise _folder(path)
    return found


def in_folder(path: Path) -> Path | None:
    """The file that a folder of TensorBoard's is meant by: its only one, or that of the training.

    `None` where there are several such, or none.
    """
    found = _events(path)
    trained = [each for each in found if "train" in each.relative_to(path).parts[:-1]]
    only = found if len(found) == 1 else trained
    return only[0] if len(only) == 1 and not (path / "run.json").is_file() else None


def _events(path: Path) -> list[Path]:
    return sorted(each for each in path.glob("**/events.out.tfevents.*") if each.is_file())


def _folder(path: Path) -> LossLedgerError:
    if (path / "run.json").is_file():
        advice = f"It is a run: lossledger show {path}"
    else:
        events = ", ".join(map(str, _events(path)[:8]))
        advice = f"Name one of its event files: {events}" if events else "Name a file in it"
    return LossLedgerError(
        f"A file can be explained. Received: {path}, a folder. {advice}.", slug="no-file"
    )
