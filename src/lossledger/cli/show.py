"""`lossledger show`: what one run says of each epoch."""

import argparse
import sys
from typing import TYPE_CHECKING

from lossledger.cli.command import (
    Command,
    add_run,
    add_steps_per_epoch,
    opened,
    usage,
    whole_number,
)

if TYPE_CHECKING:
    from lossledger.render.base import Options
    from lossledger.run import Run


class ShowCommand(Command):
    """Prints one run."""

    name = "show"
    help = "show a run, epoch by epoch"
    description = (
        "Show a run: a line an epoch, with the raw losses, every mean of them, what was\n"
        "reported, and which of them the reported number is."
    )
    examples = """\
examples:
  lossledger show                             the newest run
  lossledger show latest~1                    the one before it
  lossledger show baseline                    by name
  lossledger show runs/2026-11-22_18-38-54-train --epoch -1
  lossledger show --statistic ema:beta=0.9 --statistic window_mean:n=10
  lossledger show --follow                    while it trains, until it ends
  lossledger show --json | jq '.calls[0].epochs[-1].epoch_mean'

statistics:
  raw, running_mean, epoch_mean, batch_mean, cumulative_mean, progress_bar, window_mean, ema,
  last, evaluate
"""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declares the run, what to show of it, and the form."""
        add_run(parser)
        parser.add_argument(
            "--epoch",
            type=whole_number(),
            metavar="E",
            help="only this epoch, step by step; -1 is the last",
        )
        parser.add_argument("--call", type=whole_number(0), metavar="N", help="only this call")
        parser.add_argument(
            "--model", type=whole_number(0), metavar="N", help="only calls of this model"
        )
        parser.add_argument(
            "--statistic",
            action="append",
            default=[],
            metavar="S",
            help="add a statistic, as name or name:parameter=value; may be given several times",
        )
        add_steps_per_epoch(parser)
        parser.add_argument(
            "--follow", action="store_true", help="say what is new as the run grows, until it ends"
        )
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def run(self, options: argparse.Namespace) -> int:
        """Prints the run to standard output."""
        from lossledger.cli import output
        from lossledger.request import Request

        run = opened(options.run, options)
        choices = output.options(
            call=options.call,
            model=options.model,
            epoch=options.epoch,
            statistics=[Request.parse(text) for text in options.statistic],
        )
        if options.follow:
            if options.json or options.statistic or options.epoch is not None:
                raise usage(
                    "--follow shows all epochs as lines. Received: --json, --epoch or --statistic "
                    "with it. Leave them out, or leave out --follow."
                )
            _follow(run, choices)
            return 0
        if options.json:
            from lossledger.render.json import JsonShow as Show
        else:
            from lossledger.render.show import TerminalShow as Show
        with output.working():
            text = Show(choices).render(run)
        output.write(text)
        return 0


def _follow(run: "Run", options: "Options") -> None:
    """Prints what is new until the run is over; on a terminal the newest entry in one place."""
    from lossledger import catalog
    from lossledger.cli import output
    from lossledger.export.feed import Feed
    from lossledger.growth import growth, is_over
    from lossledger.render.follow import Follow

    terminal = sys.stdout.isatty()
    erase, end = ("\r\x1b[K", "") if terminal else ("", "\n")
    follow = Follow(run, options)
    feed = Feed(run, over=is_over(run.path))
    status = ""
    output.lines(follow.head())
    try:
        for over in growth(run.path):
            kept, newest = follow.lines(feed.read(over=over))
            status = newest or status
            if kept or newest:
                sys.stdout.write(erase if status else "")
                output.lines(kept)
                if newest or terminal:
                    sys.stdout.write((newest or status) + end)
                sys.stdout.flush()
    finally:
        if terminal and status:
            sys.stdout.write("\n")
    output.lines(follow.foot(bool(catalog.read_info(run.path).get("complete"))))
