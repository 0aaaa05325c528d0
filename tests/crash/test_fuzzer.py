"""The fuzzer's readers accept what it begins with: else it would try nothing behind an error."""

import contextlib
import sys
import types
from pathlib import Path

FUZZ = str(Path(__file__).parent.parent / "fuzz")


def test_each_target_reads_its_first_inputs(tmp_path, monkeypatch):
    instrument = {"instrument_imports": lambda **_: contextlib.nullcontext()}
    monkeypatch.setitem(sys.modules, "atheris", types.SimpleNamespace(**instrument))
    monkeypatch.syspath_prepend(FUZZ)
    import folders
    import readers

    path = folders.recorded(tmp_path)
    sealed = path / "entries" / "000000.parquet"
    for name, (file, first, mended, read) in readers.targets(path).items():
        content = sealed.read_bytes()
        if name == "stream":
            sealed.unlink()
        for data in first:
            file.write_bytes(mended(data))
            read(path)
        file.unlink()
        sealed.write_bytes(content)
        if file.name in ("run.json", "calls.jsonl"):
            file.write_bytes(first[0])
