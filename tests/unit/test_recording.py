"""A recording of a loop without Keras: no step is lost, doubled, or written by another process."""

import contextlib
import errno
import multiprocessing
import threading
import time

import numpy as np
import pytest

import lossledger as ll
from lossledger import store
from lossledger.recorder import call, output
from lossledger.recorder.trouble import Trouble


class Deleted:
    """A device scalar that is gone when it is fetched, as JAX's donated arguments are."""

    shape = ()

    def __array__(self, *_args, **_kwargs):
        raise RuntimeError("Array has been deleted")


def test_a_step_that_is_added_while_others_are_collected(tmp_path, monkeypatch):
    with ll.record(tmp_path) as run:

        def clock():
            run.collector.collect()  # as the recorder's thread may at any moment
            return time.perf_counter_ns()

        monkeypatch.setattr(call, "perf_counter_ns", clock)
        for step in range(5):
            run.step(float(step))
    np.testing.assert_array_equal(ll.open(run.path).losses(), np.arange(5.0))


def test_a_loss_that_is_gone_takes_no_other_step_with_it(tmp_path):
    run = ll.record(tmp_path)
    run.start()
    for loss in (4.0, Deleted(), 2.0, Deleted(), 1.0):
        run.step(loss, rows=3)
    with pytest.warns(ll.LossLedgerWarning, match="entries-lost.*step 1 of call 0") as warned:
        run.stop()
    assert len(warned) == 1
    entries = ll.open(run.path).entries(["step", "loss"]).to_pydict()
    assert entries == {"step": [0, 2, 4], "loss": [4.0, 2.0, 1.0]}


def test_a_step_that_is_refused_begins_no_call(tmp_path):
    with ll.record(tmp_path) as run:
        with pytest.raises(ll.LossLedgerError, match="Received: batch=3"):
            run.step(1.0, batch=3)
        run.step(2.0, rows=4)
    (only,) = ll.open(run.path).calls
    assert (only.steps, only.weight_kind) == (1, "rows")


@pytest.mark.parametrize(
    "values",
    [{"rows": "four"}, {"rows": 2.5}, {"rows": -1}, {"rows": 2**31}, {"weight": None}],
    ids=str,
)
def test_a_value_that_no_column_can_hold_is_refused_at_once(tmp_path, values):
    with ll.record(tmp_path) as run:
        run.step(1.0, rows=np.int64(4))
        with pytest.raises(ll.LossLedgerError, match="Received: ") as refused:
            run.step(2.0, **values)
        assert refused.value.slug == "step-not-scalar"
        with pytest.raises(ll.LossLedgerError, match="must be a number"):
            run.step(None)
        with pytest.raises(ll.LossLedgerError, match="epoch='one'"):
            run.epoch("one")
        run.step(3.0, rows=4)
    np.testing.assert_array_equal(ll.open(run.path).losses(), [1.0, 3.0])


def test_threads_that_begin_at_once_share_a_run(tmp_path, monkeypatch):
    # What a run's beginning takes longest for, where processes train together.
    monkeypatch.setattr(output, "find_world", lambda: time.sleep(0.1))
    with ll.record(tmp_path / "runs") as run:
        names = ("a", "a", "b")
        threads = [
            threading.Thread(target=run.step, args=(float(place),), kwargs={"model": name})
            for place, name in enumerate(names)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    (path,) = (each for each in (tmp_path / "runs").iterdir() if not each.is_symlink())
    found = ll.open(path)
    assert sorted(call.steps for call in found.calls) == [1, 2]
    losses = found.entries(["loss"]).column("loss").to_pylist()
    assert sorted(losses) == [0.0, 1.0, 2.0]


def _train(run):
    run.epoch()
    run.step(9.0)
    run.step(9.0, model="other")
    run.collector.collect()
    run.stop()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*fork.*:RuntimeWarning")
def test_a_forked_child_adds_nothing(tmp_path):
    with ll.record(tmp_path) as run:
        run.step(1.0)
        child = multiprocessing.get_context("fork").Process(target=_train, args=(run,))
        child.start()
        child.join(60)
        assert child.exitcode == 0
        run.step(2.0)
    found = ll.open(run.path)
    assert found.complete
    assert len(found.calls) == 1
    np.testing.assert_array_equal(found.losses(), [1.0, 2.0])


@pytest.mark.parametrize("model", [3, "model", Deleted, Deleted()], ids=str)
def test_what_is_no_model_is_refused(tmp_path, model):
    with pytest.raises(ll.LossLedgerError, match="`model` must be a model") as refused:
        ll.record(tmp_path, model=model)
    assert refused.value.slug == "not-a-model"


# --- Replicas, whose rows of a step are one.


def of_replicas(steps, replica):
    rows = len(steps)
    counted = {name: np.zeros(rows, "i4") for name in ("call", "model", "epoch")}
    loss = np.asarray(steps) + np.asarray(replica) / 2
    of_each = {"loss": loss, "weight": np.ones(rows), "rows": np.ones(rows, "i4")}
    return {"step": np.array(steps), "replica": np.array(replica), "time": np.zeros(rows, int)} | (
        counted | of_each
    )


def in_steps(steps, replicas):
    """The rows of some steps: several replicas', or one a step."""
    rows = of_replicas(np.repeat(steps, replicas), np.tile(range(replicas), len(steps)))
    return rows if replicas > 1 else {n: v for n, v in rows.items() if n != "replica"}


def writes(tmp_path):
    found = output.Output(tmp_path, "run", None, [], Trouble())
    found.begin()
    return found


def test_a_step_whose_replicas_two_blocks_divide_is_one(tmp_path):
    out = writes(tmp_path)
    for block in (of_replicas([0, 0, 1], [0, 1, 0]), of_replicas([1, 2, 2], [1, 0, 1])):
        out.waiting.append(block)
        out.append()
    out.close()
    run = ll.open(out.path)
    assert (run.info["entries"], run.calls[0].steps) == (3, 3)
    np.testing.assert_array_equal(run.losses(), [0.25, 1.25, 2.25])


def fills(patch):
    """The disk takes no new file any more, neither `run.json` nor a segment."""

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    patch.setattr(output, "write_json", full)
    patch.setattr(store, "Stream", full)


def test_rows_of_replicas_wait_for_a_disk_that_is_full(tmp_path, monkeypatch):
    """The first of them change what `run.json` says, which must be there before they are."""
    out = writes(tmp_path)
    out.waiting.append(of_replicas([0, 0], [0, 1]))
    with monkeypatch.context() as patch:
        fills(patch)
        for _ in range(2):
            with pytest.raises(OSError, match="No space"):
                out.append()
    out.waiting.append(of_replicas([1, 1], [0, 1]))
    out.append()
    np.testing.assert_array_equal(ll.open(out.path).losses(), [0.25, 1.25])
    out.close()
    run = ll.open(out.path)
    assert run.complete
    np.testing.assert_array_equal(run.losses(), [0.25, 1.25])


@pytest.mark.parametrize("replicas", [1, 2])
def test_what_waits_is_written_at_the_end_if_the_disk_has_room_by_then(
    tmp_path, monkeypatch, replicas
):
    out = writes(tmp_path)
    out.waiting.append(in_steps(range(3), replicas))
    with monkeypatch.context() as patch:
        fills(patch)
        with pytest.raises(OSError, match="No space"):
            out.append()
    out.close()
    run = ll.open(out.path)
    assert (run.complete, run.info["entries"]) == (True, 3)
    np.testing.assert_array_equal(run.losses(), np.arange(3) + (replicas - 1) / 4)


@pytest.mark.parametrize("replicas", [1, 2])
def test_of_too_much_that_waits_the_beginning_is_kept(tmp_path, monkeypatch, replicas):
    """It is written as soon as there is room, and said how much it is."""
    monkeypatch.setattr(store, "PENDING_ROWS", 150_000)
    out = writes(tmp_path)
    of_block = 50_000 // replicas
    with monkeypatch.context() as patch:
        fills(patch)
        for begin in range(0, 5 * of_block, of_block):
            out.waiting.append(in_steps(range(begin, begin + of_block), replicas))
            with contextlib.suppress(OSError):
                out.append()
    out.append()
    expected = np.arange(3 * of_block) + (replicas - 1) / 4
    np.testing.assert_array_equal(ll.open(out.path).losses(), expected)
    out.close()
    run = ll.open(out.path)
    assert (run.complete, run.info["entries"]) == (True, 3 * of_block)
    np.testing.assert_array_equal(run.losses(), expected)


def test_a_recording_says_where_it_is(tmp_path):
    run = ll.record(tmp_path)
    assert repr(run) == "<Recording in no folder yet>"
    with run:
        run.step(1.0)
    assert repr(run) == f"<Recording in {run.path}>"
