"""`lossledger reconcile`: why two losses differ, cause by cause."""

import argparse
import math
import sys

from lossledger.cli.command import Command, add_steps_per_epoch, whole_number
from lossledger.cli.configuration import configuration


class ReconcileCommand(Command):
    """Prints the gap between two losses, and what it is made of."""

    name = "reconcile"
    help = "split the gap between two losses into its causes"
    description = (
        "Split the gap between two losses, b - a, into named causes that sum to it.\n"
        "A and B are RUN[@SELECTION][:STATISTIC]. The statistic is by default what the run's\n"
        "driver reports: epoch_mean of fit, batch_mean of a loop. Or FILE[:SERIES], a file that\n"
        "lossledger explain reads."
    )
    examples = """\
examples:
  lossledger reconcile fit loop                        what each of them reports
  lossledger reconcile latest:epoch_mean latest:batch_mean
  lossledger reconcile latest:reported latest:ema:beta=0.98 --epoch 3
  lossledger reconcile runs/a@0 runs/a@1               two calls of one run
  lossledger reconcile fit@epoch=0,batch=5:running_mean fit@epoch=0,batch=5:raw
  lossledger reconcile fit@loss=data fit               without its penalty
  lossledger reconcile training.log latest:batch_mean  a Keras CSVLogger file against a run
  lossledger reconcile main this-branch --repeat 5     is it more than chance?
  lossledger reconcile main this-branch --fail-over 1e-4    a gate: exit status 3

selections, between commas:
  N or call=N, model=N, epoch=E, batch=B (up to that batch), every=K (a log's stride),
  loss=data or loss=a_loss+b_loss, weight=rows|one|elements|sample_weight, finite

statistics:
  raw, running_mean, epoch_mean, batch_mean, cumulative_mean, progress_bar, window_mean, ema,
  last; reported (what was shown), returned (by train_on_batch), evaluate, tested
  (by test_on_batch), val_loss
"""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declares the two numbers, the gate and the form."""
        parser.add_argument("a", metavar="A", help="the number to start from")
        parser.add_argument("b", metavar="B", help="the number to arrive at")
        parser.add_argument(
            "--epoch",
            type=whole_number(),
            default=-1,
            metavar="E",
            help="of both; -1, the last, by default",
        )
        parser.add_argument(
            "--across", action="store_true", help="go on where the two may not be compared"
        )
        parser.add_argument(
            "--repeat",
            type=whole_number(1),
            metavar="N",
            help="train both recorded scripts again under N seeds: is the gap larger than chance?",
        )
        parser.add_argument(
            "--fail-over",
            type=_size,
            metavar="GAP",
            help="exit with status 3 where the gap is larger than this, or is no number",
        )
        add_steps_per_epoch(parser)
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def run(self, options: argparse.Namespace) -> int:
        """Prints the reconciliation to standard output."""
        from lossledger.cli import output
        from lossledger.reconciliation.main import reconcile

        with output.working():
            result = reconcile(
                options.a,
                options.b,
                epoch=options.epoch,
                across=options.across,
                directory=configuration().directory,
                steps_per_epoch=options.steps_per_epoch,
            )
        if options.repeat:
            from lossledger.replay.scripts import again

            result = again(
                result,
                (options.a, options.b),
                options.repeat,
                tell=lambda line: print(line, file=sys.stderr, flush=True),
                directory=configuration().directory,
                epoch=options.epoch,
                steps_per_epoch=options.steps_per_epoch,
            )
        if options.json:
            from lossledger.render.reconciliation import JsonReconciliation as Show
        else:
            from lossledger.render.reconciliation import TerminalReconciliation as Show
        output.write(Show(output.options()).render(result))
        if not result.comparable and not options.across:
            return 1
        # No number is larger than NaN, and a gate must not let it pass.
        limit = options.fail_over
        return 3 if limit is not None and not abs(result.gap) <= limit else 0


def _size(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not value >= 0 or math.isinf(value):
        raise argparse.ArgumentTypeError(f"not a number from 0 on. Received: {text!r}")
    return value
