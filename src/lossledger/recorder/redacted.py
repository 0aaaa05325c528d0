"""A command line without what looks like a secret.

A command line is kept so that a run can be repeated, and is what people pass passwords and keys on.
A value is left out where its option's name says that it is one, where a URL has a password, and
where it has the form of a well-known service's key. Nothing can find every secret: see
docs/security.md.
"""

import re
from collections.abc import Sequence

HIDDEN = "[redacted]"

_NAMES = (
    r"pass(?:word|wd|phrase)?|secret|token|credentials?|auth(?:orization)?|bearer|cookie"
    r"|(?:api|access|private|secret|account|encryption|wandb|auth)[-_.]?keys?|pwd"
)
_OPTION = re.compile(rf"-{{0,2}}(?:[\w.-]*[-_.])?(?:{_NAMES})", re.IGNORECASE)
_URL = re.compile(r"([a-z][a-z0-9+.-]*://[^/\s:@]*):[^/\s@]+@", re.IGNORECASE)
_QUERY = re.compile(rf"([?&](?:[\w.-]*[-_.])?(?:{_NAMES})=)[^&\s]+", re.IGNORECASE)
_KEYS = re.compile(
    r"(?:sk|rk|pk)[-_](?:live|test|proj|ant)?[-_]?[\w-]{16,}|hf_\w{16,}|gh[opsur]_\w{20,}"
    r"|github_pat_\w{20,}|glpat-[\w-]{16,}|xox[abprs]-[\w-]{10,}|(?:AKIA|ASIA)[A-Z0-9]{16}"
    r"|AIza[\w-]{30,}|eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]*|-----BEGIN[^-]*PRIVATE KEY-----.*",
    re.DOTALL,
)


def redacted(command: Sequence[str]) -> list[str]:
    """The command line, with `[redacted]` in the place of what looks like a secret.

    Example:

    ```python
    redacted(["train.py", "--api-key", "abc", "--lr=0.1"])
    # ["train.py", "--api-key", "[redacted]", "--lr=0.1"]
    ```
    """
    kept: list[str] = []
    follows = False
    for part in command:
        name, equals, _ = part.partition("=")
        secret = bool(_OPTION.fullmatch(name))
        if follows and not part.startswith("--"):
            kept.append(HIDDEN)
        elif secret and equals:
            kept.append(f"{name}={HIDDEN}")
        else:
            address = _QUERY.sub(rf"\1{HIDDEN}", _URL.sub(rf"\1:{HIDDEN}@", part))
            kept.append(_KEYS.sub(HIDDEN, address))
        follows = secret and not equals and part.startswith("-")
    return kept
