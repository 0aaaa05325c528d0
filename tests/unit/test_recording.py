"""A recording of a loop without Keras: no step is lost, doubled, or written by another process."""

import multiprocessing
import time

import numpy as np
import pytest

import lossledger as ll
from lossledger.recorder import call


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
