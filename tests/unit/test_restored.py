"""From where a resumed call goes on: by its weights, the optimizer's count, or its batches."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made import Made, epochs_of, ids

from lossledger.cli import main

LOOP_BY_HAND = {"driver": "train_on_batch", "model": 0}


def shuffled(count, seed):
    return np.random.default_rng(seed).integers(1, 2**63, count).astype("u8")


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ({"saved": [[13, "a"], [26, "b"]]}, {"initial_weights": "b"}),
        (
            {"initial_optimizers": {"optimizer": {"iterations": 4}}},
            {"initial_optimizers": {"optimizer": {"iterations": 30}}},
        ),
    ],
    ids=["by the weights", "by the optimizer's count"],
)
def test_a_loop_that_shuffles_goes_on_where_it_was_saved(tmp_path, first, then):
    made = Made(tmp_path, resumed=[{}, {}])
    made.call(0, **LOOP_BY_HAND, **first)
    old, _ = made.steps(np.arange(36) / 7, batch_id=shuffled(36, 0))
    # Twice from one checkpoint: the second process died before it made another.
    for attempt in (1, 2):
        made.call(attempt, attempt=attempt, **LOOP_BY_HAND, **then)
        new, _ = made.steps(np.arange(9) + attempt, call=attempt, batch_id=shuffled(9, attempt))
    run = made.close()
    np.testing.assert_array_equal(run.losses(), np.concatenate((old[:26], new)))
    assert [call.standing.again for call in run.calls] == [0, 10, 9]
    assert [call.standing.continues for call in run.calls] == [None, 0, 0]
    marks = run.entries(["superseded"])["superseded"].to_pylist()
    assert [place for place, mark in enumerate(marks) if mark] == list(range(26, 45))


def test_epochs_of_equal_batches_are_told_apart(tmp_path):
    """Batches agree best with the last epoch; the optimizer had come to the one before."""
    made = Made(tmp_path, resumed=[{}])
    made.call(0, initial_optimizers={"optimizer": {"iterations": 0}}, **LOOP_BY_HAND)
    old, _ = made.steps(np.arange(31) / 7, batch_id=np.tile(ids(7), 5)[:31])
    states = {"optimizer": {"iterations": 22}}
    made.call(1, attempt=1, initial_optimizers=states, **LOOP_BY_HAND)
    new, _ = made.steps(np.arange(13) / 3, call=1, batch_id=np.tile(ids(7), 5)[22:])
    run = made.close()
    np.testing.assert_array_equal(run.losses(), np.concatenate((old[:22], new)))
    assert [each.steps for each in run.epochs()] == [7] * 5


def test_a_call_that_went_on_to_its_end_is_gone_on_from(tmp_path):
    """Killed after its last step; the call that it went on from was cut short, too, long before."""
    made = Made(tmp_path, resumed=[{}, {}])
    losses, begins = [], (0, 22, 30)
    for attempt, (begin, end) in enumerate(zip(begins, (31, 40, 40), strict=True)):
        states = {"optimizer": {"iterations": begin}}
        more = {"attempt": attempt} if attempt else {}
        ended = {"ended": 1} if attempt else {}
        made.call(attempt, initial_optimizers=states, **more, **ended, **LOOP_BY_HAND)
        new, _ = made.steps(
            np.arange(begin, end) / 7 + attempt,
            call=attempt,
            batch_id=shuffled(end - begin, attempt),
        )
        losses = [*losses[:begin], *new]
    run = made.close()
    np.testing.assert_array_equal(run.losses(), losses)
    assert [call.standing.again for call in run.calls] == [0, 9, 10]
    assert [call.standing.unwritten for call in run.calls] == [0, 0, 0]


def test_a_loop_that_shuffles_and_keeps_weights_alone_is_not_claimed(tmp_path, capsys):
    made = Made(tmp_path, resumed=[{"created": "2026-11-22T18:40:00+00:00"}])
    for attempt in (0, 1):
        more = {"attempt": 1} if attempt else {}
        states = {"optimizer": {"iterations": 0}}
        made.call(attempt, initial_optimizers=states, **LOOP_BY_HAND, **more)
        made.steps(np.ones(9), call=attempt, batch_id=shuffled(9, attempt))
    run = made.close()
    assert run.calls[1].standing.again is None
    assert main(["show", str(run.path)]) == 0
    assert "can't be told" in " ".join(capsys.readouterr().out.split())


DENSE = [{"class": "InputLayer"}, {"class": "Dense", "units": 1}]


def resumed_in_one_order(tmp_path, written, saved, noise=0.0, *, said=False, layers=None):
    """A loop over seven batches in one order, whose weights were kept without Keras."""
    made = Made(tmp_path, f"{written}-{saved}-{noise}", resumed=[{"created": "2026-11-22"}])
    batches, losses = np.tile(ids(7), 9), 1 / np.arange(1, 64)
    epochs = epochs_of(63, 7) if said else np.full(63, -1)
    for attempt, part in enumerate((slice(written), slice(saved, saved + 15))):
        more = {"attempt": 1} if attempt else {}
        made.call(attempt, configuration={"layers": layers}, **more, **LOOP_BY_HAND)
        columns = {"batch_id": batches[part], "epoch": epochs[part]}
        made.steps(losses[part] + attempt * noise, call=attempt, **columns)
    return made.close(), losses[: saved + 15].astype("f4")


@pytest.mark.parametrize("said", [False, True], ids=["found", "said"])
@pytest.mark.parametrize("saved", [1, 9, 22, 30])
def test_losses_tell_epochs_in_one_order_apart(tmp_path, saved, said):
    run, truth = resumed_in_one_order(tmp_path, 31, saved, said=said)
    np.testing.assert_array_equal(run.losses(), truth)
    means = [truth[begin : begin + 7].mean() for begin in range(0, len(truth), 7)]
    np.testing.assert_allclose(run.statistic("epoch_mean"), means, rtol=1e-6)
    assert run.calls[1].standing.again == 31 - saved
    assert not run.calls[1].standing.guessed


def test_a_loop_that_was_saved_as_it_ended_trains_nothing_again(tmp_path):
    run, truth = resumed_in_one_order(tmp_path, 31, 31)
    np.testing.assert_array_equal(run.losses(), truth)
    assert run.calls[1].standing.again is None  # its batches follow, and no loss says more


def test_a_loop_that_was_saved_behind_what_was_written_trains_nothing_again(tmp_path):
    """No loss comes again, and no layer draws random numbers: it is none of those places."""
    run, _ = resumed_in_one_order(tmp_path, 31, 34, layers=DENSE)
    assert len(run.losses()) == 31 + 15
    assert run.calls[1].standing.again is None


def test_a_guess_by_batches_alone_is_called_one(tmp_path, capsys):
    """As with dropout: nothing that was computed again comes to the same."""
    dropout = [*DENSE, {"class": "Dropout", "rate": 0.5, "training": True}]
    run, _ = resumed_in_one_order(tmp_path, 31, 22, noise=0.125, layers=dropout)
    assert run.calls[1].standing.again == 2
    assert main(["show", str(run.path)]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "which trained 2 steps again: a guess by its batches, which other epochs have" in told
    assert main(["show", str(run.path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["run"]["resumed"][0]["guessed"] is True


def test_a_checkpoint_within_an_epoch_of_a_stream(tmp_path):
    """Nobody counts a stream's steps, but its weights were seen as they were saved."""
    made = Made(tmp_path, resumed=[{}])
    about = {"driver": "fit", "model": 0, "arguments": {"x": "generator"}}
    made.call(0, saved=[[10, "a"], [20, "b"], [23, "c"]], **about)
    made.steps(np.ones(25), epoch=epochs_of(25, 10))
    made.call(1, attempt=1, initial_weights="c", **about)
    made.steps(np.ones(20), call=1, epoch=epochs_of(20, 10, 2))
    run = made.close()
    assert (run.calls[1].standing.again, run.calls[1].standing.seen) == (5, 3)
    assert [each.steps for each in run.epochs()] == [10] * 4


def test_an_epoch_0_of_which_a_part_was_kept_is_begun_again(tmp_path):
    """What was trained after the checkpoint was never written: its part ends the ledger."""
    made = Made(tmp_path, resumed=[{}])
    made.call(0, driver="fit", model=0, saved=[[7, "a"]])
    made.steps(np.arange(7) / 3, epoch=0)
    made.call(1, driver="fit", model=0, attempt=1, initial_weights="a")
    made.steps(np.arange(20) / 7, call=1, epoch=epochs_of(20, 10))
    run = made.close()
    assert [(each.epoch, each.steps) for each in run.epochs()] == [(0, 10), (1, 10)]
    assert (run.calls[1].standing.again, run.calls[1].standing.seen) == (7, 7)


def test_another_fit_of_what_is_left_loses_nothing(tmp_path):
    """`load_model`, then `fit(epochs=left)`: its epochs count from 0 again."""
    for epochs, weights in ((1, "a"), (2, "b")):
        made = Made(tmp_path, f"after-{epochs}", resumed=[{}])
        made.call(0, driver="fit", model=0, saved=[[10, "a"], [20, "b"]][:epochs])
        kept = epochs * 10
        old, _ = made.steps(np.arange(kept + 5) / 3, epoch=epochs_of(kept + 5, 10))
        made.history(0, "loss", [1.0] * epochs)
        made.call(1, driver="fit", model=0, attempt=1, initial_weights=weights)
        new, _ = made.steps(np.arange(20) / 7, call=1, epoch=epochs_of(20, 10))
        run = made.close()
        np.testing.assert_array_equal(run.losses(), np.concatenate((old[:kept], new)))
        assert run.calls[1].standing.again == 5
        assert [each.epoch for each in run.epochs()] == [*range(epochs), 0, 1]


@pytest.mark.parametrize(("written", "batches", "again"), [
    (7, "shuffled", 7),  # killed within epoch 0: whatever the weights, a `fit` trains it whole
    (25, "shuffled", None),  # from the start, or from weights of any epoch that were kept unseen
    (25, "in order", 5),  # its losses are those of epoch 2
])  # fmt: skip
def test_a_fit_from_epoch_0_with_weights_that_nobody_saw(tmp_path, written, batches, again):
    made = Made(tmp_path, resumed=[{}])
    ids_of = {"shuffled": lambda n: shuffled(n, n), "in order": lambda n: np.tile(ids(10), 3)[:n]}
    losses = 1 / np.arange(1, 51)
    made.call(0, driver="fit", model=0, initial_weights="a")
    columns = {"epoch": epochs_of(written, 10), "batch_id": ids_of[batches](written)}
    old, _ = made.steps(losses[:written], **columns)
    made.call(1, driver="fit", model=0, attempt=1, initial_weights="b")
    columns = {"epoch": epochs_of(20, 10), "batch_id": ids_of[batches](20)}
    new, _ = made.steps(losses[20:40], call=1, **columns)
    run = made.close()
    assert run.calls[1].standing.again == again
    np.testing.assert_array_equal(run.losses(), [*old[: written - (again or 0)], *new])


@pytest.mark.parametrize(("fold", "again"), [(0, 20), (1, None)])
def test_a_model_like_another_from_the_same_seed_is_not_it(tmp_path, fold, again):
    """Cross-validation: the first fold had ended, and is trained again, or the next one is."""
    made = Made(tmp_path, resumed=[{}])
    columns = {"epoch": epochs_of(20, 10)}
    made.call(0, driver="fit", model=0, initial_weights="a", final_weights="b", ended=1)
    old, _ = made.steps(np.arange(20) / 7, batch_id=shuffled(20, 0), **columns)
    made.call(1, driver="fit", model=0, attempt=1, initial_weights="a")
    new, _ = made.steps(np.arange(20) / 3, call=1, batch_id=shuffled(20, fold), **columns)
    run = made.close()
    assert run.calls[1].standing.again == again
    np.testing.assert_array_equal(run.losses(), new if again else [*old, *new])


def test_an_epoch_that_may_lack_its_end_is_named(tmp_path, capsys):
    """A loop kept its weights at the end of epoch 0; its last half second was not written."""
    made = Made(tmp_path, resumed=[{"created": "2026-11-22T18:40:00+00:00"}])
    for attempt, steps in enumerate((7, 10)):
        more = {"attempt": 1} if attempt else {}
        made.call(attempt, driver="custom", model=0, **more)
        made.steps(np.ones(steps), call=attempt, epoch=attempt)
    run = made.close()
    assert run.calls[1].standing.open_epoch == 0
    assert main(["show", str(run.path)]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "the end of epoch 0 may never have been written" in told


def test_what_was_never_written_is_told(tmp_path, capsys):
    """Weights that were kept behind our back had seen what the last half second lost."""
    made = Made(tmp_path, resumed=[{"created": "2026-11-22T18:40:00+00:00"}])
    data = {"x": {"shape": [80, 2], "dtype": "float32"}}
    about = {"driver": "fit", "model": 0, "arguments": data}
    made.call(0, initial_optimizers={"optimizer": {"iterations": 0}}, **about)
    made.steps(np.ones(17), epoch=epochs_of(17, 10))
    made.call(1, attempt=1, initial_optimizers={"optimizer": {"iterations": 20}}, **about)
    made.steps(np.ones(10), call=1, epoch=2)
    run = made.close()
    assert (run.calls[1].standing.again, run.calls[1].standing.unwritten) == (0, 3)
    assert main(["show", str(run.path)]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "3 steps before it died with the process, unwritten" in told


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.integers(1, 25), st.integers(0, 3)), min_size=1, max_size=5),
    st.integers(1, 6),
)
def test_a_loop_counts_what_the_last_weights_saw(tmp_path_factory, crashes, every):
    """It shuffles without a seed; each process goes on from a checkpoint that is left."""
    made = Made(tmp_path_factory.mktemp("runs"), resumed=[{}] * len(crashes))
    truth, saves, begin = [], {"start": 0}, "start"
    for attempt, (steps, back) in enumerate([*crashes, (7, 0)]):
        more = {"attempt": attempt} if attempt else {}
        made.call(attempt, initial_weights=begin, **LOOP_BY_HAND, **more)
        losses = np.random.default_rng((attempt, steps)).random(steps).astype("f4").tolist()
        truth = truth[: saves[begin]]
        for step in range(every, steps + 1, every):
            name = f"{attempt}-{step}"
            saves[name] = len(truth) + step
            made.call(attempt, saved=[[step, name]])
        made.steps(losses, call=attempt, batch_id=shuffled(steps, attempt + 100))
        truth += losses
        begin = [*saves][max(0, len(saves) - 1 - back)]
        saves = {name: place for name, place in saves.items() if place <= saves[begin]}
    run = made.close()
    assert run.losses().tolist() == truth
