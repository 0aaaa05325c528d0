"""A run that is copied while it grows, as to another machine, and resumed there."""

import json
import shutil

import numpy as np
import pytest

import lossledger as ll


def test_a_copy_of_a_growing_run_is_resumed_elsewhere(tmp_path):
    run = ll.record(tmp_path / "a", name="moved")
    run.start()
    for step in range(10):
        run.step(float(step), rows=2)
    run.collector.collect()
    with pytest.raises(ll.LossLedgerError) as refused:
        ll.record(tmp_path / "a", resume=run.path)
    assert refused.value.slug == "folder-in-use"
    copy = tmp_path / "b" / run.path.name  # its lock is copied, too, and held by nobody
    shutil.copytree(run.path, copy)
    info = json.loads((copy / "run.json").read_bytes()) | {"pid": 1}
    del info["crc"]
    (copy / "run.json").write_text(json.dumps(info))
    with (copy / "entries" / "000000.arrows").open("ab") as file:
        file.write(b"\xff\xff\xff\xff\x10")  # the copy was made in the middle of a flush
    for attempt, name in enumerate((copy, "moved"), start=1):
        with ll.record(tmp_path / "b", resume=name) as again:
            for step in range(5):
                again.step(100.0 * attempt + step, rows=2)
    run.stop()
    np.testing.assert_array_equal(ll.open(run.path).losses(), np.arange(10.0))
    found = ll.open(copy)
    expected = [*range(10), *range(100, 105), *range(200, 205)]
    np.testing.assert_array_equal(found.losses(), expected)
    assert found.entries(["step"])["step"].to_pylist() == list(range(20))
    assert [each["complete"] for each in found.info["resumed"]] == [False, True]
