"""The audit of dependencies: what fails it, and what it says where it can't be made."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

AUDIT = Path(__file__).parents[2] / ".ci" / "audit.py"
KNOWN = [{"id": "PYSEC-1", "fix_versions": ["99"]}]


def audited(folder: Path, body: str) -> subprocess.CompletedProcess[str]:
    """Run it with a program in place of pip-audit."""
    program = folder / "pip-audit"
    program.write_text(f"#!{sys.executable}\nimport json, re, sys\n{body}\n")
    program.chmod(0o755)
    command = [sys.executable, AUDIT, program]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def answer(**vulnerable: list[dict]) -> str:
    return f"""
names = re.findall("^(.+)==", open(sys.argv[-1]).read(), re.M)
known = json.loads({json.dumps(vulnerable)!r})
found = [{{"name": each, "version": "1", "vulns": known.get(each, [])}} for each in names]
print(json.dumps({{"dependencies": found}}))
sys.exit(bool(known))
"""


@pytest.mark.parametrize(
    ("name", "status"), [("numpy", 1), ("keras", 1), ("urllib3", 1), ("mlflow-skinny", 0)]
)
def test_only_what_runs_with_us_fails(tmp_path: Path, name: str, status: int) -> None:
    done = audited(tmp_path, answer(**{name: KNOWN}))
    assert done.returncode == status, done.stderr
    assert re.search(rf"^{name} 1 .*PYSEC-1, fixed in 99$", done.stdout, re.M)
    assert ("needed to run" in done.stdout.splitlines()[0]) == bool(status)


def test_nothing_is_known(tmp_path: Path) -> None:
    done = audited(tmp_path, answer())
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"== audited (\d+) of \1 packages, \d+ needed to run: 0 .*\n", done.stdout)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("sys.exit('ConnectionError: no such host')", "ConnectionError: no such host"),
        ("print('<html>')\nsys.exit(1)", "status 1"),
        (
            "print(json.dumps({'dependencies': [{'name': 'a', 'skip_reason': 'not found'}]}))",
            "not found",
        ),
    ],
)
def test_a_service_that_does_not_answer_is_said_in_a_line(
    tmp_path: Path, body: str, why: str
) -> None:
    done = audited(tmp_path, body)
    assert (done.returncode, done.stdout) == (0, f"== not audited: {why}\n")
