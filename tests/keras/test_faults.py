"""A disk that fails under a real `fit`: the weights are those of the unrecorded training."""

import errno
import os

import numpy as np
import pytest

import lossledger as ll
from lossledger import catalog, store
from lossledger.recorder import collector

from .conftest import BACKEND, X, Y, assert_same, network, once, raw_losses

pytestmark = pytest.mark.one_backend

EPOCHS = 3


def made():
    model = network()
    model.compile("sgd", "mse")
    return model


def fitted():
    model = made()
    return model, model.fit(X, Y, batch_size=8, epochs=EPOCHS, shuffle=False, verbose=0).history


class Failing:
    """Calls of the system that change something; from the nth on some of them fail."""

    def __init__(self, monkeypatch, first, count, error):
        self.calls, self.first, self.count, self.error = 0, first, count, error
        for name in ("write", "fsync", "replace", "mkdir"):
            monkeypatch.setattr(os, name, self.failing(getattr(os, name)))

    def failing(self, original):
        def call(*arguments, **options):
            self.calls += 1
            if self.first <= self.calls < self.first + self.count:
                raise OSError(self.error, os.strerror(self.error))
            return original(*arguments, **options)

        return call


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_fails_changes_no_weight(tmp_path, monkeypatch, error):
    plain = once(fitted)
    truth = raw_losses(made, 8, EPOCHS)
    whole = 0
    for first in (1, 3, 4, 6, 9):
        for count in (1, 10**6):
            directory = tmp_path / f"{first}-{count}"
            with monkeypatch.context() as patched:
                failing = Failing(patched, first, count, error)
                with ll.record(directory) as recording:
                    recorded = once(fitted)
            assert_same(plain, recorded)
            assert failing.calls >= first
            if recording.path is None:
                assert recording.trouble.told
                continue
            (info,) = catalog.runs_in(directory)
            assert info.problem is None
            losses = [block["loss"] for block in store.scan(info.path, ["loss"])]
            found = np.concatenate([np.empty(0, "f4"), *losses])
            np.testing.assert_allclose(found, truth[: len(found)], rtol=1e-6)
            assert len(found) == len(truth) or recording.trouble.told
            whole += len(found) == len(truth)
    assert whole  # a fault that passes costs nothing once the fit has begun


@pytest.mark.skipif(BACKEND != "jax", reason="rows of other backends are no arrays of their own")
def test_a_step_that_failed_on_the_device_costs_no_other_its_entry(tmp_path, monkeypatch):
    """As after the death of a process that JAX computed with: what it shared has no value."""
    monkeypatch.setattr(collector, "FLUSH_SECONDS", 3600)
    model = made()
    with ll.record(tmp_path) as run:
        losses = [float(model.train_on_batch(X[:8], Y[:8])) for _ in range(5)]
        (call,) = run.models.open
        call.buffer.rows[-1].delete()
    assert "1 of 5 steps" in run.trouble.told["entries-lost"]
    np.testing.assert_array_equal(ll.open(run.path).losses(), np.array(losses[:4], "f4"))
