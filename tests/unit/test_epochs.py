"""Epochs found from batch fingerprints made here: rows hashed to 64 bits, summed by lane."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from made import Made

from lossledger import call
from lossledger.epochs import find_epochs

seeds = st.integers(0, 2**32 - 1)


def rows_of(random, count):
    return random.integers(1, 2**64, count, dtype=np.uint64)


def batch_ids(rows, batch_size):
    """Each lane of a batch is the sum of its rows' lanes modulo 2^32."""
    ids = []
    for start in range(0, len(rows), batch_size):
        batch = [int(row) for row in rows[start : start + batch_size]]
        high = sum(row >> 32 for row in batch) % 2**32
        low = sum(row % 2**32 for row in batch) % 2**32
        ids.append(high << 32 | low)
    return np.array(ids, np.uint64)


def passes(random, rows, batch_size, count, shuffle):
    orders = (random.permutation(rows) if shuffle else rows for _ in range(count))
    return np.concatenate([batch_ids(order, batch_size) for order in orders])


@given(
    seed=seeds,
    rows=st.integers(2, 30),
    batch_size=st.integers(1, 7),
    count=st.integers(2, 5),
    rest=st.integers(0, 30),
    shuffle=st.booleans(),
)
def test_epochs_of_a_dataset_shuffled_or_not(seed, rows, batch_size, count, rest, shuffle):
    random = np.random.default_rng(seed)
    data = rows_of(random, rows)
    steps = -(-rows // batch_size)
    rest %= steps
    ids = passes(random, data, batch_size, count + 1, shuffle)[: count * steps + rest]
    found = find_epochs(ids)
    assert found.source == "batch_id"
    assert (found.steps_per_epoch, found.begins.tolist()) == (steps, [0])
    np.testing.assert_array_equal(found.epoch, np.arange(len(ids)) // steps)
    assert found.epoch.dtype == np.int32


@given(seeds, st.integers(0, 300))
def test_unrelated_batches_have_no_epochs(seed, count):
    found = find_epochs(rows_of(np.random.default_rng(seed), count))
    assert (found.source, found.steps_per_epoch) == ("none", None)
    np.testing.assert_array_equal(found.epoch, np.zeros(count, np.int32))


@given(seeds, st.integers(2, 20), st.integers(1, 19))
def test_a_return_to_the_first_batch_begins_an_epoch(seed, steps, more):
    more = min(more, steps - 1)
    ids = np.tile(rows_of(np.random.default_rng(seed), steps), 2)[: steps + more]
    found = find_epochs(ids)
    assert found.steps_per_epoch == steps
    np.testing.assert_array_equal(found.epoch, [0] * steps + [1] * more)


@pytest.mark.parametrize(
    "ids",
    [
        [],
        [5],
        [5, 0],  # a batch without a fingerprint
        [5, 6, 5, 0],
        [0, 0, 0, 0],
        [5, 6, 6],  # comes back, but not to the first batch
        [5, 6, 5, 7],  # does not go on as it began
        [5, 5, 6, 6, 7, 7],  # each batch trained twice, one pass
        [5, 6, 7, 8, 9, 9],
    ],
)
def test_nothing_found(ids):
    found = find_epochs(np.array(ids, np.uint64))
    assert found.source == "none"
    np.testing.assert_array_equal(found.epoch, np.zeros(len(ids)))


def test_each_batch_twice_over_two_passes():
    found = find_epochs([5, 5, 6, 6, 7, 7] * 2)
    np.testing.assert_array_equal(found.epoch, [0] * 6 + [1] * 6)


@pytest.mark.parametrize("count", [2, 3, 50])
def test_one_batch_repeated_is_an_epoch_a_step(count):
    found = find_epochs(np.full(count, 2**63 + 9, np.uint64))
    assert found.steps_per_epoch == 1
    np.testing.assert_array_equal(found.epoch, np.arange(count))


@given(
    seed=seeds,
    warm_up=st.integers(1, 8),
    steps=st.integers(3, 10),
    count=st.integers(4, 6),
    shuffle=st.booleans(),
)
def test_a_short_warm_up_is_set_aside(seed, warm_up, steps, count, shuffle):
    random = np.random.default_rng(seed)
    ids = passes(random, rows_of(random, steps * 4), 4, count, shuffle)
    found = find_epochs(np.concatenate((rows_of(random, warm_up), ids)))
    assert (found.source, found.begins[-1], found.steps_per_epoch) == ("batch_id", warm_up, steps)
    expected = [0] * warm_up + (np.arange(len(ids)) // steps + 1).tolist()
    np.testing.assert_array_equal(found.epoch, expected)


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("before", [2, 3])
def test_epochs_of_a_dataset_after_epochs_of_another(shuffle, before):
    random = np.random.default_rng(3)
    one = passes(random, rows_of(random, 60), 4, before, shuffle)
    two = passes(random, rows_of(random, 80), 4, 5, shuffle)
    found = find_epochs(np.concatenate((one, two[:-3])))
    assert (found.begins[-1], found.steps_per_epoch) == (len(one), 20)
    expected = np.concatenate((np.arange(len(one)) // 15, np.arange(97) // 20 + before))
    np.testing.assert_array_equal(found.epoch, expected)


def test_a_single_pass_over_other_data_before_unshuffled_epochs():
    random = np.random.default_rng(4)
    one, two = rows_of(random, 30), np.tile(rows_of(random, 12), 4)
    found = find_epochs(np.concatenate((one, two)))
    assert (found.begins[-1], found.steps_per_epoch) == (30, 12)
    np.testing.assert_array_equal(found.epoch, [0] * 30 + (np.arange(48) // 12 + 1).tolist())


def trained(steps, going_back):
    """Places and losses of a training of so many steps that goes back once after some of them.

    Args:
        steps: Of a training that never goes back.
        going_back: After how many steps, to the weights before which.
    """
    losses = np.random.default_rng(7).random(steps).astype("f4")
    places: list[int] = []
    for after, to in going_back:
        begin = places[-1] + 1 if places else 0
        places += range(begin, after)
        places += [to]
    places += range(places[-1] + 1, steps)
    return np.array(places), losses


@given(
    seed=seeds,
    steps=st.integers(3, 8),
    count=st.integers(2, 5),
    places=st.lists(st.integers(0, 39), min_size=1, max_size=3, unique=True),
    back=st.integers(1, 5),
    shuffle=st.booleans(),
)
def test_steps_trained_again_are_of_the_epoch_that_they_were(
    seed, steps, count, places, back, shuffle
):
    random = np.random.default_rng(seed)
    ids = passes(random, rows_of(random, steps * 3), 3, count, shuffle)
    # Of a batch that comes twice in a row, by chance, a third time looks like one in turn.
    assume((ids[1:] != ids[:-1]).all())
    # At an epoch's end nothing tells a return from another epoch.
    cuts = sorted(place for place in places if place < len(ids) and place % steps)
    returns = [(place, place - min(back, place % steps)) for place in cuts]
    if not returns:
        return
    order, losses = trained(len(ids), returns)
    found = find_epochs(ids[order], losses[order])
    np.testing.assert_array_equal(found.epoch, order // steps)
    # It goes on so: a growing run's next steps are of the epochs that will be found.
    more = np.concatenate((order, np.arange(len(ids), len(ids) + 2 * steps)))
    np.testing.assert_array_equal(found.at(0, len(more)), more // steps)


def test_weights_restored_over_an_epochs_end():
    ids = np.tile(rows_of(np.random.default_rng(2), 5), 4)
    shuffled = passes(np.random.default_rng(3), rows_of(np.random.default_rng(2), 15), 3, 4, True)
    order, losses = trained(20, [(12, 8)])
    # The epoch that had begun goes on: no step is of an earlier one than the step before.
    expected = np.maximum.accumulate(order // 5)
    np.testing.assert_array_equal(find_epochs(shuffled[order], losses[order]).epoch, expected)
    # In one order nothing is out of turn where a pass goes on behind where it was cut.
    order, losses = trained(20, [(13, 8)])
    assert (
        find_epochs(ids[order]).epoch.tolist()
        == find_epochs(ids[order], losses[order]).epoch.tolist()
    )


@pytest.mark.parametrize(
    ("lengths", "shuffle"),
    [((5, 5, 3, 5, 5), False), ((2, 3, 4, 5, 5), False), ((5, 5, 2, 5, 1, 5, 5, 4), True)],
)
def test_epochs_cut_short(lengths, shuffle):
    random = np.random.default_rng(11)
    ids = passes(random, rows_of(random, 15), 3, len(lengths), shuffle).reshape(-1, 5)
    cut = np.concatenate([one[:length] for one, length in zip(ids, lengths, strict=True)])
    losses = random.random(len(cut)).astype("f4")
    expected = np.repeat(np.arange(len(lengths)), lengths)
    np.testing.assert_array_equal(find_epochs(cut, losses).epoch, expected)
    # Losses of weights that never move tell nothing.
    np.testing.assert_array_equal(find_epochs(cut, np.ones(len(cut), "f4")).epoch, expected)


def test_a_batch_trained_twice_is_of_its_epoch():
    ids = [5, 6, 7, 8, 5, 6, 6, 7, 8, 5, 6, 7, 8, 5, 6]
    found = find_epochs(ids, np.arange(15, dtype="f4"))
    assert found.epoch.tolist() == [0] * 4 + [1] * 5 + [2] * 4 + [3] * 2


def test_batches_drawn_at_random_have_no_epochs():
    random = np.random.default_rng(12)
    for pool in (3, 5, 20):
        ids = random.choice(rows_of(random, pool), 60)
        assert find_epochs(ids, random.random(60).astype("f4")).source == "none"


def test_dropped_remainders_leave_nothing_to_find():
    random = np.random.default_rng(5)
    data = rows_of(random, 42)
    ids = np.concatenate([batch_ids(random.permutation(data)[:40], 4) for _ in range(6)])
    assert find_epochs(ids).source == "none"


@settings(max_examples=20)
@given(st.lists(st.sampled_from([3, 5, 7]), max_size=60))
def test_labels_never_go_back_and_skip_no_number(ids):
    epoch = find_epochs(np.array(ids, np.uint64)).epoch
    assert set(np.diff(epoch)) <= {0, 1}
    assert not len(epoch) or epoch[0] == 0


def test_a_million_steps_are_read():
    random = np.random.default_rng(6)
    once = rows_of(random, 30_011)
    ids = np.concatenate([random.permutation(once) for _ in range(34)])[: 10**6]
    for series, steps in ((ids, 30_011), (rows_of(random, 10**6), None)):
        assert find_epochs(series).steps_per_epoch == steps


def epochs_of_a_run(folder, batches, monkeypatch):
    """What a run says whose beginning alone is looked at first, and how much that was."""
    monkeypatch.setattr(call, "LOOKED_AT", 25)
    made = Made(folder)
    made.call(0, driver="train_on_batch", model=0)
    for begin in range(0, len(batches), 17):
        part = batches[begin : begin + 17]
        made.steps(np.zeros(len(part)), batch_id=part)
    (found,) = made.close().calls
    return found.epochs_of(np.zeros(len(batches)), 0).tolist()


@pytest.mark.parametrize("prefix", [0, 3])
def test_a_long_series_goes_on_as_it_begins(tmp_path, monkeypatch, prefix):
    data = np.random.default_rng(prefix).integers(1, 2**63, 7, dtype="u8")
    warm = np.random.default_rng(9).integers(1, 2**63, prefix, dtype="u8")
    batches = np.concatenate((warm, np.tile(data, 12)))[:80]
    expected = [0] * prefix + [step // 7 + bool(prefix) for step in range(80 - prefix)]
    assert epochs_of_a_run(tmp_path / "same", batches, monkeypatch) == expected
    assert epochs_of_a_run(tmp_path / "same", batches, monkeypatch) == (
        find_epochs(batches).epoch.tolist()
    )
    other = batches.copy()
    other[70] += 1  # far behind what was looked at
    assert epochs_of_a_run(tmp_path / "other", other, monkeypatch) == (
        find_epochs(other).epoch.tolist()
    )
    assert epochs_of_a_run(tmp_path / "none", np.arange(1, 81, dtype="u8"), monkeypatch) == [0] * 80
