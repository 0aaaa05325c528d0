"""The demonstration's outputs: text for a person, and one JSON object."""

from collections.abc import Sequence

from lossledger.demo.findings import Findings, Statement
from lossledger.demo.programs import DROPPED, EPOCHS, FIT, RAW, UNSHUFFLED
from lossledger.render.base import Options, Renderer
from lossledger.render.objects import to_json
from lossledger.render.terminal import Column, Page
from lossledger.words import counted

_MEANINGS = {
    "raw": "each batch's own loss, averaged over nothing",
    "epoch_mean": "the mean in which every row weighs the same",
    "batch_mean": "the mean in which every batch weighs the same",
}


class JsonDemo(Renderer[Findings]):
    """The numbers behind the text."""

    def render(self, content: Findings) -> str:
        """Gives the object."""
        return to_json(content.plain())


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
        for conclude in (
            _printed,
            _gap,
            _calm,
            _weighting,
            _remainder,
            _order,
            _final,
            _scale,
            _short,
        ):
            page.space()
            page.fact(*conclude(content))
        self._next(page, content)
        return page.text()

    def _next(self, page: Page, content: Findings) -> None:
        runs = content.trainings
        page.title("Next")
        page.line("programs", content.programs)
        page.line("try", f"{self.program} list {content.directory}")
        page.line("", f"{self.program} show {runs[FIT.name].shown}")
        page.line("", f"{self.program} show {runs[RAW.name].shown} --epoch 0")
        page.line("", f"{self.program} run your_program.py")


def _head(page: Page, content: Findings) -> None:
    fit = content.trainings[FIT.name]
    page.title("One small model, trained in five ways")
    page.fact(
        "recorded",
        f"Each program as it is, under `lossledger run`, with Keras {content.keras} on "
        f"{content.backend}: the same {fit.last.rows:,} rows and the same initial weights, "
        f"{counted(fit.epochs, 'epoch')} ({content.trainings[RAW.name].program}: 1).",
    )


def _table(page: Page, statements: Sequence[Statement]) -> None:
    page.title("The last epoch of each")

    def losses(header: str, values: Sequence[float]) -> Column:
        return Column(header, [f"{value:.6f}" for value in values])

    last = [each.last for each in statements]
    page.table(
        [
            Column("program", [_label(each) for each in statements], left=True),
            Column("steps", [f"{each.steps:,}" for each in last], 2),
            Column("rows", [f"{each.rows:,}" for each in last], 3),
            Column("printed", [_last_printed(each) for each in statements]),
            losses("epoch_mean", [each.epoch_mean for each in last]),
            losses("batch_mean", [each.batch_mean for each in last]),
            Column("std", [f"{each.std:.4f}" for each in last], 1),
        ]
    )
    page.space()
    page.fact("epoch_mean", "every row weighs the same: sum(rows x loss) / sum(rows)")
    page.fact("batch_mean", "every batch weighs the same: sum(loss) / batches")
    page.fact(f"{'std':10}", "standard deviation of the raw losses, from batch to batch")


def _label(statement: Statement) -> str:
    return f"  {statement.option}" if statement.option else statement.name


def _last_printed(statement: Statement) -> str:
    if len(statement.printed) > statement.epochs:
        return f"{len(statement.printed)} losses"
    return f"{statement.printed[-1]:.6f}"


def _printed(content: Findings) -> tuple[str, str]:
    fit, epochs, raw = (content.trainings[each.name] for each in (FIT, EPOCHS, RAW))
    off = _off(fit) or _off(epochs)
    rounded = "; where the last one differs, that is Keras's float32 rounding" if off else ""
    return "printed", (
        f'Two programs print an "average loss". {fit.program} printed {fit.printed[-1]:.6f}: '
        f"that is {_named(fit)}. {epochs.program} printed {epochs.printed[-1]:.6f}: that is "
        f"{_named(epochs)} (so in all of its {len(epochs.printed)} lines). {raw.program} printed "
        f"{len(raw.printed)} losses: {_named(raw)}. Each was compared with every statistic of "
        f"its run, to six decimals{rounded}."
    )


def _off(statement: Statement) -> bool:
    """Whether the last digit of what was printed is another than that of the statistic it is."""
    value = getattr(statement.last, next(iter(statement.statistics), ""), None)
    return value is not None and f"{value:.6f}" != f"{statement.printed[-1]:.6f}"


def _named(statement: Statement) -> str:
    names = statement.statistics
    if not names:
        return "no statistic of its entries"
    meaning = _MEANINGS.get(names[0])
    return " and ".join([f"{names[0]}, {meaning}" if meaning else names[0], *names[1:]])


def _gap(content: Findings) -> tuple[str, str]:
    fit, epochs = (content.trainings[each.name].last for each in (FIT, EPOCHS))
    weighting = _minus(epochs.batch_mean, epochs.epoch_mean)
    order = _minus(epochs.epoch_mean, fit.epoch_mean)
    total = _minus(epochs.batch_mean, fit.epoch_mean)
    return "their gap", (
        f"The batch_mean of {EPOCHS.program}, {epochs.batch_mean:.6f}, less the epoch_mean of "
        f"{FIT.program}, {fit.epoch_mean:.6f}, is {total:+.6f}. Of that {weighting:+.6f} is the "
        f"other average (its own batch_mean less its own epoch_mean), and {order:+.6f} the "
        f"training (epoch_mean less epoch_mean: the two shuffle differently). The two add up, "
        f"and nothing is left over."
    )


def _calm(content: Findings) -> tuple[str, str]:
    calm = content.calm
    return "calm", (
        f"Raw losses jump: those of {RAW.program}.py lie between {calm.low:.3f} and "
        f"{calm.high:.3f}, with a standard deviation of {calm.std:.4f}. The running mean of the "
        f"very same losses, which is what fit shows while it trains, has {calm.running_std:.4f}: "
        f"it looks {calm.ratio:.1f} times calmer ({calm.fit_ratio:.1f} times over all epochs of "
        f"{FIT.program}.py). The averages are calm; the training is not."
    )


def _weighting(content: Findings) -> tuple[str, str]:
    found = content.remainder
    return "weighting", (
        f"As a plain mean of its batches, fit's {found.epoch_mean:.6f} would have been "
        f"{found.batch_mean:.6f}, {_apart(found.batch_mean, found.epoch_mean)}. The last of its "
        f"{found.batches} batches has only {found.rows} rows (loss {found.loss:.6f}): it makes "
        f"{found.plain_share:.1%} of a mean of batches, and {found.rows_share:.1%} of a mean of "
        f"rows."
    )


def _remainder(content: Findings) -> tuple[str, str]:
    found = content.dropped
    return "remainder", (
        f"{DROPPED.option} leaves {found.rows} rows out of each epoch, and that changes two "
        f"things. The mean: the last epoch of {EPOCHS.program}.py without its last batch gives "
        f"{found.without_last:.6f} and not {found.whole:.6f}, "
        f"{_apart(found.without_last, found.whole)}, from the very same training. The training: "
        f"a model that never trained on the rest has {found.trained_without:.6f} over the same "
        f"batches, {_apart(found.trained_without, found.without_last)}. The first "
        f"{found.equal_steps} losses of both are equal, bit by bit; there the trainings part."
    )


def _order(content: Findings) -> tuple[str, str]:
    found = content.order
    return "order", (
        f"{UNSHUFFLED.option} gives every epoch the same batches in the same order. Its last "
        f"epoch_mean is {found.b:.6f}; shuffled, it is {found.a:.6f}. That is "
        f"{_apart(found.b, found.a)}, by the order alone: the rows and the initial weights are "
        f"the same."
    )


def _final(content: Findings) -> tuple[str, str]:
    found, steps = content.final, content.trainings[FIT.name].last.steps
    return "weights", (
        f"fit's last average, {found.a:.6f}, is not the loss of the weights that it ended with: "
        f"they moved {steps} times while it was taken. Held still and measured by evaluate, on "
        f"the same rows, they have {found.b:.6f}, {_apart(found.b, found.a)}."
    )


def _scale(content: Findings) -> tuple[str, str]:
    return "scale", (
        f"Is that much? From one epoch to the next, fit's average moved by "
        f"{abs(content.progress):.6f} in the mean. A gap of that size, which no training caused, "
        f"reads like one epoch more or less. All of it is one seed on random labels: other data "
        f"give other numbers, and these causes."
    )


def _short(content: Findings) -> tuple[str, str]:
    return "in short", (
        "A loss has a value only together with the name of its statistic. Compare epoch_mean "
        "with epoch_mean or raw with raw, over the same rows: what is then left of a gap is a "
        "difference of the trainings."
    )


def _minus(a: float, b: float) -> float:
    """The difference of two losses as they are shown, so that a reader's own sum agrees."""
    return round(a, 6) - round(b, 6)


def _apart(a: float, b: float) -> str:
    gap = _minus(a, b)
    if abs(gap) < 5e-7:
        return "the same to six decimals"
    return f"{abs(gap):.6f} {'higher' if gap > 0 else 'lower'}"
