"""A run that was resumed: what was trained again counts once, whatever the crashes were."""

import csv
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made import Made, epochs_of, ids

import lossledger as ll
from lossledger import LossLedgerError
from lossledger.cli import main
from lossledger.export.exporting import export


def test_an_epoch_begun_again_stands_once(tmp_path):
    made = Made(tmp_path, resumed=[{"created": "2026-11-22T18:40:00+00:00", "last": {"step": 24}}])
    chance = np.random.default_rng(0)
    made.call(0, driver="fit", model=0)
    old, _ = made.steps(chance.random(25), call=0, epoch=epochs_of(25, 10))
    made.call(1, driver="fit", model=0, attempt=1)
    new, _ = made.steps(chance.random(20), call=1, epoch=epochs_of(20, 10, 2))
    run = made.close()
    whole = np.concatenate((old[:20], new))
    np.testing.assert_array_equal(run.losses(), whole)
    means = whole.reshape(4, 10).mean(axis=1)
    np.testing.assert_allclose(run.statistic("epoch_mean"), means, rtol=1e-15)
    assert [call.steps for call in run.calls] == [20, 20]
    assert run.calls[0].standing.superseded == 5
    assert run.calls[1].standing.again == 5
    marks = run.entries(["step", "superseded"])
    assert marks["step"].to_pylist() == list(range(45))
    assert marks["superseded"].to_pylist() == [20 <= step < 25 for step in range(45)]
    assert run.entries(["loss"]).column_names == ["loss"]
    assert run.entries(epoch=2).num_rows == 10


def test_a_checkpoint_from_within_an_epoch_has_seen_steps_that_are_trained_again(tmp_path, capsys):
    for data, seen in (({"shape": [40, 2], "dtype": "float32"}, 3), ("generator", 0)):
        made = Made(tmp_path, f"seen-{seen}", resumed=[{}])
        about = {"driver": "fit", "model": 0, "arguments": {"x": data}}
        made.call(0, initial_optimizers={"optimizer": {"iterations": 100}}, **about)
        made.steps(np.ones(25), call=0, epoch=epochs_of(25, 10))
        states = {"optimizer": {"iterations": 123}}
        made.call(1, attempt=1, initial_optimizers=states, **about)
        made.steps(np.ones(20), call=1, epoch=epochs_of(20, 10, 2))
        run = made.close()
        assert [call.standing.seen for call in run.calls] == [0, seen]
        assert run.calls[1].standing.again == 5
        assert main(["show", str(run.path)]) == 0
        told = " ".join(capsys.readouterr().out.split())
        assert "which trained 5 steps again" in told
        assert ("its weights had seen 3 of them before" in told) == (seen == 3)


def test_counted_twice_is_a_cause_of_that_size(tmp_path):
    made = Made(tmp_path, "cut", resumed=[{}])
    chance = np.random.default_rng(1)
    made.call(0, driver="fit", model=0)
    old, _ = made.steps(chance.random(17), epoch=epochs_of(17, 10), weight=4.0)
    made.call(1, driver="fit", model=0, attempt=1)
    new, _ = made.steps(chance.random(10), call=1, epoch=1, weight=4.0)
    made.close()
    found = ll.reconcile("cut@epoch=1,again", "cut@epoch=1", directory=tmp_path)
    twice = np.concatenate((old[10:], new)).mean()
    assert found.a.value == pytest.approx(twice, rel=1e-15)
    assert found.b.value == pytest.approx(new.mean(), rel=1e-15)
    assert [cause.cause for cause in found.causes] == ["double_count"]
    assert found.causes[0].amount == pytest.approx(new.mean() - twice, rel=1e-12)
    assert "7 of 17 steps" in found.causes[0].evidence
    sides = [f"cut@{part}epoch=1:cumulative_mean" for part in ("again,", "")]
    found = ll.reconcile(*sides, directory=tmp_path)
    twice, once = np.concatenate((old, new)).mean(), np.concatenate((old[:10], new)).mean()
    assert found.a.value == pytest.approx(twice, rel=1e-15)
    assert [cause.cause for cause in found.causes] == ["double_count"]
    assert found.causes[0].amount == pytest.approx(once - twice, rel=1e-12)
    found = ll.reconcile("cut@again:window_mean:n=12", "cut", directory=tmp_path)
    assert found.a.value == pytest.approx(np.concatenate((old, new))[-12:].mean(), rel=1e-12)


def test_weights_tell_that_nothing_was_lost_or_all(tmp_path):
    made = Made(tmp_path, resumed=[{}, {}])
    made.call(0, driver="fit", model=0, initial_weights="start", final_weights="end", ended=1)
    made.steps(np.ones(6), call=0, epoch=epochs_of(6, 3))
    made.call(1, driver="fit", model=0, attempt=1, initial_weights="end")
    made.steps(np.full(4, 2.0), call=1, epoch=epochs_of(4, 3))
    run = made.close()
    assert [call.standing.again for call in run.calls] == [0, 0]
    assert run.losses().tolist() == [1.0] * 6 + [2.0] * 4
    made = Made(tmp_path, "again", resumed=[{}, {}])
    made.call(0, driver="fit", model=0, initial_weights="start", final_weights="end", ended=1)
    made.steps(np.ones(6), call=0, epoch=epochs_of(6, 3))
    made.call(1, driver="fit", model=0, initial_weights="end")
    made.steps(np.full(4, 2.0), call=1, epoch=epochs_of(4, 3))
    made.call(2, driver="fit", model=0, attempt=1, initial_weights="start")
    made.steps(np.full(5, 3.0), call=2, epoch=epochs_of(5, 3))
    run = made.close()
    assert run.losses().tolist() == [3.0] * 5
    assert run.calls[2].standing.again == 10


def test_steps_without_epochs_are_found_by_their_batches(tmp_path):
    made = Made(tmp_path, resumed=[{}])
    data = ids(7)
    made.call(0, driver="train_on_batch", model=0)
    batches = np.tile(data, 5)
    old, _ = made.steps(np.arange(31) / 7, call=0, batch_id=batches[:31])
    # The checkpoint was made after step 29, in the middle of an epoch.
    made.call(1, driver="train_on_batch", model=0, attempt=1)
    new, _ = made.steps(np.arange(9) / 3, call=1, batch_id=np.tile(data, 6)[29:38])
    run = made.close()
    whole = np.concatenate((old[:29], new))
    assert run.calls[1].standing.again == 2
    assert run.calls[1].standing.continues == 0
    np.testing.assert_array_equal(run.losses(), whole)
    means = [whole[k : k + 7].mean() for k in range(0, 38, 7)]
    np.testing.assert_allclose(run.statistic("epoch_mean"), means, rtol=1e-15)
    np.testing.assert_allclose(
        [each.epoch_mean for each in run.epochs()], means, rtol=1e-15
    )  # the epoch that two calls share, too
    straddling = ll.reconcile((run, "@epoch=4:epoch_mean"), (run, "@epoch=4:batch_mean"))
    assert straddling.a.value == pytest.approx(means[4], rel=1e-15)


def test_steps_that_nothing_tells_of_are_not_claimed(tmp_path, capsys):
    made = Made(tmp_path, resumed=[{"created": "2026-11-22T18:40:00+00:00"}])
    made.call(0, driver="custom", model=0)
    made.steps(np.ones(5))
    made.call(1, driver="custom", model=0, attempt=1)
    made.steps(np.ones(5), call=1)
    run = made.close()
    assert run.calls[1].standing.again is None
    assert len(run.losses()) == 10
    assert main(["show", str(run.path)]) == 0
    assert "can't be told" in " ".join(capsys.readouterr().out.split())


def test_models_are_resumed_apart(tmp_path):
    made = Made(tmp_path, resumed=[{}])
    for model in (0, 1):
        made.call(model, driver="fit", model=model)
        made.steps(np.full(6, float(model)), call=model, model=model, epoch=epochs_of(6, 4))
    made.call(2, driver="fit", model=1, attempt=1)
    made.steps(np.full(4, 5.0), call=2, model=1, epoch=1)
    run = made.close()
    assert run.losses(model=0).tolist() == [0.0] * 6
    assert run.losses(model=1).tolist() == [1.0] * 4 + [5.0] * 4


crashes = st.lists(st.tuples(st.integers(1, 25), st.integers(0, 3)), max_size=5)


@settings(max_examples=40)
@given(crashes, st.integers(1, 5))
def test_the_ledger_is_what_the_last_weights_saw(tmp_path_factory, crashes, per_epoch):
    """Each crash loses what follows its checkpoint; independent book-keeping is the judge."""
    made = Made(tmp_path_factory.mktemp("runs"), resumed=[{}] * len(crashes))
    chance = np.random.default_rng(len(crashes))
    truth, begin = [], 0
    for attempt, (steps, back) in enumerate([*crashes, (7, 0)]):
        more = {"attempt": attempt} if attempt else {}
        made.call(attempt, driver="fit", model=0, initial_weights=str(begin and attempt), **more)
        losses = chance.random(steps).astype("f4").tolist()
        epochs = epochs_of(steps, per_epoch, begin)
        made.steps(losses, call=attempt, epoch=epochs)
        truth = [pair for pair in truth if pair[0] < begin]
        truth += list(zip(epochs.tolist(), losses, strict=True))
        # A checkpoint is made at the end of each epoch; an older one may be taken.
        begin = max(0, begin + steps // per_epoch - back)
    run = made.close()
    assert run.losses().tolist() == [loss for _, loss in truth]
    means = [
        np.mean([loss for at, loss in truth if at == epoch])
        for epoch in sorted({epoch for epoch, _ in truth})
    ]
    np.testing.assert_allclose(run.statistic("epoch_mean"), means, rtol=1e-14)
    total = sum(steps for steps, _ in crashes) + 7
    assert run.entries(["superseded"])["superseded"].to_pylist().count(True) == total - len(truth)


# Recording, where a loop needs no Keras


LOOP = """
import os, signal, sys
import lossledger as ll
with ll.record(sys.argv[1], **({"resume": sys.argv[2]} if len(sys.argv) > 2 else {})) as run:
    first = 2 if len(sys.argv) > 2 else 0
    for epoch in range(first, 4):
        run.epoch(epoch)
        for batch in range(3):
            run.step(epoch + batch / 4, rows=2)
            if len(sys.argv) == 2 and (epoch, batch) == (2, 1):
                run.collector.collect()
                os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_loop_is_resumed(tmp_path):
    runs = tmp_path / "runs"
    killed = subprocess.run([sys.executable, "-c", LOOP, runs], check=False)
    assert killed.returncode == -9
    first = ll.open(runs / "latest")
    assert len(first.losses()) == 8
    subprocess.run([sys.executable, "-c", LOOP, runs, "latest"], check=True)
    run = ll.open(runs / "latest")
    assert run.path == first.path
    assert run.complete
    assert run.losses().tolist() == [e + b / 4 for e in range(4) for b in range(3)]
    assert run.calls[1].standing.again == 2
    entries = run.entries().to_pydict()
    assert entries["step"] == list(range(14))
    assert entries["time"] == sorted(entries["time"])
    assert run.info["resumed"][0]["last"] == {"step": 7, "call": 0, "epoch": 2, "batch": 1}
    assert run.info["summary"]["steps"] == 12


def test_a_living_run_is_not_resumed(tmp_path):
    with ll.record(tmp_path) as run:
        run.step(1.0)
        with pytest.raises(LossLedgerError, match="records into this run") as caught:
            ll.record(tmp_path, resume="latest")
        assert caught.value.slug == "folder-in-use"
        refused = subprocess.run(
            [sys.executable, "-m", "lossledger", "run", "-o", tmp_path, "--resume", "latest", "x"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert refused.returncode == 1
        assert "records into this run" in refused.stderr
    with pytest.raises(LossLedgerError) as caught:
        ll.record(tmp_path, resume="absent")
    assert caught.value.slug == "no-run"


class CutInAnEpoch:
    """Of a loop's fourteen steps, in epochs of six, ten count; ten more follow after a resume."""

    def __init__(self, directory):
        self.made = Made(directory, resumed=[{}])
        self.chance = np.random.default_rng(4)
        self.batches = np.tile(ids(6), 4)
        self.said = {"driver": "train_on_batch", "steps_per_epoch": 6}
        self.made.call(0, model=0, **self.said)
        self.losses, _ = self.made.steps(self.chance.random(14), batch_id=self.batches[:14])

    def resume(self):
        self.made.call(1, model=0, attempt=1, **self.said)
        batches = self.batches[10:20]
        new, _ = self.made.steps(self.chance.random(10), call=1, batch_id=batches)
        self.losses = np.concatenate((self.losses[:10], new))


def test_an_export_has_what_counts_once(tmp_path):
    cut = CutInAnEpoch(tmp_path / "runs")
    cut.resume()
    export(cut.made.close(), "csv", tmp_path)
    with next(tmp_path.rglob("steps.csv")).open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["optimizer_step"]) for row in rows] == list(range(20))
    assert [int(row["epoch"]) for row in rows] == [step // 6 for step in range(20)]
    raw = np.array([row["loss/raw"] for row in rows], "f4")
    np.testing.assert_array_equal(raw, cut.losses.astype("f4"))
    means = [cut.losses[step - step % 6 : step + 1].mean() for step in range(20)]
    np.testing.assert_allclose([float(row["loss/running_mean"]) for row in rows], means, rtol=1e-12)
    with next(tmp_path.rglob("epochs.csv")).open() as file:
        stated = [float(row["loss/epoch_mean"]) for row in csv.DictReader(file)]
    wanted = [cut.losses[begin : begin + 6].mean() for begin in range(0, 20, 6)]
    np.testing.assert_allclose(stated, wanted, rtol=1e-12)


def test_an_epoch_whose_end_was_never_written_is_no_riddle(tmp_path):
    """Keras had reported it, the process died, and the resumed one went on behind it."""
    made = Made(tmp_path, resumed=[{}])
    made.call(0, driver="fit", model=0)
    losses, _ = made.steps(np.linspace(4, 3, 16), epoch=epochs_of(16, 10))
    made.history(0, "loss", [losses[:10].mean(), 2.5])
    made.call(1, driver="fit", model=0, attempt=1, ended=1)
    made.steps(np.linspace(3, 2, 10), call=1, epoch=2)
    first, second = made.close().reported()
    assert first.agreement in ("equal", "rounding")
    assert second.agreement == "differs"
    assert "may not have been written" in second.why
