"""What is known of two numbers beside their folds: what differs, and what stood still."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from lossledger.call import Call
from lossledger.entry import OF_EPOCHS
from lossledger.reconciliation.align import begins_anew, drops_remainder, same_rows
from lossledger.reconciliation.comparable import differences
from lossledger.reconciliation.compiled import (
    BY_WEIGHTS,
    MEANS,
    layers_of,
    losses_of,
    outputs_of,
    reduction_of,
    same_functions,
)
from lossledger.reconciliation.data import arrays_of, first_epochs, form_of, reorders, shuffles
from lossledger.reconciliation.factors import factors
from lossledger.reconciliation.moves import SAME, near
from lossledger.reconciliation.parting import begins_in, first_step, training_ids
from lossledger.reconciliation.parts import weights_in
from lossledger.reconciliation.reading import Reading
from lossledger.reconciliation.result import Difference
from lossledger.reconciliation.weights import begin_alike, stood_still
from lossledger.restored import draws

ROUNDS = ("precision", "compilation", "backend", "keras_version")
"""Causes that may be a matter of rounding."""

_OWN = ("custom_train_step", "custom_compute_loss")
_UPDATES = r"arguments\.batch_size|optimizer|gradient_accumulation_steps"
"""Hyperparameters that a mean over rows at weights that stand still doesn't depend on."""
_BESIDE_A_MODEL = "arguments|versions|environment|device"
_OF_ARRAYS = ("arguments.batch_size", "arguments.shuffle")
_CUTS = ("arguments.epochs", "arguments.initial_epoch")  # of one training into calls
_MEASURING = r"arguments\.validation_(steps|batch_size|data)"


@dataclass(frozen=True, eq=False)
class Pair:
    """Two numbers that are reconciled.

    Args:
        a: The first.
        b: The second.
    """

    a: Reading
    b: Reading

    @cached_property
    def same_run(self) -> bool:
        """Whether both are of one run."""
        return self.a.run.path.resolve() == self.b.run.path.resolve()

    @cached_property
    def same_call(self) -> bool:
        """Whether both are of one call."""
        return self.same_run and self.a.call.number == self.b.call.number

    @cached_property
    def same_entries(self) -> bool:
        """Whether both are of one epoch of one call."""
        return self.same_call and self.a.epoch == self.b.epoch

    @cached_property
    def differences(self) -> tuple[Difference, ...]:
        """What the records of the two calls say differently, and of those that led to them."""
        if self.same_call:
            return ()
        found = differences((self.a.run, self.a.call), (self.b.run, self.b.call))
        names = {"initial_weights", *_CUTS, *(each.name for each in found)}
        for one, other in self._before:
            more = differences((self.a.run, one), (self.b.run, other))
            found += tuple(each for each in more if each.name not in names)
            names |= {each.name for each in more}
        return found

    @cached_property
    def _before(self) -> list[tuple[Call, Call]]:
        """The calls of both trainings that trained the same steps, before those of the numbers."""
        if not self.same_start:
            return []
        ends = [np.cumsum([call.steps for call in each.calls]) for each in (self.a, self.b)]
        begins = np.unique(np.concatenate([[0], *(each[:-1] for each in ends)]))
        pairs: list[tuple[Call, Call]] = []
        for step in begins[begins < min(each[-1] for each in ends)].tolist():
            places = [int(np.searchsorted(each, step, side="right")) for each in ends]
            pairs.append((self.a.calls[places[0]], self.b.calls[places[1]]))
        return [each for each in pairs if each != (self.a.call, self.b.call)]

    @cached_property
    def factors(self) -> Mapping[str, list[str]]:
        """The causes that the differences could be, each with the names of its differences."""
        found = self.differences
        if not all(each.call.configuration for each in (self.a, self.b)):
            # A loop of the user's says nothing of its model.
            found = [e for e in found if re.match(_BESIDE_A_MODEL, e.name)]
        if not self.arrays:
            # A data set has batches and an order of its own, which the entries show.
            found = [e for e in found if e.name not in _OF_ARRAYS]
        causes = factors(found, self.other_functions, self.other_outputs)
        if self._divide_alike:
            causes.pop("reduction", None)
        if self.own_weights:
            causes["loss_weights"] = ["the weights by which a step adds its losses"]
        return causes

    @property
    def _divide_alike(self) -> bool:
        """Whether both reductions are means, which differ by sample weights, and a side has none.

        Its reduction could as well be the other's.
        """
        sides = self.a, self.b
        means = all(reduction_of(each.call) in (*MEANS, BY_WEIGHTS) for each in sides)
        return means and any(each.weightless for each in sides)

    @cached_property
    def own_weights(self) -> list[dict[str, float]]:
        """The weights by which a step of each side's own adds its losses, where they differ."""
        sides = [e for e in (self.a, self.b) if any(map(e.call.configuration.get, _OWN))]
        if self.same_call or len(sides) < 2:
            return []
        found = [weights_in(e.fold.ledger, outputs_of(e.call)) for e in sides if e.fold]
        if len(found) < 2 or not all(found) or found[0].keys() != found[1].keys():
            return []
        return [] if all(near(found[0][name], found[1][name]) for name in found[0]) else found

    @cached_property
    def _firsts(self) -> list[dict[str, Any]]:
        """The entries of both trainings' first steps; empty of one without."""
        return [first_step(*each.training) or {} for each in (self.a, self.b)]

    @cached_property
    def other_rates(self) -> bool:
        """Whether the first steps' learning rates differ, by whatever set them."""
        rates = [each.get("learning_rate", math.nan) for each in self._firsts]
        return all(map(math.isfinite, rates)) and not near(rates[0], rates[1])

    @cached_property
    def other_penalties(self) -> bool:
        """Whether the first step, on one batch, adds other penalties to one data term."""
        ours, theirs = self._firsts
        if not self.same_start or self.same_call or not ours or not theirs or not self.same_form:
            return False
        data = [each["loss"] - each["penalty"] for each in (ours, theirs)]
        limit = SAME * max(abs(ours["loss"]), abs(theirs["loss"]))
        apart = abs(ours["penalty"] - theirs["penalty"])
        same = ours["batch_id"] == theirs["batch_id"] != 0 and abs(data[0] - data[1]) <= limit
        return same and apart > limit

    @cached_property
    def other_functions(self) -> bool:
        """Whether the two were compiled with losses that are different functions."""
        return not same_functions(self.a.call, self.b.call)

    @cached_property
    def other_outputs(self) -> bool:
        """Whether an output has a loss on one side only."""
        losses = [losses_of(each.call) for each in (self.a, self.b)]
        none = [[each is None for each in found or ()] for found in losses]
        return None not in losses and none[0] != none[1] and not self.other_functions

    @cached_property
    def other_losses(self) -> tuple[str, ...]:
        """Why two named losses of several outputs may not be compared; empty where they may."""
        names = [each.fold.form.loss for each in (self.a, self.b) if each.fold]
        if len(set(names)) < 2 or {"loss", "data"} & set(names):
            return ()
        return (f"The numbers are of different outputs' losses: {names[0]} in a, {names[1]} in b.",)

    @cached_property
    def measuring(self) -> list[str]:
        """Names of the differences in how a validation loss was measured."""
        return [each.name for each in self.differences if re.match(_MEASURING, each.name)]

    @cached_property
    def same_start(self) -> bool:
        """Whether both trainings began from the same weights."""
        if self.same_call:
            return True
        ours, theirs = (each.names[0] for each in (self.a, self.b))
        return bool(ours) and (ours == theirs or (bool(theirs) and self._begin_alike))

    @cached_property
    def _begin_alike(self) -> bool:
        sides = [(each.run, each.calls[0]) for each in (self.a, self.b)]
        return begin_alike(sides[0], sides[1])

    @cached_property
    def held(self) -> bool:
        """Whether all entries of both epochs are of the same weights.

        They are where both calls began from the same and neither moved them; and in a first step.
        """
        if not self.same_start:
            return False
        return all(
            all(map(stood_still, each.calls)) or (each.steps == 1 and each.fold is not None)
            for each in (self.a, self.b)
        )

    @cached_property
    def any_batches(self) -> bool:
        """Whether a mean over rows, or over valid targets, is of one value however they are cut.

        It is at weights that stand still, unless something draws random numbers, normalizes by a
        batch, or is a loss of the whole batch.
        """
        names = self.factors.get("hyperparameters", [])
        if not self.held or self.noisy or not all(re.match(_UPDATES, name) for name in names):
            return False
        calls = [each.call for each in (self.a, self.b)]
        normalizes = any("momentum" in layer for call in calls for layer in layers_of(call))
        return not (normalizes and names) and all(call.losses_per_row != 0 for call in calls)

    @cached_property
    def noisy(self) -> bool:
        """Whether a layer draws random numbers in training on either side, as far as is known."""
        layers = [layer for each in (self.a, self.b) for layer in layers_of(each.call)]
        return any(map(draws, layers))

    @cached_property
    def seeds_differ(self) -> bool:
        """Whether the seeds that were set differ, as far as this Keras tells."""
        return any(each.name == "seed" for each in self.differences)

    @cached_property
    def shuffled(self) -> bool:
        """Whether both calls drew the order of their rows at random."""
        return all(shuffles(each.call) or reorders(each) for each in (self.a, self.b))

    @cached_property
    def any_shuffled(self) -> bool:
        """Whether one of the calls drew the order of its rows at random."""
        return any(shuffles(each.call) for each in (self.a, self.b))

    @cached_property
    def drawn_alike(self) -> bool:
        """Whether both drew the order of their rows, by one seed, before anything else did."""
        sides = (self.a, self.b)
        seeds = {each.call.configuration.get("seed") for each in sides}
        first = all(each.calls[0].number == 0 for each in sides) and not self.same_run
        return self.shuffled and self.arrays and first and len(seeds) == 1 and None not in seeds

    @cached_property
    def without_remainder(self) -> bool:
        """Whether the one drops a remainder that the other has.

        Then rows in another order are not the same rows, either.
        """
        rows = [each.fold.ledger["rows"] for each in (self.a, self.b) if each.fold]
        if len(rows) < 2 or self.same_data is False or not all(map(len, rows)):
            return False
        return drops_remainder(*rows) or drops_remainder(*rows[::-1])

    @cached_property
    def forgets_penalty(self) -> bool:
        """Whether one side's first loss is the other's data term, and has no penalty on record."""
        firsts = self._firsts
        if self.same_call or not all(firsts):
            return False
        ids = {each["batch_id"] for each in firsts if each["batch_id"]}
        return len(ids) < 2 and any(
            math.isnan(other["penalty"])
            and near(known["loss"] - known["penalty"], other["loss"])
            and not near(known["loss"], other["loss"])
            for known, other in (firsts, firsts[::-1])
        )

    @cached_property
    def wraps(self) -> str:
        """Which side's epochs go on past the end of the data, and begin anew in them; "" if none.

        It has more rows than the other, which holds all of the data: as the sums of its batches
        show. Or as arguments do: the other has all of its array's, a number of steps ends its
        epochs, and they don't hold the same rows.
        """
        for name, more, less in (("a", self.a, self.b), ("b", self.b, self.a)):
            ledgers = [each.fold.ledger for each in (more, less) if each.fold]
            counts = [int(ledger["rows"].sum()) for ledger in ledgers]
            if len(counts) < 2 or counts[0] <= counts[1]:
                continue
            if begins_anew(*(ledger[key] for ledger in ledgers for key in ("batch_id", "rows"))):
                return name
            given = arrays_of(less.call.arguments.get("x"))
            whole = bool(given) and (given[0].get("shape") or [None])[0] == counts[1]
            told = more.call.arguments.get("steps_per_epoch") or more.call.driver not in OF_EPOCHS
            if told and whole:
                ids = first_epochs(more)
                return name if len(ids[1]) == len(ids[0]) and not same_rows(*ids) else ""
        return ""

    @cached_property
    def cut_short(self) -> bool:
        """Whether both epochs are pieces of one training, ended by a number of steps, not the data.

        The one holds other rows than the other then, because it lies elsewhere in the same data.
        """
        sides = [each for each in (self.a, self.b) if each.call.arguments.get("steps_per_epoch")]
        if len(sides) < 2 or not all(each.fold for each in sides):
            return False
        return self.same_call or any(
            bool(np.isin(one.fold.ledger["batch_id"], training_ids(*other.training)).all())
            for one, other in (sides, sides[::-1])
            if one.fold
        )

    @cached_property
    def same_data(self) -> bool | None:
        """Whether both calls were given data of one shape; `None` where a call doesn't say.

        Data sets don't: other ones may be made of the same rows.
        """
        shapes = [each.call.arguments.get("x") for each in (self.a, self.b)]
        whole = all(each.call.driver in OF_EPOCHS for each in (self.a, self.b))
        same = shapes[0] == shapes[1]
        return same if whole and None not in shapes and (same or self.arrays) else None

    @cached_property
    def arrays(self) -> bool:
        """Whether both calls were given arrays, which they cut into batches themselves."""
        given = [each.call.arguments.get("x") for each in (self.a, self.b)]
        return all(isinstance(each, Mapping | list) for each in given)

    @cached_property
    def targets(self) -> Sequence[Mapping[str, Any]]:
        """What is said of the targets of each side, where they are one array."""
        found = [arrays_of(each.call.arguments.get("y")) for each in (self.a, self.b)]
        return [each[0] if len(each) == 1 else {} for each in found]

    @cached_property
    def same_form(self) -> bool:
        """Whether fingerprints of both sides' batches are of values in one form.

        Integers and floats hash otherwise, floats of 16 bits as what they were rounded to, and
        classes as integers otherwise than as one number each.
        """
        forms = [form_of(each.call) for each in (self.a, self.b)]
        return None in forms or forms[0] == forms[1]

    @cached_property
    def begins(self) -> tuple[int, int] | None:
        """Steps that each training's lie behind, where one began within the other; else `None`.

        As where it was resumed, from weights that the other's call had on its way.
        """
        if not all(each.names[0] for each in (self.a, self.b)) or self.same_start or self.goes_on:
            return None
        for one, other in ((self.a, self.b), (self.b, self.a)):
            wholes = [
                (each.run, each.calls, sum(c.steps for c in each.calls)) for each in (one, other)
            ]
            place = begins_in(*wholes, ids=self.same_form)
            if place is not None:
                return (0, place) if one is self.a else (place, 0)
        return None

    @property
    def begun(self) -> str:
        """Which training began within the other, in words."""
        place = max(self.begins or (0,))
        inner, outer = "ab" if self.begins and self.begins[0] else "ba"
        return f"{inner} begins with step {place:,} of {outer}"

    @cached_property
    def spans(self) -> tuple[str, str]:
        """The steps of each epoch, of the training that both are, where they are one."""
        ahead = self.begins or (0, 0)
        return self.a.span(ahead[0]), self.b.span(ahead[1])

    @cached_property
    def goes_on(self) -> str:
        """Which side's call began with the weights that the other's ended with; "" if none."""
        if self.same_run:
            later = [{call.number for call in each.before} for each in (self.a, self.b)]
            if self.a.call.number in later[1]:
                return "b"
            return "a" if self.b.call.number in later[0] else ""
        if self.same_start:
            return ""
        if self.b.names[0] and self.b.names[0] == self.a.names[1]:
            return "b"
        return "a" if self.a.names[0] and self.a.names[0] == self.b.names[1] else ""
