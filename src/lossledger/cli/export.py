"""`lossledger export`: a run's numbers in another tracker."""

import argparse

from lossledger.cli.command import Command, add_follow, add_run, add_steps_per_epoch, opened

TRACKERS = ("tensorboard", "mlflow", "wandb", "csv", "parquet")


class ExportCommand(Command):
    """Exports one run."""

    name = "export"
    help = "write a run's numbers to TensorBoard, MLflow, W&B, CSV or Parquet"
    description = (
        "Write the numbers of a run to another tracker, each under the name of its statistic\n"
        "(loss/raw, loss/running_mean, loss/epoch_mean, ...) over optimizer steps. What the\n"
        "tracker has of the run is not written again; an interrupted export goes on."
    )
    examples = """\
examples:
  lossledger export --to tensorboard                 the newest run, into exports/tensorboard
  lossledger export baseline --to csv -o tables
  lossledger export latest --to mlflow -o tracking   into tracking/mlflow.db
  lossledger export latest --to wandb                offline; `wandb sync` sends it
  lossledger export latest --to tensorboard --follow   while it trains
"""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declares the run, the tracker, and how to write."""
        add_run(parser)
        parser.add_argument(
            "--to", required=True, choices=TRACKERS, metavar="TRACKER", help=", ".join(TRACKERS)
        )
        parser.add_argument(
            "-o",
            "--output",
            metavar="DIR",
            help="the tracker's folder (default: exports/TRACKER)",
        )
        parser.add_argument(
            "--force", action="store_true", help="write it anew, in the place of what is there"
        )
        add_follow(parser)
        add_steps_per_epoch(parser)
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def run(self, options: argparse.Namespace) -> int:
        """Exports, and says what was written and where on standard output."""
        from lossledger.cli import output
        from lossledger.export import export

        run = opened(options.run, options)
        with output.working():
            done = export(
                run, options.to, options.output, force=options.force, follow=options.follow
            )
        if options.json:
            from lossledger.render.export import JsonExport as Export
        else:
            from lossledger.render.export import TerminalExport as Export
        output.write(Export(output.options()).render(done))
        return 0
