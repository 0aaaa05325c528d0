"""What of a command line is kept, and what of a text reaches a terminal."""

import pytest

from lossledger.errors import printable
from lossledger.recorder.redacted import HIDDEN, redacted
from lossledger.render.base import Options
from lossledger.render.terminal import Column, Page


@pytest.mark.parametrize(
    ("command", "kept"),
    [
        (["t.py", "--api-key", "abc"], ["t.py", "--api-key", HIDDEN]),
        (["--password=abc", "--lr=0.1"], [f"--password={HIDDEN}", "--lr=0.1"]),
        (["WANDB_API_KEY=abc"], [f"WANDB_API_KEY={HIDDEN}"]),
        (["--hf.token", "x", "y"], ["--hf.token", HIDDEN, "y"]),
        (["postgres://me:pw@host/db"], [f"postgres://me:{HIDDEN}@host/db"]),
        (["s3://b/c?region=x&secret_key=y&a=z"], [f"s3://b/c?region=x&secret_key={HIDDEN}&a=z"]),
        (["hf_" + "a" * 34], [HIDDEN]),
        (["--tokenizer", "bert", "--key", "left"], ["--tokenizer", "bert", "--key", "left"]),
        (["--use-token", "--epochs", "3"], ["--use-token", "--epochs", "3"]),
    ],
)
def test_what_looks_like_a_secret_is_left_out(command, kept):
    assert redacted(command) == kept


def test_nothing_steers_the_terminal():
    evil = "a\x1b[31m\x07\u202eb\r"
    assert printable(evil) == "a\\x1b[31m\\x07\\u202eb\\x0d".replace("\\x0d", "\\r")
    page = Page(Options(width=80))
    page.title(evil)
    page.fact(evil, evil)
    page.line("run", evil)
    page.table([Column("name", [evil + "\nx"])])
    text = page.text()
    assert not set(text) & set("\x1b\x07\r\u202e")
