"""Ask for known vulnerabilities of what is installed here, in the versions of constraints.txt.

    python .ci/audit.py PIP_AUDIT

What lossledger needs to run (its dependencies, the backends, and all that those bring along) has
to be free of them: exit status 1. One of a tool's or a tracker's is named and does no harm. Where
the service can't be asked, that is said in one line.
"""

import json
import re
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

EXTRAS = ("tensorflow", "jax", "torch")
PINNED = re.compile(r"^([\w.-]+)==([\w.+!-]+)", re.MULTILINE)


def needed(name: str, extras: tuple[str, ...] = ()) -> set[str]:
    """The names of all that a distribution needs, itself among them; of what is installed."""
    found: set[tuple[str, tuple[str, ...]]] = set()
    waiting = [(canonicalize_name(name), extras)]
    while waiting:
        name, chosen = each = waiting.pop()
        if each in found:
            continue
        try:
            lines = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue  # a marker's, or an extra's, that is not asked for
        found.add(each)
        for need in map(Requirement, lines):
            marker = need.marker
            if marker is None or any(marker.evaluate({"extra": e}) for e in ("", *chosen)):
                waiting.append((canonicalize_name(need.name), tuple(need.extras)))
    return {name for name, _ in found}


def asked(program: str, pinned: dict[str, str]) -> list[dict] | str:
    """What the service knows of these versions, or why it could not be asked."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.writelines(f"{name}=={version}\n" for name, version in pinned.items())
        file.flush()
        options = ["--no-deps", "--disable-pip", "--progress-spinner=off", "--format=json"]
        command = [program, *options, "--timeout=20", "--requirement", file.name]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        except FileNotFoundError:
            return f"pip-audit is not installed ({program})"
        except subprocess.TimeoutExpired:
            return "no answer within 300 s"
    try:
        found = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        lines = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
        return lines[-1][:200]
    refused = [each["skip_reason"] for each in found if "skip_reason" in each]
    return found if len(refused) < len(found) else refused[0]


def main() -> int:
    """Prints what is known; 1 where something that runs with lossledger is vulnerable."""
    text = (Path(__file__).parents[1] / "constraints.txt").read_text()
    pinned = {canonicalize_name(name): version for name, version in PINNED.findall(text)}
    runtime = needed("lossledger", EXTRAS)
    found = asked(sys.argv[1], pinned)
    if isinstance(found, str):
        print(f"== not audited: {found}")
        return 0
    failed, unknown = 0, 0
    for each in found:
        unknown += "skip_reason" in each
        for known in each.get("vulns", ()):
            serious = canonicalize_name(each["name"]) in runtime
            failed += serious
            fixed = ", ".join(known["fix_versions"]) or "no version yet"
            what = "needed to run" if serious else "a tool's"
            print(f"{each['name']} {each['version']} ({what}): {known['id']}, fixed in {fixed}")
    print(
        f"== audited {len(found) - unknown} of {len(pinned)} packages, {len(runtime)} needed to "
        f"run: {failed} vulnerabilities of those"
    )
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
