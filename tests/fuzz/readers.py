"""Fuzzes one reader, guided by coverage: `readers.py TARGET [options of libFuzzer]`.

Whatever a file of a run holds, reading it ends in an error of ours or in numbers: never in another
exception, in more than 2 GB, in 20 s, or in a program that is started or an object that is
unpickled. `make fuzz` runs all targets; see `tests/fuzz/__main__.py`.
"""

import contextlib
import io
import os
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(
    include=["lossledger", "zipfile", "numpy.lib"], enable_loader_override=False
):
    import lossledger as ll
    from lossledger import LossLedgerError, catalog, explain, store
    from lossledger.cli import main
    from lossledger.reconciliation import comparable
    from lossledger.render import terminal  # noqa: F401 - instrumented
    from lossledger.segments import sealed, stream  # noqa: F401 - instrumented
    from lossledger.segments.spans import Spans

sys.path.insert(0, str(Path(__file__).parent))
import folders
import seeds

FORBIDDEN = ("pickle.find_class", "os.system", "os.exec", "os.posix_spawn", "subprocess.Popen")


def refuse(event, arguments):
    """An audit hook: what no reader of a run may do ends the process, and is a finding."""
    if event in FORBIDDEN:
        os.write(2, f"\nA reader did {event}{arguments}\n".encode())
        os.abort()


def quietly(*command):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        assert main([str(part) for part in command]) in (0, 1, 2)


def read_run(path):
    run = ll.open(path)
    for call in run.calls:
        _ = call.steps, call.epochs_from, call.info
    _ = run.reported(), run.missing
    for call in run.calls:
        run.statistic("epoch_mean", call=call.number)
    run.entries(replicas=True)
    quietly("show", path)
    quietly("show", path, "--json")
    quietly("reconcile", f"{path}@0:epoch_mean", f"{path}@0:batch_mean")


def read_shared(path):
    run = path.parent / "shared"
    own = run / "worker-1" / "run.json"
    kept = own.read_bytes()
    try:
        read_run(run)
    finally:
        own.write_bytes((run / "run.json").read_bytes())
        with contextlib.suppress(LossLedgerError):
            read_run(run)
        own.write_bytes(kept)


def read_entries(path):
    read = sum(len(block["step"]) for block in store.scan(path))
    assert read == store.table(path).num_rows
    store.table(path, columns=["loss"], spans=Spans({0: (1, 5)}))
    store.outputs(path)
    for _ in store.Tail(path, ["loss"]).read():
        pass


def read_resumed(path):
    run = path.parent / "resumed"
    read_run(run)
    table = ll.open(run).entries()
    assert table.num_rows == len(table["superseded"]) == 29
    quietly("reconcile", f"{run}@again,call=1", f"{run}@call=1")


def read_list(path):
    catalog.newest(path.parent, 0)
    read_run(path)


def read_weights(path):
    run = ll.open(path)
    comparable._shapes(run, run.calls[0])


def read_other(path):
    with contextlib.suppress(LossLedgerError):
        for series in explain.read(path).series:
            _ = series.name, series.statistic, series.values
        quietly("explain", path)


def targets(path):
    """By name: the file to change, its first contents, what mends a checksum, what reads it."""
    entries = path / "entries"
    sealed_file = entries / "000000.parquet"
    weights = path / "weights" / "000000.npz"
    calls, run = path / "calls.jsonl", path / "run.json"
    other = path.parent / "other"
    shared = folders.shared(path) / "run.json"
    resumed = folders.resumed(path) / "calls.jsonl"
    shares = folders.replicas(path)
    open_segment = shares / "worker-1" / "entries" / "000000.arrows"
    return {
        "resumed": (resumed, [resumed.read_bytes()], seeds.json_again, read_resumed),
        "replicas": (
            open_segment,
            [open_segment.read_bytes()],
            seeds.stream_again,
            lambda _: read_run(shares),
        ),
        "shared": (shared, [shared.read_bytes()], seeds.whole_json_again, read_shared),
        "run": (run, [run.read_bytes()], seeds.whole_json_again, read_list),
        "calls": (calls, [calls.read_bytes()], seeds.json_again, read_run),
        "stream": (
            entries / "000000.arrows",
            [seeds.stream(path.parent / "open")],
            seeds.stream_again,
            read_entries,
        ),
        "sealed": (sealed_file, seeds.sealed(sealed_file), seeds.sealed_again, read_entries),
        "weights": (weights, [weights.read_bytes()], bytes, read_weights),
        "explain": (other, seeds.explained(), seeds.events_again, lambda _: read_other(other)),
    }


def fuzz(name, options):
    directory = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    path = folders.recorded(directory)
    file, first, mended, read = targets(path)[name]
    if name == "stream":
        (path / "entries" / "000000.parquet").unlink()
    corpus = Path("build", "fuzz", name)
    corpus.mkdir(parents=True, exist_ok=True)
    for place, content in enumerate(first):
        (corpus / f"seed-{place}").write_bytes(content)

    def one(data):
        file.write_bytes(mended(data))
        with contextlib.suppress(LossLedgerError):
            read(path)

    sys.addaudithook(refuse)
    limits = ["-rss_limit_mb=2048", "-timeout=20", f"-artifact_prefix=build/fuzz/{name}-"]
    limits += ["-max_len=65536", "-print_final_stats=1"]
    if name in ("run", "calls", "resumed"):
        words = Path("build", "fuzz", "words")
        words.write_text("".join(f'"{word}"\n' for word in seeds.WORDS))
        limits.append(f"-dict={words}")
    atheris.Setup([sys.argv[0], *limits, *options, str(corpus)], one)
    atheris.Fuzz()


if __name__ == "__main__":
    fuzz(sys.argv[1], sys.argv[2:])
