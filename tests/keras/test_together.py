"""Two processes that train together over loopback record one run, and train as without us."""

import json
import socket
from pathlib import Path

import numpy as np
import pytest

import lossledger

from .children import run_together
from .conftest import BACKEND

HERE = Path(__file__).parent


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [str(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """What each process left, and their run; that weights are the same they check themselves."""
    folder = tmp_path_factory.mktemp("together")
    ports = free_ports(2)
    script = str(HERE / "together.py")
    run_together(*([script, str(folder), str(rank), *ports] for rank in (0, 1)))
    left = [json.loads((folder / f"left-{rank}.json").read_text()) for rank in (0, 1)]
    assert left[0]["run"] == left[1]["run"]
    assert [each["warnings"] for each in left] == [{}, {}]
    weights = [dict(np.load(folder / f"left-{rank}.npz")) for rank in (0, 1)]
    return left, weights, lossledger.open(left[0]["run"])


def test_one_run_of_two_workers(trained):
    _, _, run = trained
    assert sorted(each.name for each in run.path.iterdir()) == ["run.json", "worker-0", "worker-1"]
    assert run.complete
    assert run.missing == []
    assert lossledger.open(run.path.parent / "latest").id == run.id


@pytest.mark.skipif(BACKEND != "jax", reason="one computation of several processes is JAX's")
def test_a_computation_of_all_processes_counts_once(trained):
    left, weights, run = trained
    for name, array in weights[0].items():
        np.testing.assert_array_equal(array, weights[1][name])
    for call, driver in enumerate(("fit", "loop")):
        assert run.calls[call].driver == driver
        assert run.entries(call=call)["rows"].to_pylist() == [8] * 10
        assert [each.rows for each in run.epochs(call)] == [40, 40]
        means = run.statistic("epoch_mean", call=call)
        np.testing.assert_allclose(means, left[0]["reported"], rtol=1e-6)
    raw = run.entries(["step"], call=0, replicas=True)
    assert raw["worker"].to_pylist() == [0, 1] * 10


@pytest.mark.skipif(BACKEND == "jax", reason="JAX's processes compute one loss")
def test_a_step_is_the_fold_of_its_workers(trained):
    left, _, run = trained
    shares = np.array([each["reported"][:4] for each in left])
    np.testing.assert_allclose(
        run.losses(call=0), np.average(shares, axis=0, weights=[7, 3]), rtol=1e-6
    )
    assert run.entries(["rows"], call=0)["rows"].to_pylist() == [10] * 4
    raw = run.entries(["rows"], call=0, replicas=True)
    assert raw["rows"].to_pylist() == [7, 3] * 4


@pytest.mark.skipif(BACKEND != "torch", reason="each process of torch fits its own shard")
def test_what_each_process_reports_of_its_shard(trained):
    left, _, run = trained
    shown = np.array([each["reported"][4:] for each in left])
    means = run.statistic("epoch_mean", call=1)
    np.testing.assert_allclose(means, shown.mean(0), rtol=1e-6)  # shards of 20 rows each
    result = lossledger.reconcile((run, "@1:reported"), (run, "@1:epoch_mean"))
    (cause,) = result.causes
    assert cause.cause == "replica_scaling"
    assert cause.amount == pytest.approx(means[-1] - shown[0, -1], abs=1e-12)
    assert "20 rows, of 40" in cause.evidence
    own = lossledger.open(run.path / "worker-1")
    assert own.calls[2].driver == "loop"
    for call in (1, 2):
        np.testing.assert_allclose(own.statistic("epoch_mean", call=call), shown[1], rtol=1e-6)


@pytest.mark.skipif(BACKEND != "jax", reason="keras.distribution is JAX's")
def test_devices_of_one_process(tmp_path):
    """`DataParallel` and `ModelParallel`: a step is one entry, by `fit` and by a `Loop`."""
    run_together([str(HERE / "devices.py"), str(tmp_path)])
    left = json.loads((tmp_path / "left.json").read_text())
    assert "P(None, 'model')" in left["model_parallel"]["sharded"]
    for each in left.values():
        assert each["warnings"] == {}
        run = lossledger.open(each["run"])
        assert run.entries(["rows"], call=0)["rows"].to_pylist() == [32, 32, 8] * 2
        np.testing.assert_allclose(run.statistic("epoch_mean", call=0), each["reported"], rtol=1e-6)
        assert run.losses(call=1).tolist() == [np.float32(each["batch"])]
        drivers = ["fit", "train_on_batch", "loop", "train_on_batch"]
        assert [call.driver for call in run.calls] == drivers
        assert run.losses(call=2).tolist() == each["losses"] == run.losses(call=0).tolist()
        names = ["rows", "weight", "batch_id", "learning_rate", "penalty", "epoch", "batch"]
        assert run.entries(names, call=2).to_pydict() == run.entries(names, call=0).to_pydict()
