"""The gap between two described trainings, factor by factor, priced by training again."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from lossledger.call import entries_of
from lossledger.errors import LossLedgerError
from lossledger.reconciliation.result import Reconciliation
from lossledger.recorder.record import record
from lossledger.replay import outcome, shares
from lossledger.replay.description import (
    FACTORS,
    FOLLOWS,
    PLAYERS,
    UNTRAINED,
    described,
    equal,
    is_seed,
    reading,
)
from lossledger.replay.entries import Entries, read
from lossledger.run import Run
from lossledger.vectors import Floats

if TYPE_CHECKING:
    from lossledger.replay.training import Workshop

ALL_ORDERS = (6, 10)
"""Factors up to which Shapley values take all orders, those that take training and in all: so
there are 64 trainings a seed at most, and 1,024 numbers read off them."""
ORDERS = 16
"""Orders drawn at random beyond that."""
_STRIDE = 7919  # between the seeds of repeats, so that those of a and b don't meet
_COLUMNS = ("step", "loss", "weight", "rows")

Order = Literal["stated", "shapley"]


def compare(
    build: Callable[[], Any],
    data: tuple[Any, Any],
    a: Mapping[str, Any],
    b: Mapping[str, Any],
    *,
    repeat: int = 5,
    order: Order | Sequence[str] = "stated",
) -> Reconciliation:
    """Why a training described by `a` reports another loss than one described by `b`.

    Factors that differ are swapped from a to b one at a time, and each variant is trained `repeat`
    times, over seeds; what only reads the same entries otherwise isn't trained for. Repeat r adds
    r * 7919 to every seed, so that both sides and all variants are compared seed by seed.

    Args:
        build: Returns a compiled model, with new weights each time.
        data: `(x, y)`, numpy arrays; or lists or dictionaries of them, as the model takes them.
        a: What the first training does; keys of `lossledger.replay.description.FACTORS`.
        b: The same of the second.
        repeat: Trainings of each variant.
        order: In which order factors are swapped: `"stated"` (that of `FACTORS`), names of those
            that differ, or `"shapley"`: the mean over all orders, or over 16 drawn at random where
            more than 6 factors take training.

    Returns:
        The gap of the means over seeds, and a cause for each factor, with its noise. Amounts sum to
        the gap.

    Raises:
        LossLedgerError: A description, the model or the data can't be used (slugs `description`,
            `replay-build`, `replay-data`), or the replays could not be recorded
            (`replay-not-recorded`).

    Example:

    ```python
    lossledger.compare(build, (x, y), {"driver": "fit"}, {"driver": "train_on_batch"})
    ```
    """
    sides = described("a", a), described("b", b)
    if not is_seed(repeat) or repeat < 1:
        raise LossLedgerError(
            f"Each variant is trained once or more. Received: repeat={repeat!r}. Pass a whole "
            "number from 1 on.",
            slug="description",
            exit_code=2,
        )
    players = _players(*sides)
    share, how = _sharing(players, order)
    needed: dict[frozenset[str], None] = {frozenset(): None, frozenset(players): None}

    def asked(swapped: frozenset[str]) -> Floats:
        needed.setdefault(swapped)
        return np.zeros(1)

    share(asked)
    values = _values(build, data, sides, list(needed), repeat)
    found = share(lambda swapped: values[swapped])
    ends = values[frozenset()], values[frozenset(players)]
    return outcome.reconciliation(sides, found, ends, how)


def _players(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """The swaps that lead from a to b, in the stated order."""
    found = [factor.name for factor in FACTORS if not equal(a[factor.name], b[factor.name])]
    if "remainder" in found:
        found.insert(found.index("remainder") + 1, UNTRAINED)
    return found


def _sharing(
    players: Sequence[str], order: Order | Sequence[str]
) -> tuple[Callable[[shares.Value], dict[str, Floats]], str]:
    """How shares are reckoned, and the same in words."""
    if order == "stated":
        return partial(shares.in_order, players), "the swaps one after another, as listed"
    if order == "shapley":
        orders = math.factorial(len(players))
        replayed = [player for player in players if PLAYERS[player].kind == "replayed"]
        if len(replayed) <= ALL_ORDERS[0] and len(players) <= ALL_ORDERS[1]:
            return partial(
                shares.shapley, players
            ), f"Shapley value: mean over all {orders:,} orders"
        drawn = f"Shapley value, sampled: mean over {ORDERS} of {orders:,} orders, drawn at random"
        return partial(shares.sampled, players, orders=ORDERS), drawn
    named = [order] if isinstance(order, str) else list(order)
    if "remainder" in named and UNTRAINED not in named:
        named.insert(named.index("remainder") + 1, UNTRAINED)
    if sorted(named) != sorted(players):
        raise LossLedgerError(
            f"`order` must name each factor that differs. Received: {order!r}. Those that differ: "
            f'{", ".join(players) or "none"}. Or pass "stated" or "shapley".',
            slug="description",
            exit_code=2,
        )
    return partial(shares.in_order, named), "the swaps one after another, as asked for"


def _values(
    build: Callable[[], Any],
    data: tuple[Any, Any],
    sides: tuple[dict[str, Any], dict[str, Any]],
    needed: Sequence[frozenset[str]],
    repeat: int,
) -> dict[frozenset[str], Floats]:
    """The number that each set of swaps gives, float64 (repeat,)."""
    from lossledger.replay.training import Workshop

    workshop = Workshop(build, *data)
    replayed = {name for name, player in PLAYERS.items() if player.kind == "replayed"}
    trainings = list(dict.fromkeys(swapped & replayed for swapped in needed))
    states = [
        _seeded(_state(sides, swapped, workshop.rows), place)
        for swapped in trainings
        for place in range(repeat)
    ]
    entries = _train(workshop, states)
    by_training = {
        swapped: entries[place * repeat : (place + 1) * repeat]
        for place, swapped in enumerate(trainings)
    }
    values: dict[frozenset[str], Floats] = {}
    for swapped in needed:
        state = _state(sides, swapped, workshop.rows) | {"epochs": _side(sides, swapped, "epochs")}
        how = reading(state)
        values[swapped] = np.array(
            [read(each, how, state["batch_size"]) for each in by_training[swapped & replayed]]
        )
    return values


def _side(sides: tuple[dict[str, Any], dict[str, Any]], swapped: frozenset[str], key: str) -> Any:
    return sides[key in swapped][key]


def _state(
    sides: tuple[dict[str, Any], dict[str, Any]], swapped: frozenset[str], rows: int
) -> dict[str, Any]:
    """What is trained where some factors are b's: a description, and how many rows."""
    state = {factor.name: _side(sides, swapped, factor.name) for factor in FACTORS}
    state["epochs"] = max(side["epochs"] for side in sides)
    size = state["batch_size"]
    keeps = sides[UNTRAINED in swapped]["remainder"] == "keep"
    state["trained"] = rows if keeps else rows - rows % size
    if not state["trained"]:
        raise LossLedgerError(
            f"Nothing is left to train. Received: {rows:,} rows and batch_size={size} with "
            'remainder="drop". Pass a smaller batch_size.',
            slug="replay-data",
            exit_code=2,
        )
    return state


def _seeded(state: dict[str, Any], repeat: int) -> dict[str, Any]:
    """The same under the seeds of a repeat."""

    def moved(seed: Any) -> int:
        return (int(seed) + repeat * _STRIDE) % 2**32

    seed, initial = moved(state["seed"]), state["initial_weights"]
    if isinstance(initial, str) and initial == FOLLOWS:
        initial = seed
    elif is_seed(initial):
        initial = moved(initial)
    return state | {"seed": seed, "initial_weights": initial}


def _train(workshop: "Workshop", states: Sequence[dict[str, Any]]) -> list[Entries]:
    """Trains variants one after another, recorded; gives the entries of each."""
    with TemporaryDirectory(prefix="lossledger-replay-") as folder:
        with record(folder, name="replay") as recording:
            for state in states:
                workshop.train(state)
        lengths = [-(-state["trained"] // state["batch_size"]) for state in states]
        steps = [length * state["epochs"] for length, state in zip(lengths, states, strict=True)]
        columns = _recorded(recording.path)
        if len(columns["step"]) != sum(steps):
            told = "; ".join(recording.trouble.told.values()) or "their steps could not be seen"
            raise LossLedgerError(
                f"The replays could not be recorded: {told}. Received: {len(columns['step']):,} "
                f"entries of {sum(steps):,} steps. Compare a model that lossledger can record.",
                slug="replay-not-recorded",
            )
    found: list[Entries] = []
    begin = 0
    for length, count in zip(lengths, steps, strict=True):
        part = slice(begin, begin + count)
        loss, weight, rows = (columns[name][part] for name in ("loss", "weight", "rows"))
        epoch = np.arange(count) // length
        found.append(Entries(loss.astype(np.float64), weight, rows.astype(np.int64), epoch))
        begin += count
    return found


def _recorded(path: Path | None) -> dict[str, np.ndarray]:
    """Columns of all entries of a run, in the order of their steps."""
    blocks: list[Mapping[str, np.ndarray]] = []
    if path is not None:
        run = Run(path)
        blocks = [block for _, block in entries_of(run.path, run.calls, _COLUMNS)]
    columns = {
        name: np.concatenate([np.empty(0), *(block[name] for block in blocks)]) for name in _COLUMNS
    }
    order = np.argsort(columns["step"], kind="stable")
    return {name: column[order] for name, column in columns.items()}
