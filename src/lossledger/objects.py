"""A folder on an object store, named by a URI: list, read and replace whole objects.

pyarrow knows the stores (`pyarrow.fs.FileSystem.from_uri`) and is imported when one is first asked;
the module itself imports little, since `lossledger run` hands a script a nearly untouched
interpreter. Credentials stay in the URI that was given: what is shown has none.
"""

import os
import re
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from lossledger.errors import LossLedgerError
from lossledger.folder import LATEST, STAMP

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo, FileSystem

_URI = re.compile(r"([a-z][a-z0-9+.-]+)://(?:([^/?#]*)@)?([^?#]*)(\?[^#]*)?", re.IGNORECASE)
_BEHIND = re.compile(rf"/({LATEST}(?:~\d+)?|{STAMP.pattern}[^/&]*)$")
"""A run's name at the end of a URI's options, where it says nothing."""
_SECRET = re.compile(r"key|secret|token|password|credential|sig", re.IGNORECASE)
_KEYS = ("s3", "gs", "gcs")
"""Schemes in which what stands before `@` is a key; elsewhere it is a name, perhaps a password."""
GOOGLE_SECONDS = 5
"""How long Google's client tries a request again, unless the URI says `retry_limit_seconds`."""
SILENT_SECONDS = 30
"""How long a store that says nothing is waited for, at each piece of an answer."""
_REFUSALS = re.compile(
    "ACCESS_DENIED|NO_SUCH_BUCKET|INVALID_ACCESS_KEY|SIGNATURE_DOES_NOT_MATCH|UNRECOGNIZED_CLIENT"
    "|Could not create a OAuth2 access token"
)
_PIECE = 1 << 20
_WHOLE = ("s3", "gcs", "abfs")
"""Stores on which an object appears when all of it is written, and not before."""

_T = TypeVar("_T")


class Found(NamedTuple):
    """An object of a listing.

    Args:
        size: Its bytes.
        modified: When it was written, ns since 1970, or 0 where the store doesn't say.
    """

    size: int
    modified: int


def is_uri(place: object) -> bool:
    """Whether a place is named by a URI, as `s3://bucket/runs` is; a `Path` never is."""
    return isinstance(place, str) and _URI.fullmatch(place) is not None


class Remote:
    """A folder on a store; shown (`str`) without credentials.

    A `FileNotFoundError` is one on the store; all other trouble with it is an `OSError`.

    Args:
        uri: Its URI, as pyarrow takes it: `s3://bucket/runs?region=eu-west-1`, `gs://bucket/runs`,
            `file:///mnt/runs`.
    """

    def __init__(self, uri: str) -> None:
        found = _URI.fullmatch(uri)
        if found is None:
            raise _bad_uri(repr(uri.rpartition("@")[2]))
        self._scheme, self._user, path, self._query = (part or "" for part in found.groups())
        self._path = path.rstrip("/")
        if behind := _BEHIND.search(self._query):
            meant = self._at(f"{self._path}/{behind[1]}", self._query[: behind.start()])
            raise _bad_uri(f"{self}. A run's name stands before the ?: {meant}")
        self._opened: tuple[FileSystem, str] | None = None

    def __str__(self) -> str:
        pairs = self._query[1:].split("&") if self._query else []
        kept = "&".join(pair for pair in pairs if not _SECRET.search(pair.partition("=")[0]))
        name = "" if self._scheme.lower() in _KEYS else self._user.partition(":")[0]
        user = f"{name}@" if name else ""
        return f"{self._scheme}://{user}{self._path}" + (f"?{kept}" if kept else "")

    @property
    def uri(self) -> str:
        """All of it, credentials too: not to be shown or kept."""
        user = f"{self._user}@" if self._user else ""
        return f"{self._scheme}://{user}{self._path}{self._query}"

    @property
    def name(self) -> str:
        """Its last part."""
        return self._path.rpartition("/")[2]

    @property
    def parent(self) -> "Remote":
        """The folder that it lies in."""
        return self._at(self._path.rpartition("/")[0])

    def __truediv__(self, name: str) -> "Remote":
        inner = self._at(f"{self._path}/{name}")
        if self._opened is not None:
            system, path = self._opened
            inner._opened = (system, f"{path}/{name}")
        return inner

    def _at(self, path: str, query: str | None = None) -> "Remote":
        user = f"{self._user}@" if self._user else ""
        return Remote(f"{self._scheme}://{user}{path}{self._query if query is None else query}")

    def _open(self) -> tuple["FileSystem", str]:
        if self._opened is None:
            from pyarrow.fs import FileSystem

            uri = self.uri
            if self._scheme.lower() in ("gs", "gcs") and "retry_limit_seconds" not in self._query:
                # Google's client tries again for 15 minutes, where it has no credentials, too.
                uri += f"{'&' if self._query else '?'}retry_limit_seconds={GOOGLE_SECONDS}"
            system, path = FileSystem.from_uri(uri)
            self._opened = (_asked_less(system), path.rstrip("/"))
        return self._opened

    @contextmanager
    def _told(self) -> Generator[tuple["FileSystem", str]]:
        """Turns pyarrow's exceptions into `OSError`, without credentials in their text."""
        try:
            yield self._open()
        except FileNotFoundError as error:
            raise FileNotFoundError(self._redacted(error)) from None
        except OSError as error:
            raise OSError(self._redacted(error)) from None
        except (ValueError, NotImplementedError, ImportError) as error:
            raise _bad_uri(f"{self}: {self._redacted(error)}") from None
        except Exception as error:
            from pyarrow import ArrowException

            if not isinstance(error, ArrowException):
                raise
            raise OSError(self._redacted(error)) from None  # what Azure's client says

    def _answer(self, question: "Callable[[FileSystem, str], _T]") -> _T:
        """What the store answers to a question that changes nothing there.

        Some clients wait for minutes for a store that takes a connection and says nothing, and
        can't be stopped; so this gives up on them. What changes something is waited for: given up
        on, it could come to pass after a later change.
        """

        def asked() -> _T:
            with self._told() as (system, path):
                return question(system, path)

        return answer_of(asked, SILENT_SECONDS)

    def _redacted(self, error: Exception) -> str:
        text = str(error).replace(self.uri, str(self))
        name, _, password = self._user.partition(":")
        for secret in (password, name if self._scheme.lower() in _KEYS else ""):
            text = text.replace(secret, "[redacted]") if secret else text
        return text

    def files(self) -> dict[str, Found]:
        """All objects below it, by their path within it; none where there is no such folder."""
        return {
            name: Found(info.size or 0, getattr(info, "mtime_ns", None) or 0)
            for name, info in self._listed(recursive=True)
            if info.is_file
        }

    def folders(self) -> list[str]:
        """Names of the folders in it."""
        return [name for name, info in self._listed(recursive=False) if not info.is_file]

    def _listed(self, *, recursive: bool) -> "list[tuple[str, FileInfo]]":
        from pyarrow.fs import FileSelector

        def listed(system: "FileSystem", path: str) -> "list[tuple[str, FileInfo]]":
            try:  # allowed, a bucket that isn't there would be an empty one
                found: Any = system.get_file_info(FileSelector(path, recursive=recursive))
            except FileNotFoundError:
                return []
            return [(info.path[len(path) :].lstrip("/"), info) for info in found]

        return self._answer(listed)

    def has(self, name: str) -> bool:
        """Whether there is an object of that name in it."""

        def asked(system: "FileSystem", path: str) -> bool:
            found: Any = system.get_file_info(f"{path}/{name}")
            return bool(found.is_file)

        return self._answer(asked)

    def read(self, name: str) -> bytes:
        """An object's content; for small ones."""
        return b"".join(self._pieces(name))

    def download(self, name: str, to: Path) -> None:
        """Writes an object's content to a file, piece by piece."""
        with to.open("wb") as file:
            for piece in self._pieces(name):
                file.write(piece)

    def _pieces(self, name: str) -> Iterator[bytes]:
        stream = self._answer(lambda system, path: system.open_input_stream(f"{path}/{name}"))
        while piece := self._answer(lambda *_: stream.read(_PIECE)):
            yield piece

    def write(self, name: str, data: bytes) -> None:
        """Replaces an object whole: a reader sees the old one or the new."""
        with self._told() as (system, path):
            target = f"{path}/{name}"
            whole = system.type_name in _WHOLE
            aside = target if whole else f"{target}.tmp"
            if not whole:
                system.create_dir(target.rpartition("/")[0], recursive=True)
            with system.open_output_stream(aside) as stream:
                stream.write(data)
            if not whole:
                system.move(aside, target)

    def delete(self, name: str) -> None:
        """Takes an object away, if it is there."""
        with self._told() as (system, path):
            if system.get_file_info(f"{path}/{name}").is_file:
                system.delete_file(f"{path}/{name}")


def _asked_less(system: "FileSystem") -> "FileSystem":
    """S3's client without its thirty tries: whoever asks here tries again, and says so."""
    if system.type_name != "s3":
        return system
    from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem

    options: dict[str, Any] = system.__reduce__()[1][0]  # what it is made of again elsewhere
    if "allow_delayed_open" in options:  # not before pyarrow 18
        # One request an object, not three, and nothing left behind by an upload that is killed.
        options["allow_delayed_open"] = True
    return S3FileSystem(**options, retry_strategy=AwsStandardS3RetryStrategy(max_attempts=3))


def refuses(error: Exception) -> bool:
    """Whether a store says no, and will again however often it is asked."""
    return _REFUSALS.search(str(error)) is not None


def answer_of(question: Callable[[], _T], seconds: float) -> _T:
    """What a question gives, asked in a thread of its own, which is left behind in the end.

    Raises:
        TimeoutError: It has given nothing for so long.
    """
    from concurrent.futures import Future, wait

    answer: Future[_T] = Future()

    def ask() -> None:
        try:
            answer.set_result(question())
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=ask, daemon=True).start()
    if not wait([answer], seconds).done:
        raise TimeoutError(f"it has said nothing for {seconds:g} s")
    return answer.result()


def _bad_uri(received: str) -> LossLedgerError:
    return LossLedgerError(
        f"This is no URI of a folder that pyarrow can open. Received: {received}. "
        "Write s3://bucket/runs, gs://bucket/runs, abfs://account@container/runs or "
        "file:///mnt/runs, for instance.",
        slug="bad-uri",
        exit_code=2,
    )


def remote_of(place: object) -> Remote | None:
    """The remote folder that a place names; `None` for one on this machine's disks."""
    if isinstance(place, Remote):
        return place
    return Remote(place) if isinstance(place, str) and is_uri(place) else None


def kept_at(remote: Remote, kind: str) -> Path:
    """The folder on this machine that stands for a remote one.

    It lies in `LOSSLEDGER_CACHE`, or in `~/.cache/lossledger`.

    Args:
        remote: The remote folder.
        kind: `recorded`, for runs on their way there; `read`, for copies of what is there.
    """
    from hashlib import sha256

    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    cache = os.environ.get("LOSSLEDGER_CACHE") or os.path.join(home, "lossledger")
    text = str(remote)
    readable = re.sub(r"\W+", "-", text.partition("?")[0]).strip("-")[-60:]
    name = f"{readable}-{sha256(text.encode()).hexdigest()[:10]}"
    return Path(os.path.abspath(os.path.expanduser(cache)), kind, name)
