"""The code blocks of the documents, and what is to become of each.

| block | what the tests do with it |
| --- | --- |
| `python` | run, in order, in one namespace a page |
| `console` | its `$ lossledger ...` and `$ python ...` are run, and what they print is compared |
| `text` | nothing; after `<!-- output -->` it is what the Python block before it prints |
| `bash` | its commands run, in a folder that pages share (`shell.py`); each ends with status 0 |
| `toml`, `json` | parsed |

A comment in the line before a block says what is not so:

| comment | meaning |
| --- | --- |
| `not run: REASON` | the block can't run here; the tests count these |
| `on a disk: URI` | a folder stands for the URI |
| `file: NAME` | the block is a file, which is written into the page's folder |
| `output` | the text is what the Python block before it prints |
| `numbers within X` | numbers may differ by X, or by X of their size |
| `numbers differ` | numbers, and bars made of them, are not compared |

Where numbers may differ, so may the spaces. A line `...` stands for any lines, and the time of a
run for any time.
"""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

_BLOCK = re.compile(r"(?:^<!-- ([^\n]*?) -->\n)?^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?%?|\bnan\b|[-+]?\binf\b")
_TIME = re.compile(r"\d{4}-\d\d-\d\d[ _]\d\d[-:]\d\d[-:]\d\d")
_BARS = re.compile("[▁▂▃▄▅▆▇█]+")


@dataclass(frozen=True)
class Block:
    """A block of code.

    Args:
        page: Its page, from the root.
        line: Where its code begins, from 1.
        language: As behind the fence.
        code: What is in it.
        notes: The words of the comment before it, part by part.
    """

    page: str
    line: int
    language: str
    code: str
    notes: tuple[str, ...]

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def runs(self) -> bool:
        """Whether it is run at all."""
        if self.said("not run") is not None:
            return False
        return self.language in ("python", "console") or "output" in self.notes

    @property
    def is_shell(self) -> bool:
        """Whether it is commands that are run, and what they print isn't shown."""
        return self.language == "bash" and self.said("not run") is None

    def said(self, what: str) -> str | None:
        """What follows some words in the comment; None where they aren't there."""
        return next((n[len(what) :].lstrip(": ") for n in self.notes if n.startswith(what)), None)

    @property
    def tolerance(self) -> float | None:
        """How far numbers may be apart; None if they aren't compared."""
        if "numbers differ" in self.notes:
            return None
        return float(self.said("numbers within") or 0.0)


def pages() -> list[Path]:
    """All documents: those of the root, and those of the site."""
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def blocks(path: Path) -> list[Block]:
    """The blocks of a page, in order."""
    text = path.read_text()
    found = []
    for match in _BLOCK.finditer(text):
        line = text.count("\n", 0, match.start(3)) + 1
        notes = tuple(re.split(r", (?=numbers)", match[1])) if match[1] else ()
        found.append(Block(str(path.relative_to(ROOT)), line, match[2], match[3], notes))
    return found


def sessions(code: str) -> list[tuple[str, str]]:
    """The commands of a console block, each with what it prints."""
    parts = re.split(r"^\$ (.*)\n", code, flags=re.MULTILINE)
    return list(zip(parts[1::2], parts[2::2], strict=True))


def commands(code: str) -> list[list[str]]:
    """The commands of a shell block, each in words, without comments and empty lines."""
    words = [shlex.split(line, comments=True) for line in code.splitlines()]
    return [each for each in words if each]


def same(shown: str, got: str, tolerance: float | None) -> bool:
    """Whether an output is the one that a page shows."""
    strict = tolerance == 0
    wanted, lines = _lines(shown, strict), _lines(got, strict)
    return _match(wanted, lines, tolerance)


def _match(wanted: list[str], lines: list[str], tolerance: float | None) -> bool:
    if not wanted:
        return not lines
    if wanted[0] == "...":
        return any(_match(wanted[1:], lines[k:], tolerance) for k in range(len(lines) + 1))
    return (
        bool(lines)
        and _alike(wanted[0], lines[0], tolerance)
        and _match(wanted[1:], lines[1:], tolerance)
    )


def _alike(shown: str, got: str, tolerance: float | None) -> bool:
    if tolerance == 0:
        return shown == got
    if _NUMBER.sub("#", _BARS.sub("=", shown)) != _NUMBER.sub("#", _BARS.sub("=", got)):
        return False
    pairs = zip(_NUMBER.findall(shown), _NUMBER.findall(got), strict=True)
    return tolerance is None or all(_near(a, b, tolerance) for a, b in pairs)


def _near(a: str, b: str, tolerance: float) -> bool:
    if a == b:
        return True
    one, other = (float(text.rstrip("%").replace(",", "")) for text in (a, b))
    return abs(one - other) <= tolerance * max(1.0, abs(one))


def _lines(text: str, strict: bool) -> list[str]:
    text = _TIME.sub("TIME", text)
    lines = [line.rstrip() for line in text.strip("\n").splitlines()]
    return lines if strict else [" ".join(line.split()) for line in lines]
