"""`tf.distribute.MirroredStrategy` on two devices: nothing changes, and every share is kept."""

import json
from pathlib import Path

import numpy as np
import pytest

import lossledger

from .children import run_together
from .conftest import BACKEND, KERAS

pytestmark = pytest.mark.skipif(BACKEND != "tensorflow", reason="tf.distribute is TensorFlow's")

SCRIPT = Path(__file__).with_name("mirrored.py")
BATCHES = [slice(0, 32), slice(32, 64), slice(64, 69)]
SHARES = [
    [slice(b.start + s.start, b.start + s.stop) for s in shares]
    for b, shares in zip(
        BATCHES,
        [[slice(0, 16), slice(16, 32)], [slice(0, 16), slice(16, 32)], [slice(0, 3), slice(3, 5)]],
        strict=True,
    )
]


class Trained:
    """What a process left behind, and by numpy in float64 what it should have computed."""

    def __init__(self, folder):
        with np.load(folder / "left.npz") as arrays:
            self.arrays = dict(arrays)
        self.reported = json.loads((folder / "reported.json").read_text())
        self.x, self.y = (self.arrays[f"data/{k}"].astype("f8") for k in (0, 1))

    def state(self, name):
        found = sum(key.startswith(f"{name}/") for key in self.arrays)
        return [self.arrays[f"{name}/{place}"] for place in range(found)]

    def weights(self, name):
        return [self.arrays[f"{name}/{k}"].astype("f8") for k in range(4)]

    def loss(self, weights, rows):
        w, b, v, c = weights
        hidden = np.maximum(self.x[rows] @ w + b, 0)
        return np.mean((hidden @ v + c - self.y[rows]) ** 2) + 0.1 * np.sum(v**2)

    def gradient(self, weights, rows):
        w, b, v, c = weights
        hidden = np.maximum(self.x[rows] @ w + b, 0)
        out = 2 * (hidden @ v + c - self.y[rows]) / len(self.y[rows])
        back = (out @ v.T) * (hidden > 0)
        return [self.x[rows].T @ back, back.sum(0), hidden.T @ out + 0.2 * v, out.sum(0)]

    def train(self, shares, epochs=2):
        """The weights before each step of SGD on the plain mean of the shares' gradients."""
        weights, before = self.weights("begin"), []
        for _ in range(epochs):
            for parts in shares:
                before.append(weights)
                steps = [self.gradient(weights, rows) for rows in parts]
                weights = [
                    w - 0.1 * np.mean(g, axis=0) for w, *g in zip(weights, *steps, strict=True)
                ]
        return before


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mirrored")
    run = ["-m", "lossledger", "run", "-o", str(folder / "runs")]
    for name in ("plain", "recorded"):
        (folder / name).mkdir()
    run_together(
        [str(SCRIPT), str(folder / "plain")],
        [*run, str(SCRIPT), str(folder / "recorded")],
    )
    plain, recorded = (Trained(folder / name) for name in ("plain", "recorded"))
    return plain, recorded, lossledger.open(folder / "runs" / "latest")


def test_the_training_is_the_same_to_the_last_bit(trained):
    plain, recorded, run = trained
    assert plain.reported == recorded.reported
    for name, array in plain.arrays.items():
        np.testing.assert_array_equal(array, recorded.arrays[name], err_msg=name)
    assert run.complete
    assert run.info["warnings"] == []
    assert [call.steps for call in run.calls][:7] == [6, 6, 6, 6, 3, 6, 1]


def test_a_step_is_the_fold_of_its_replicas(trained):
    plain, _, run = trained
    shares = run.entries(["step", "loss", "weight", "rows"], call=2, replicas=True)
    assert shares["replica"].to_pylist() == [0, 1] * 6
    assert shares["rows"].to_pylist() == [16, 16, 16, 16, 3, 2] * 2
    before = plain.train(SHARES)
    expected = [
        plain.loss(weights, rows)
        for weights, parts in zip(before, SHARES * 2, strict=True)
        for rows in parts
    ]
    np.testing.assert_allclose(shares["loss"].to_numpy(), expected, rtol=1e-5)

    folded = run.entries(call=2)
    assert folded["rows"].to_pylist() == [32, 32, 5] * 2
    whole = [plain.loss(w, rows) for w, rows in zip(before, BATCHES * 2, strict=True)]
    np.testing.assert_allclose(folded["loss"].to_numpy(), whole, rtol=1e-5)
    penalty = [0.1 * np.sum(weights[2] ** 2) for weights in before]
    np.testing.assert_allclose(folded["penalty"].to_numpy(), penalty, rtol=1e-4)
    epochs = [np.average(whole[k : k + 3], weights=[32, 32, 5]) for k in (0, 3)]
    np.testing.assert_allclose(run.statistic("epoch_mean", call=2), epochs, rtol=1e-5)
    assert [each.rows for each in run.epochs(2)] == [69, 69]


def test_several_steps_an_execution_are_a_step_each(trained):
    plain, _, run = trained
    assert run.calls[5].info["configuration"]["steps_per_execution"] == 2
    names = ["epoch", "batch", "rows", "batch_id", "replica"]
    several, single = (run.entries(names, call=call, replicas=True) for call in (5, 2))
    assert several.to_pydict() == single.to_pydict()
    shares = run.entries(["loss"], call=5, replicas=True)["loss"].to_numpy()
    before = plain.train(SHARES)
    losses = [plain.loss(w, rows) for w, s in zip(before, SHARES * 2, strict=True) for rows in s]
    np.testing.assert_allclose(shares, losses, rtol=1e-5)
    assert run.entries(["rows"], call=6)["rows"].to_pylist() == [16]


def test_shares_add_up_to_the_batch(trained):
    _, _, run = trained
    ids = [run.entries(["batch_id"], call=call)["batch_id"].to_pylist() for call in (2, 3)]
    assert ids[0] == ids[1]
    # Each replica of a train_on_batch trains on all of the batch.
    assert run.entries(["rows"], call=4)["rows"].to_pylist() == [16] * 3


def causes(result):
    return {cause.cause: cause.amount for cause in result.causes}


def test_what_this_keras_reports_of_replicas(trained):
    plain, _, run = trained
    shown = [plain.reported[k]["loss"][0] for k in (0, 1)]
    result = lossledger.reconcile((run, "@0:reported"), (run, "@1:reported"), epoch=0)
    assert result.gap == shown[1] - shown[0]
    losses = [plain.loss(plain.weights("begin"), rows) for rows in BATCHES]
    mean = np.average(losses, weights=[32, 32, 5])
    if KERAS < (3, 10):  # the sums of both replicas hold what came before
        weights = np.array([32, 32, 5]) * [4, 2, 1]
        own = mean - np.average(losses, weights=weights)
        assert causes(result)["replica_scaling"] == pytest.approx(own, abs=1e-6)
    else:
        assert "replica_scaling" not in causes(result)
        assert shown[0] == pytest.approx(mean, rel=1e-6)
    assert abs(result.unexplained) < 1e-6


def test_gradients_of_unequal_shares(trained):
    plain, _, run = trained
    mirrored, single = (plain.train(shares)[3] for shares in (SHARES, [[b] for b in BATCHES]))
    own = plain.loss(single, BATCHES[0]) - plain.loss(mirrored, BATCHES[0])
    result = lossledger.reconcile((run, "@call=2,batch=0"), (run, "@call=3,batch=0"), epoch=1)
    assert result.gap == pytest.approx(own, abs=1e-6)
    assert causes(result)["replica_scaling"] == pytest.approx(own, abs=1e-6)
    assert abs(result.unexplained) < 1e-6
    assert "3 + 2 rows" in " ".join(cause.evidence for cause in result.causes)


LOOPS = {
    "whole/by_fit": ("whole/by_turns", "whole/in_scope"),
    "ordered/by_fit": ("ordered/by_own_batches", "endless/by_run"),
    "stream/by_fit": ("stream/by_turns",),
    "one/by_fit": ("one/by_turns",),
    "alone/by_fit": ("alone/by_turns",),
    "eager/by_fit": ("eager/by_run",),
}
"""The trainings of `mirrored_loop.py` by `fit`, and those that are to come to the same."""

CALLS = (
    *("whole/by_fit", *LOOPS["whole/by_fit"], "ordered/by_fit", "ordered/by_own_batches"),
    *("stream/by_fit", "stream/by_turns", "endless/by_run"),
    *("one/by_fit", "one/by_turns", "alone/by_fit", "alone/by_turns"),
    *("eager/by_fit", "eager/by_run"),
)
"""All of them in order; the calls of `mirrored.py` itself come before."""


@pytest.mark.parametrize("fit", LOOPS)
def test_a_loop_trains_as_fit_does(trained, fit):
    for left in trained[:2]:
        told = left.reported[-1]
        for loop in LOOPS[fit]:
            for a, b in zip(left.state(fit), left.state(loop), strict=True):
                np.testing.assert_array_equal(a, b, err_msg=loop)
            assert told[loop]["history"] == told[fit]["history"]
            assert told[loop]["told"] in ([], told[fit]["told"])


NAMES = ["epoch", "batch", "loss", "weight", "rows", "penalty", "learning_rate", "batch_id"]


@pytest.mark.parametrize("fit", LOOPS)
def test_the_entries_of_a_loop_are_those_of_fit(trained, fit):
    _, recorded, run = trained
    number = {name: 7 + place for place, name in enumerate(CALLS)}
    expected = run.entries(NAMES, call=number[fit], replicas=True).to_pydict()
    assert expected["replica"] in ([0, 1] * 6, [0] * 6)
    for loop in LOOPS[fit]:
        assert run.calls[number[loop]].driver == "loop"
        assert run.entries(NAMES, call=number[loop], replicas=True).to_pydict() == expected
        losses = recorded.reported[-1][loop]["losses"]
        entries = run.entries(["loss"], call=number[loop])["loss"].to_pylist()
        assert losses is None or entries == losses


def test_eager_steps_are_those_of_a_graph(trained):
    """Of unequal shares, too; the same training but for how TensorFlow rounds it."""
    eager, graph = (
        trained[2].entries(NAMES, call=7 + CALLS.index(name), replicas=True)
        for name in ("eager/by_fit", "ordered/by_fit")
    )
    assert eager["rows"].to_pylist() == [16, 16, 16, 16, 3, 2] * 2
    for name in ("batch_id", "rows", "weight", "replica"):
        assert eager[name].to_pylist() == graph[name].to_pylist()
    for name in ("loss", "penalty"):
        np.testing.assert_allclose(eager[name].to_numpy(), graph[name].to_numpy(), rtol=1e-4)


def test_what_a_loop_can_not_train_is_an_error(trained):
    refused = trained[0].reported[-1]["refused"]
    assert "Received: a model of MultiWorkerMirroredStrategy" in refused["workers"]
    assert "Received: jit_compile=True, and 2 replicas" in refused["xla"]
    assert "inside the scope of MirroredStrategy" in refused["outside"]
