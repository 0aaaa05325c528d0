"""What the benchmarks write into the page."""

import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import glance
import pytest

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
MARKED = "# Page\nprose\n<!-- measured: a -->\nold\n<!-- end measured -->\nmore\n"


@pytest.fixture
def section(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.delenv("PAGE", raising=False)
    import section

    monkeypatch.setattr(section, "PAGE", tmp_path / "page.md")
    section.PAGE.write_text(MARKED)
    return section


def test_a_section_is_written_and_the_prose_stays(
    section: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [("ours", "1.5", ""), ("a \\d", "2", "3 in words"), ("", "+3 (2 to 4)", "words")]
    head = section.head("What", section.versions("numpy", "no-such-package"))
    section.write("a", head, section.table(("way", "s", "note"), rows), "")
    text = section.PAGE.read_text()
    before, after = text.split("<!-- measured: a -->")[0], text.split("<!-- end measured -->")[1]
    assert (before, after) == ("# Page\nprose\n", "\nmore\n")
    assert "old" not in text
    assert "| way | s | note |\n| --- | ---: | --- |\n| ours | 1.5 |  |\n| a \\d | 2 |" in text
    assert re.search(
        r"\*\*What\*\*, 20\d\d-\d\d-\d\d, \d+ cores of .*, Python 3\..*, numpy \d", text
    )
    assert "| ours | 1.5 |  |" in capsys.readouterr().out


def test_a_part_of_a_section_leaves_the_page_alone(
    section: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    section.write("a", "new", whole=False)
    assert section.PAGE.read_text() == MARKED
    monkeypatch.setenv("PAGE", "named")
    section.write("a", "new", whole=False)
    assert "new" in section.PAGE.read_text()


def test_a_section_that_the_page_lacks_is_an_error(section: ModuleType) -> None:
    with pytest.raises(SystemExit, match="no section <!-- measured: b -->"):
        section.write("b", "new")


def test_every_section_of_the_page_is_some_benchmarks_own() -> None:
    """No table is pasted: what is marked is written by a script that `make bench` runs."""
    page = (ROOT / "docs/benchmarks.md").read_text()
    marks = re.findall(r"<!-- measured: (.+) -->", page)
    assert len(marks) == len(set(marks)) == page.count("<!-- end measured -->") > 15
    written = "".join(path.read_text() for path in BENCHMARKS.rglob("*.py"))
    for mark in marks:
        first = mark.partition(" ")[0]
        assert f'write("{mark}"' in written or f'"{first} {{' in written or f'"{mark}"' in written
    outside = re.sub(r"<!-- measured: .*?<!-- end measured -->", "", page, flags=re.S)
    assert "| ---: |" not in outside


def test_every_benchmark_is_run_by_one_command() -> None:
    source = (BENCHMARKS / "__main__.py").read_text()
    scripts = {p.name for p in BENCHMARKS.glob("*.py")} - {"__main__.py", "section.py"}
    full, rest = source.partition("QUICK = ")[::2]
    quick, large = rest.partition("LARGE = ")[::2]
    for name in scripts:
        assert f'("{name}' in full or f'("{name}' in large
        assert f'("{name}' in quick
    assert "python benchmarks" in (ROOT / "Makefile").read_text()


def test_a_peer_that_could_not_run_is_missing_at_a_glance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = glance.PAGE.read_text().splitlines(keepends=True)
    missing = ("| MLflow", "| than Orbit")
    monkeypatch.setattr(glance, "PAGE", tmp_path / "page.md")
    glance.PAGE.write_text("".join(line for line in lines if not line.startswith(missing)))
    shown = glance.glance()
    assert "; MLflow -, -, -; W&B 1" in shown
    assert "; MLflow -; W&B 0" in shown
    assert "as Orbit -, as Lightning -" in shown


SCRIPT = """
import os, sys
print("I0000 TensorFlow is here", file=sys.stderr)
assert os.environ["PAGE"].endswith(".md")
"""


@pytest.mark.parametrize(
    ("asked", "failed", "minutes", "place"),
    [
        ("QUICK", "page.py 1e4 1e5 live", 30, "build"),
        ("LARGE", "page.py 1e8", 120, "docs"),
        ("NONE", "page.py", 60, "docs"),
    ],
)
def test_the_command_says_what_failed(
    tmp_path: Path, asked: str, failed: str, minutes: int, place: str
) -> None:
    """In a copy, with scripts that do nothing but end; others' noise is left out."""
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/benchmarks.md").write_text(MARKED)
    for path in BENCHMARKS.glob("*.py"):
        (folder / path.name).write_text(SCRIPT)
    (folder / "__main__.py").write_text((BENCHMARKS / "__main__.py").read_text())
    (folder / "page.py").write_text("raise SystemExit('no page')\n")
    done = subprocess.run(
        [sys.executable, folder], env={asked: "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr == f"no page\nfailed: {failed}\n"
    assert (tmp_path / place / "benchmarks.md").read_text() == MARKED
    assert f"{place}/benchmarks.md, about {minutes} minutes" in done.stdout
