"""The demonstration's outputs: text for a person, and one JSON object."""

import json
from collections.abc import Sequence

import numpy as np

from lossledger.demo.findings import Findings, Statement
from lossledger.demo.programs import DROPPED, EPOCHS, FIT, RAW, UNSHUFFLED
from lossledger.render.base import Options, Renderer
from lossledger.render.figures import count
from lossledger.render.terminal import Column, Page

_MEANS = {
    "raw": "the raw losses themselves, no average at all",
    "epoch_mean": "the mean in which every row weighs the same",
    "batch_mean": "the plain mean, in which every batch weighs the same",
}


class JsonDemo(Renderer[Findings]):
    """The numbers behind the text."""

    def render(self, content: Findings) -> str:
        """Gives the object."""
        return json.dumps(content.plain(), indent=2, ensure_ascii=False, allow_nan=False)


class TerminalDemo(Renderer[Findings]):
    """What the programs printed, the statements side by side, and what to conclude.

    Args:
        options: On what to show it.
        program: How the reader calls this program.
    """

    def __init__(self, options: Options, program: str = "lossledger") -> None:
        super().__init__(options)
        self.program = program

    def render(self, content: Findings) -> str:
        """Gives the text."""
        page = Page(self.options)
        _head(page, content)
        _table(page, list(content.trainings.values()))
        page.title("What to conclude")
        conclusions = (_averages, _calmer, _weight, _dropped, _order, _final)
        for conclude in conclusions:
            page.space()
            page.fact(*conclude(content))
        page.space()
        page.fact("scale", _scale(content))
        self._next(page, content)
        return page.text()

    def _next(self, page: Page, content: Findings) -> None:
        runs = {name: each.path for name, each in content.trainings.items()}
        page.title("Next")
        page.line("programs", content.programs)
        page.line("try", f"{self.program} list {content.directory}")
        page.line("", f"{self.program} show {runs[FIT.name]}")
        page.line("", f"{self.program} show {runs[RAW.name]} --epoch 0")
        page.line("", f"{self.program} run your_program.py")


def _head(page: Page, content: Findings) -> None:
    rows = content.trainings[FIT.name].last.rows
    page.title(f"One model, {count(len(content.trainings), 'training')}, many a loss")
    page.fact(
        "recorded",
        f"Keras {content.keras} on {content.backend}: each program as it is, by `lossledger run`. "
        f"The same {rows:,} rows, the same initial weights.",
    )


def _table(page: Page, statements: Sequence[Statement]) -> None:
    page.title("The last epoch of each")

    def losses(header: str, values: Sequence[float], rank: int = 0) -> Column:
        return Column(header, [f"{value:.6f}" for value in values], rank)

    last = [each.last for each in statements]
    page.table(
        [
            Column("program", [_label(each) for each in statements], left=True),
            Column("steps", [f"{each.steps:,}" for each in last], 2),
            Column("rows", [f"{each.rows:,}" for each in last], 3),
            Column("printed", [_printed(each) for each in statements]),
            losses("epoch_mean", [each.epoch_mean for each in last]),
            losses("batch_mean", [each.batch_mean for each in last]),
            Column("std", [f"{each.std:.4f}" for each in last], 1),
        ]
    )
    page.space()
    page.fact("epoch_mean", "every row weighs the same: sum(rows x loss) / sum(rows)")
    page.fact("batch_mean", "every batch weighs the same: sum(loss) / batches")
    page.fact("std", "standard deviation of the raw losses, from batch to batch")


def _label(statement: Statement) -> str:
    return f"  {statement.option}" if statement.option else statement.name


def _printed(statement: Statement) -> str:
    if len(statement.printed) > statement.epochs:
        return f"{len(statement.printed)} raw"
    return f"{statement.printed[-1]:.6f}"


def _averages(content: Findings) -> tuple[str, str]:
    fit, epochs, raw = (content.trainings[each.name] for each in (FIT, EPOCHS, RAW))
    return "printed", (
        f'Two programs print an "average loss", by two averages. {fit.program} printed '
        f"{fit.printed[-1]:.6f}: {_named(fit)}. {epochs.program} printed "
        f"{epochs.printed[-1]:.6f}: {_named(epochs)} ({count(len(epochs.printed), 'line')} "
        f"compared). {raw.program} printed {len(raw.printed)} numbers: {_named(raw)}."
    )


def _named(statement: Statement) -> str:
    names = statement.statistics
    if not names:
        return "none of the statistics of its entries"
    return " and ".join([f"{names[0]}, {_MEANS.get(names[0], 'as in the table')}", *names[1:]])


def _calmer(content: Findings) -> tuple[str, str]:
    calm = content.calm
    return "calm", (
        f"Raw losses jump: those of {RAW.program}.py lie between {calm.low:.3f} and "
        f"{calm.high:.3f}, with a standard deviation of {calm.std:.4f}. The running mean of the "
        f"very same losses, which is what fit shows while it trains, has {calm.running_std:.4f}: "
        f"it looks {calm.ratio:.1f} times calmer ({calm.fit_ratio:.1f} times over the epochs of "
        f"{FIT.program}.py). The training is no smoother for it."
    )


def _weight(content: Findings) -> tuple[str, str]:
    found = content.remainder
    return "weighting", (
        f"As a plain mean of its batches, fit's {found.epoch_mean:.6f} would have been "
        f"{found.batch_mean:.6f}, {_apart(found.gap)}. The last of its {found.batches} batches "
        f"has {found.rows} rows and a loss of {found.loss:.6f}: it makes {found.plain_share:.1%} "
        f"of a plain mean, and {found.rows_share:.1%} where rows count."
    )


def _dropped(content: Findings) -> tuple[str, str]:
    found = content.dropped
    return "remainder", (
        f"{DROPPED.option} leaves {found.rows} rows out of each epoch, and that changes two "
        f"things. The mean: without its last batch, the last epoch of {EPOCHS.program}.py gives "
        f"{found.without_last:.6f} and not {found.whole:.6f}, {_apart(found.in_mean)}, with not "
        f"one weight changed. The training: over as many batches the program that never trained "
        f"on the remainder gives {found.trained_without:.6f}, {_apart(found.in_training)} than "
        f"those. Their first {found.equal_steps} losses are equal bit by bit; then the two "
        f"trainings part."
    )


def _order(content: Findings) -> tuple[str, str]:
    found = content.order
    return "order", (
        f"{UNSHUFFLED.option} gives every epoch the same batches in the same order. Its last "
        f"epoch_mean is {found.b:.6f}, shuffled it is {found.a:.6f}: {_apart(found.gap)} by the "
        f"order alone, with the same rows and the same initial weights."
    )


def _final(content: Findings) -> tuple[str, str]:
    found, steps = content.final, content.trainings[FIT.name].last.steps
    return "weights", (
        f"fit's last average, {found.a:.6f}, is not the loss of the weights that it ended with: "
        f"they moved {steps} times while it was taken. Measured on the same rows by evaluate, "
        f"the final weights have {found.b:.6f}, {_apart(found.gap)}."
    )


def _scale(content: Findings) -> str:
    return (
        f"To judge such gaps: from one epoch to the next fit's average moved by "
        f"{_size(content.progress)} in the mean. A gap of that size between two tools looks like "
        f"an epoch of training more or less. (One seed: another one gives other numbers.)"
    )


def _apart(gap: float) -> str:
    if gap == 0:
        return "exactly as much"
    return f"{_size(gap)} {'higher' if gap > 0 else 'lower'}"


def _size(gap: float) -> str:
    """Two significant digits, never with an exponent."""
    return np.format_float_positional(abs(gap), precision=2, fractional=False, trim="-")
