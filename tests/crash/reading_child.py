"""Reads runs with 3 GiB of address space; a line of JSON for each command: what came of it."""

import contextlib
import faulthandler
import io
import json
import resource
import sys

import lossledger as ll
from lossledger.cli import main


def outcome(command):
    told = io.StringIO()
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(told):
            status = main(command)
    except BaseException as error:
        return repr(error)
    return [status, told.getvalue().count("error ["), told.getvalue()[:300]]


def opened(path):
    try:
        run = ll.open(path)
        return [0, 0, str((len(run.calls), len(run.losses())))]
    except ll.LossLedgerError as error:
        return [1, 1, str(error)]
    except BaseException as error:
        return repr(error)


def read(path, other):
    aside = f"{path}.out"
    yield "open", opened(path)
    for command in (
        ["show", path],
        ["list", path.rpartition("/")[0]],
        ["report", path, "-o", f"{aside}.html"],
        ["export", path, "--to", "csv", "-o", aside],
        ["reconcile", f"{path}:epoch_mean", f"{other}:batch_mean"],
    ):
        yield command[0], outcome(command)


resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
faulthandler.dump_traceback_later(250, exit=True)
good, *paths = sys.argv[1:]
print(json.dumps([dict(read(path, good)) for path in paths]))
