"""A run that several workers share is read whatever one of them lacks, and says what that is."""

import json

import numpy as np
import pytest

import lossledger as ll
from lossledger import workers
from lossledger.cli import main
from lossledger.folder import append_line

from .shared import Shared


def test_a_worker_without_a_named_loss_hides_nothing(tmp_path):
    """What its share lacks is not known of the step; all else is."""
    run = Shared(tmp_path, 2)
    for rank in (0, 1):
        named = {} if rank else {"a_loss": np.arange(4.0)}
        run.write(
            rank, step=np.arange(4), loss=np.arange(4.0) + rank,
            weight=np.full(4, 2.0), rows=np.full(4, 2), **named,
        )  # fmt: skip
        run.close(rank)
    entries = ll.open(run.path).entries()
    assert entries["loss"].to_pylist() == [0.5, 1.5, 2.5, 3.5]
    assert entries["a_loss"].to_pylist() == [None] * 4
    shares = ll.open(run.path).entries(["step", "a_loss"], replicas=True).to_pylist()
    known = {(each["worker"], each["step"]): each["a_loss"] for each in shares}
    assert known == {(r, n): None if r else float(n) for r in (0, 1) for n in range(4)}
    assert main(["show", str(run.path)]) == 0


def test_a_worker_that_died_is_named_and_the_rest_is_read(tmp_path):
    run = Shared(tmp_path, 2)
    for rank, last in ((0, 10), (1, 6)):
        step = np.arange(last)
        run.write(
            rank, step=step, epoch=step // 5, loss=step + 10.0 * rank,
            weight=np.full(last, 4.0), rows=np.full(last, 4),
        )  # fmt: skip
    run.close(0)
    run.writers[1].flush()
    stream = run.folders[1] / "entries" / "000000.arrows"
    with stream.open("ab") as file:
        file.write(b"\xff\xff\xff\xff\x40\x00\x00\x00torn")
    opened = ll.open(run.path)
    assert not opened.complete
    np.testing.assert_array_equal(opened.losses(), [*(np.arange(6) + 5.0), *np.arange(6.0, 10.0)])
    (lost,) = opened.missing
    assert (lost.worker, lost.call, lost.steps, lost.last) == (1, 0, 4, 5)
    assert [(each.rows, each.missing) for each in opened.epochs()] == [(40, 0), (24, 4)]
    run.writers[1].close()


def test_a_worker_that_never_wrote(tmp_path):
    run = Shared(tmp_path, 3)
    for rank in (0, 2):
        run.write(rank, step=[0, 1], loss=[1.0, 3.0], weight=[2.0, 2.0], rows=[2, 2])
        run.close(rank)
    run.writers[1].close()
    opened = ll.open(run.path)
    assert [(each.worker, each.steps, each.last) for each in opened.missing] == [(1, 2, None)]
    assert opened.losses().tolist() == [1.0, 3.0]


def test_a_worker_that_died_before_its_first_step_hides_nothing_reported(tmp_path):
    """Its folder says no more than the run's; what another reports of its own rows is told so."""
    run = Shared(tmp_path, 3)
    (run.folders[0] / "calls.jsonl").unlink()
    run.writers[0].close()
    for rank, loss in ((1, 1.0), (2, 3.0)):
        run.write(rank, step=[0, 1], loss=[loss] * 2, weight=[2.0] * 2, rows=[2, 2])
        run.close(rank, versions={"keras": "3.15.1"})
    history = {"place": "history", "name": "loss", "epoch": 0, "value": 1.0}
    append_line(run.folders[1] / "calls.jsonl", {"call": 0, "reported": [history]})
    (found,) = ll.open(run.path).reported()
    assert (found.value, found.stated, found.agreement) == (1.0, 2.0, "differs")
    assert found.why.startswith("worker-1 reports of its own rows alone")
    assert main(["show", str(run.path)]) == 0


def test_readers_show_a_shared_run(tmp_path, capsys):
    run = Shared(tmp_path, 2)
    for rank, last in ((0, 4), (1, 2)):
        run.write(
            rank, step=np.arange(last), loss=np.full(last, 1.0 + rank), weight=np.full(last, 2.0),
            rows=np.full(last, 2),
        )  # fmt: skip
        warning = {"slug": "entries-lost", "message": "gone"}
        run.close(rank, versions={"keras": "3.15.1"}, warnings=[warning] if rank else [])
    assert main(["show", str(run.path)]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "worker 1's rows of 2 steps of call 0: the last that it has is 1" in text
    assert "[entries-lost] worker 1: gone" in text
    assert main(["show", str(run.path), "--epoch", "0"]) == 0
    rows = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "batch loss running_mean worker 0 worker 1" in rows
    assert "0 1.50000 1.50000 1.00000 (2) 2.00000 (2)" in rows
    assert "2 1.00000 1.40000 1.00000 (2)" in rows
    assert main(["show", str(run.path), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["run"]["missing"] == [{"worker": 1, "call": 0, "steps": 2, "last": 1}]
    assert shown["calls"][0]["epochs"][0]["rows"] == 12
    assert main(["list", str(tmp_path), "--json"]) == 0
    (listed,) = json.loads(capsys.readouterr().out)["runs"]
    assert (listed["steps"], listed["complete"]) == (4, True)
    assert ll.open(run.path / "worker-1").losses().tolist() == [2.0, 2.0]


def test_a_worker_has_one_folder(tmp_path):
    run = Shared(tmp_path, 2)
    with pytest.raises(FileExistsError):
        workers.join_folder(run.path, 1, run.about)
    for writer in run.writers:
        writer.close()
