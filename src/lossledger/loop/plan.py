"""Which compiled form a loop trains in: chosen by timing the first real steps."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from lossledger.errors import LossLedgerError

FORMS = {
    "loop": "many steps in one call: a loop on the device",
    "xla": "many steps in one call, the loop and its steps compiled by XLA (TensorFlow)",
    "step": "one call a step, compiled",
    "repeat": "one call a step: its operations, without the code that leads to them (PyTorch)",
    "eager": "one call a step, not compiled",
}

TARGET = 0.25
"""Seconds that one call may take: how soon Ctrl-C is heard and the progress bar moves."""

TRIAL = 8
"""Steps that are timed, after a first one that compiles."""

MORE = 8
"""So many times as many are timed next where that took less than `TARGET`: a pause of some
milliseconds, as for another thread of Python's, may have been most of it."""

MOST = 512
"""Steps that are timed at most."""

SINGLE = ("step", "repeat", "eager")
"""The forms that make one call a step."""

CLOSE = 1.2
"""Forms that take less than so many times what the fastest takes are timed again."""

TRIALS = 4
"""How often close forms are timed, by turns; the least counts: noise only adds."""

PENDING = 16
"""Calls that may be under way at once."""


@dataclass(frozen=True)
class Plan:
    """How a loop trains: the form it has settled on, and what each form took.

    Args:
        form: One of `FORMS`, or `"auto"`: the fastest, found by timing the first real steps.
        seconds: Seconds a step of each form tried, the least seen.
        compiling: Seconds of each form's first call, which compiles.
        candidates: The forms that there are for this model and data.
    """

    form: str = "auto"
    seconds: Mapping[str, float] = field(default_factory=dict[str, float])
    compiling: Mapping[str, float] = field(default_factory=dict[str, float])
    candidates: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"plan {self.form}: {FORMS.get(self.form, 'not settled yet')}"]
        for name in self.candidates:
            if name in self.seconds:
                took = f"{self.seconds[name] * 1e6:,.1f} us a step"
                took += f", first call {self.compiling[name]:.2f} s"
            else:
                took = "first call only" if name in self.compiling else "not tried"
            lines.append(f"  {name:<6} {took}")
        return "\n".join(lines)


def wanted(plan: "Plan | str") -> str:
    """The form that a user asks for by `plan=`.

    Raises:
        LossLedgerError: If it is none.
    """
    form = plan.form if isinstance(plan, Plan) else plan
    if not isinstance(form, str) or (form != "auto" and form not in FORMS):
        names = ", ".join(repr(name) for name in ("auto", *FORMS))
        raise LossLedgerError(
            f"`plan` must be one of {names}, or the plan of another loop. Received: {plan!r}.",
            slug="unknown-plan",
        )
    return form


class Planner:
    """Chooses the form of each call from how long the calls before took.

    Forms are tried on the steps that are to be trained anyway. Another one is tried only where
    what it may save over the steps left is more than compiling it takes.

    Args:
        candidates: The forms there are, the likeliest to be fastest first.
        overhead: Seconds that a call costs beside its steps, about.
        floors: Seconds that a step takes in a form at least, however small the model.
        wanted: The form to use, or `"auto"`.
    """

    def __init__(
        self,
        candidates: tuple[str, ...],
        overhead: float,
        floors: Mapping[str, float],
        wanted: str = "auto",
    ) -> None:
        self.candidates = candidates
        self.seconds: dict[str, float] = {}
        self.compiling: dict[str, float] = {}
        self._next: dict[str, int] = {}
        self._trials: dict[str, int] = {}
        self._steps: dict[str, int] = {}
        self._overhead = overhead
        self._floors = floors
        self._fixed = wanted if wanted in candidates else None

    @property
    def plan(self) -> Plan:
        """What it has come to."""
        return Plan(
            self._fixed or self._fastest(), dict(self.seconds), dict(self.compiling),
            self.candidates,
        )  # fmt: skip

    def choose(self, left: int) -> str:
        """The form of the next call.

        Args:
            left: Steps that are left to train, about.
        """
        if self._fixed:
            return self._fixed
        due = [form for form in self.compiling if self.timing(form)]
        if due:
            return min(due, key=lambda form: self._trials.get(form, 0))
        best = self._fastest()
        if best in self.seconds:
            for form in self.candidates:
                if form not in self.compiling and self._pays(form, best, left):
                    return form
        return best

    def steps(self, form: str) -> int:
        """How many steps the next call in this form should make at most."""
        if form not in self.compiling:
            return 1
        if self.timing(form):
            return self._next.get(form) or self._steps.get(form, TRIAL)
        return max(1, self._fitting(form))

    def timing(self, form: str) -> bool:
        """Whether the next call in this form is to be timed."""
        return form not in self.seconds or form in self._next or form in self._close()

    def pending(self, form: str, steps: int) -> int:
        """How many calls of so many steps may be under way: so few that Ctrl-C is heard soon."""
        if form not in self.seconds:
            return 1
        return max(1, min(PENDING, int(TARGET / 2 / (self.seconds[form] * steps))))

    def took(self, form: str, steps: int, seconds: float) -> None:
        """Note that a call in this form, waited for, took so long."""
        if form not in self.compiling:
            self.compiling[form] = seconds
            return
        self.seconds[form] = min(seconds / steps, self.seconds.get(form, float("inf")))
        wanted = self._next.get(form) or self._steps.get(form, TRIAL)
        self._next.pop(form, None)
        self._steps[form] = wanted
        self._trials[form] = self._trials.get(form, 0) + 1
        if form in ("step", "eager"):
            return
        more = min(MORE * wanted, MOST, self._fitting(form))
        if seconds < TARGET and more > wanted:
            self._next[form] = more
        elif form == "repeat" and self._trials[form] == 1:
            # What is repeated has been noted first, which takes longer.
            self._next[form] = wanted

    def leave(self, form: str) -> None:
        """Train in this form no more: it can't be had for this model."""
        self.candidates = tuple(each for each in self.candidates if each != form)
        self._fixed = None if self._fixed == form else self._fixed
        for noted in (self.seconds, self.compiling, self._next, self._trials, self._steps):
            noted.pop(form, None)

    def _fitting(self, form: str) -> int:
        """How many steps in this form fit into a call, by the least that one took."""
        return int(TARGET / max(self.seconds[form], 1e-9))

    def _fastest(self) -> str:
        if not self.seconds:
            return next(iter(self.compiling), self.candidates[0])
        return min(self.seconds, key=lambda form: self.seconds[form])

    def _close(self) -> list[str]:
        """The forms that are to be timed again: of those so close, either may be the faster."""
        least = min(self.seconds.values(), default=0.0)
        close = [form for form, took in self.seconds.items() if took < CLOSE * least]
        return [form for form in close if self._trials[form] < TRIALS] if len(close) > 1 else []

    def _pays(self, form: str, best: str, left: int) -> bool:
        """Whether a form not tried yet may save more than its compilation costs."""
        now = self.seconds[best]
        saving = min(now / 2, now - self._floors.get(form, 0.0))
        if best in SINGLE:
            # A loop saves what calls cost; it makes no step faster.
            saving = min(saving, self._overhead)
        return saving * left > max(self.compiling.values()) + TRIAL * now
