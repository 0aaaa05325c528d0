"""Replicas' and workers' shares of a step are read as one entry: their fold, by its own laws."""

import itertools
import os

import numpy as np
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

import lossledger as ll
from lossledger import shares
from lossledger.cli import main
from lossledger.folder import append_line

from .made import Made
from .shared import Shared


def split(rng, rows, parts):
    """Rows of a step dealt out to shares; any may be empty, one isn't."""
    cuts = np.sort(rng.integers(0, rows + 1, parts - 1))
    return np.diff([0, *cuts.tolist(), rows])


@settings(max_examples=30)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 4),
    replicas=st.integers(1, 3),
    steps=st.integers(1, 40),
    block=st.integers(1, 17),
)
def test_split_entries_merge_to_the_whole(tmp_path_factory, seed, count, replicas, steps, block):
    """Whatever the sizes of shares and of the blocks in which they were written."""
    rng = np.random.default_rng(seed)
    run = Shared(tmp_path_factory.mktemp("shared"), count)
    sizes = [split(rng, int(rng.integers(1, 60)), count * replicas) for _ in range(steps)]
    losses = [[rng.random(n).astype("f4").astype("f8") * 10 for n in each] for each in sizes]
    for rank in range(count):
        mine = range(rank * replicas, (rank + 1) * replicas)
        table = [
            (step, place % replicas, rows[place], np.mean(loss[place]) if rows[place] else 0.0)
            for step, (rows, loss) in enumerate(zip(sizes, losses, strict=True))
            for place in mine
        ]
        step, replica, rows, loss = (np.array(each) for each in zip(*table, strict=True))
        for at in range(0, len(step), block):
            part = slice(at, at + block)
            run.write(
                rank, step=step[part], replica=replica[part], loss=loss[part],
                weight=rows[part].astype("f8"), rows=rows[part],
            )  # fmt: skip
        run.close(rank)
    opened = ll.open(run.path)
    entries = opened.entries()
    assert entries["step"].to_pylist() == list(range(steps))
    assert entries["rows"].to_pylist() == [int(each.sum()) for each in sizes]
    # Shares are float32, each rounded once; the fold itself is float64.
    expected = [np.concatenate(each).mean() for each in losses]
    np.testing.assert_allclose(entries["loss"].to_numpy(), expected, rtol=1e-6)
    stated = [np.average(
        [np.float32(np.mean(part)) if len(part) else 0.0 for part in each],
        weights=[len(part) for part in each],
    ) for each in losses]  # fmt: skip
    np.testing.assert_allclose(entries["loss"].to_numpy(), stated, rtol=1e-14)
    np.testing.assert_allclose(
        opened.statistic("epoch_mean"),
        [np.average(stated, weights=[each.sum() for each in sizes])],
        rtol=1e-13,
    )
    raw = opened.entries(["loss"], replicas=True)
    assert len(raw) == steps * count * replicas
    assert opened.missing == []
    assert opened.complete


@settings(max_examples=30)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 3),
    calls=st.integers(1, 12),
    steps=st.integers(1, 60),
    replicas=st.integers(1, 2),
)
def test_many_calls_whose_steps_alternate(tmp_path_factory, seed, count, calls, steps, replicas):
    """Of one call after the other, in blocks of any size; of some steps a worker has no row."""
    rng = np.random.default_rng(seed)
    run = Shared(tmp_path_factory.mktemp("shared"), count, segment_rows=20)
    call_of = rng.integers(0, calls, steps) if calls % 2 else np.sort(rng.integers(0, calls, steps))
    there = rng.random((count, steps)) < 0.8
    lacks = rng.integers(0, calls)  # this call is the first worker's alone
    there[1:] &= call_of != lacks
    there[0] |= ~there.any(0)
    losses = rng.integers(0, 100, (count, steps, replicas)).astype("f8")
    rows = rng.integers(1, 9, (count, steps, replicas))
    for rank in range(count):
        mine = np.flatnonzero(there[rank])
        cuts = np.flatnonzero(rng.random(len(mine)) < 0.3)
        for part in np.split(mine, cuts):
            run.write(
                rank, step=np.repeat(part, replicas), call=np.repeat(call_of[part], replicas),
                replica=np.tile(np.arange(replicas), len(part)), loss=losses[rank, part].ravel(),
                weight=rows[rank, part].ravel().astype("f8"), rows=rows[rank, part].ravel(),
            )  # fmt: skip
        for call in range(1, calls):
            append_line(run.folders[rank] / "calls.jsonl", {"call": call, "driver": "fit"})
        run.close(rank)
    opened = ll.open(run.path)
    for call in range(calls):
        at = np.flatnonzero(call_of == call)
        stated = [np.average(losses[there[:, s], s], weights=rows[there[:, s], s]) for s in at]
        np.testing.assert_allclose(opened.losses(call=call), stated, rtol=1e-14)
    lost = {(each.worker, each.call): (each.steps, each.last) for each in opened.missing}
    for rank, call in itertools.product(range(count), np.unique(call_of).tolist()):
        own = np.flatnonzero(there[rank] & (call_of == call))
        lacking = int((call_of == call).sum()) - len(own)
        last = int(own[-1]) if len(own) else None
        assert lost.get((rank, call)) == ((lacking, last) if lacking else None)


def test_a_step_that_two_blocks_divide_is_each_workers_once(tmp_path):
    """Two replicas a worker; worker 0 has no step 2, worker 2 no step 1."""
    run = Shared(tmp_path, 3, segment_rows=3)
    written = ([[0, 0, 1], [1, 3, 3]], [[0, 0, 1, 1, 2, 2, 3, 3]], [[0, 0, 2, 2, 3, 3]])
    for rank, blocks in enumerate(written):
        for steps in blocks:
            n = len(steps)
            run.write(
                rank, step=steps, replica=np.arange(n) % 2, loss=np.array(steps) + rank,
                weight=np.ones(n), rows=np.ones(n, "i4"),
            )  # fmt: skip
        run.close(rank)
    opened = ll.open(run.path)
    np.testing.assert_allclose(opened.losses(), [1, 1.5, 3.5, 4])
    lacking = [(each.worker, each.steps, each.last) for each in opened.missing]
    assert lacking == [(0, 1, 3), (2, 1, 3)]
    assert [(each.rows, each.missing) for each in opened.epochs()] == [(20, 2)]


def test_a_step_that_every_worker_saw_whole_counts_once(tmp_path):
    run = Shared(tmp_path, 2)
    for rank, last in ((0, 3), (1, 5)):
        run.write(
            rank, step=np.arange(last), loss=np.arange(last) + 1.0, replica=np.full(last, -1),
            weight=np.full(last, 8.0), rows=np.full(last, 8),
        )  # fmt: skip
        run.close(rank)
    opened = ll.open(run.path)
    assert opened.losses().tolist() == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert opened.epochs()[0].rows == 40
    assert opened.missing == []


def test_calls_of_two_models_in_turn(tmp_path):
    """The rows of two models lie in the order of flushing, not of steps."""
    run = Shared(tmp_path, 2)
    for rank in (0, 1):
        for call, steps in ((0, [0, 2]), (1, [1, 3]), (0, [4, 6]), (1, [5, 7])):
            run.write(
                rank, step=steps, call=np.full(2, call), model=np.full(2, call),
                loss=np.array(steps) + rank, weight=[1.0, 1.0], rows=[1, 1],
            )  # fmt: skip
        run.close(rank)
    opened = ll.open(run.path)
    assert opened.losses(model=0).tolist() == [0.5, 2.5, 4.5, 6.5]
    assert opened.losses(model=1).tolist() == [1.5, 3.5, 5.5, 7.5]


def test_fingerprints_of_shares_add_up():
    """Lane by lane, modulo 2^32; not known where that of a share with rows isn't."""
    high, low = 2**32 - 1, 5
    rows = {
        "call": np.zeros(6, "i4"),
        "step": np.array([0, 0, 1, 1, 2, 2]),
        "worker": np.array([0, 1] * 3),
        "replica": np.zeros(6, "i4"),
        "weight": np.ones(6),
        "rows": np.array([1, 1, 1, 0, 1, 1]),
        "batch_id": np.array(
            [high << 32 | low, 2 << 32 | (2**32 - 1), 7, 0, 7, 0], dtype=np.uint64
        ),
    }
    assert shares.fold(rows)["batch_id"].tolist() == [1 << 32 | 4, 7, 0]


def test_what_is_not_known_stays_so():
    rows = {
        "call": np.zeros(4, "i4"),
        "step": np.array([0, 0, 1, 1]),
        "worker": np.array([0, 1, 0, 1]),
        "replica": np.zeros(4, "i4"),
        "weight": np.array([3.0, 0.0, 1.0, 1.0]),
        "rows": np.array([3, 0, 1, 1]),
        "loss": np.array([2.0, np.nan, 1.0, np.inf]),
        "penalty": np.array([0.5, np.nan, 0.25, np.nan]),
        "elements": np.array([np.nan, np.nan, 2.0, 3.0]),
    }
    found = shares.fold(rows)
    np.testing.assert_array_equal(found["loss"], [2.0, np.inf])
    np.testing.assert_array_equal(found["penalty"], [0.5, np.nan])
    np.testing.assert_array_equal(found["elements"], [np.nan, 5.0])


def test_a_sum_is_not_known_without_one_of_its_shares(tmp_path):
    """Worker 1 weighs no samples; of its last step it has no rows."""
    run = Shared(tmp_path, 2)
    usual = {"step": [0, 1], "loss": [1.0, 1.0]}
    run.write(0, **usual, weight=[2.5, 2.5], rows=[4, 4], sample_weight=[2.5, 2.5])
    run.write(1, **usual, weight=[4.0, 0.0], rows=[4, 0])
    for rank in (0, 1):
        run.close(rank)
    entries = ll.open(run.path).entries()
    assert entries["sample_weight"].to_pylist() == [None, 2.5]
    assert entries["weight"].to_pylist() == [6.5, 2.5]


def test_replicas_of_one_process_lie_in_one_folder(tmp_path, capsys):
    made = Made(tmp_path, format=2)
    made.writer.append(
        {
            "step": [0, 0], "call": [0, 0], "model": [0, 0], "epoch": [0, 0], "replica": [0, 1],
            "loss": [1.0, 4.0], "weight": [2.0, 1.0], "rows": [2, 1],
        }
    )  # fmt: skip
    made.step = 1
    run = made.close()
    assert run.losses().tolist() == [2.0]
    assert not os.path.exists(run.path / "worker-0")
    assert run.entries(["step"], replicas=True)["replica"].to_pylist() == [0, 1]
    assert main(["show", str(run.path), "--epoch", "0"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "running_mean replica 0 replica 1 0 2.00000 2.00000 1.00000 (2) 4.00000 (1)" in text


def exported(run, folder):
    assert main(["export", str(run), "--to", "parquet", "-o", str(folder)]) == 0
    (file,) = folder.rglob("steps-*.parquet")
    return pq.read_table(file)


def test_exports_have_a_row_a_step(tmp_path):
    """Of replicas, whatever the blocks in which they were written, and of workers."""
    made = Made(tmp_path, format=2, segment_rows=7)
    losses = np.arange(30, dtype="f8").reshape(10, 3)
    for at in (0, 4, 5):
        steps = slice(at, {0: 4, 4: 5, 5: 10}[at])
        n = losses[steps].size
        made.writer.append(
            {
                "step": np.repeat(np.arange(10)[steps], 3), "replica": np.tile(range(3), n // 3),
                "call": np.zeros(n), "model": np.zeros(n), "epoch": np.zeros(n),
                "loss": losses[steps].ravel(), "weight": np.tile([1.0, 1.0, 2.0], n // 3),
                "rows": np.tile([1, 1, 2], n // 3),
            }
        )  # fmt: skip
        made.writer.flush()
    made.step = 10
    replicas = made.close()
    expected = np.average(losses, axis=1, weights=[1, 1, 2])
    np.testing.assert_allclose(replicas.losses(), expected)
    table = exported(replicas.path, tmp_path / "a")
    np.testing.assert_allclose(table["loss/raw"].to_numpy(), expected)
    assert table["rows"].to_pylist() == [4] * 10

    run = Shared(tmp_path, 2)
    for rank in (0, 1):
        run.write(
            rank, step=np.arange(5), loss=np.full(5, 1.0 + 2 * rank), weight=np.full(5, 2.0),
            rows=np.full(5, 2),
        )  # fmt: skip
        run.close(rank)
    table = exported(run.path, tmp_path / "b")
    np.testing.assert_allclose(table["loss/raw"].to_numpy(), [2.0] * 5)
