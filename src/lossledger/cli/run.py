"""`lossledger run`: run a script as `python` would, and record what it trains."""

import argparse
from pathlib import Path

from lossledger import runner
from lossledger.cli.command import Command, add_steps_per_epoch, usage
from lossledger.cli.configuration import Configuration, configuration, is_off, place_of
from lossledger.cli.export import TRACKERS
from lossledger.errors import LossLedgerError
from lossledger.objects import kept_at, remote_of


class RunCommand(Command):
    """Runs a script, a module or code; the exit status is its own."""

    name = "run"
    help = "run a script as python does, and record what it trains"
    usage = "lossledger run [options] script.py | -m module | -c code [argument ...]"
    description = (
        "Run a script, a folder, a zip file, a module or code exactly as python does, and record\n"
        "every training step of every Keras model in it. The exit status is the script's."
    )
    examples = """\
examples:
  lossledger run train.py --lr 0.1         what follows train.py belongs to train.py
  lossledger run --name baseline train.py
  lossledger run --resume latest train.py    after a crash: one ledger, nothing counted twice
  lossledger run -o /data/runs -m project.train
  lossledger run -o s3://bucket/runs train.py   recorded here, uploaded beside the training
  lossledger run --export tensorboard train.py   export it, too, as it grows
  LOSSLEDGER_OFF=1 lossledger run train.py   run it and record nothing
"""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declares the options; all that follows the script, module or code is left alone."""
        parser.add_argument(
            "-o",
            "--output",
            metavar="DIR",
            help="the folder that holds runs, or its URI on an object store (default: runs)",
        )
        parser.add_argument("--name", help="what to call the run (default: the script's name)")
        parser.add_argument(
            "--resume",
            metavar="RUN",
            help="go on in this run, as after a crash, instead of a new one",
        )
        parser.add_argument(
            "-q", "--quiet", action="store_true", help="no line about the recording at the end"
        )
        add_steps_per_epoch(parser)
        parser.add_argument(
            "--export",
            action="append",
            default=[],
            metavar="TRACKER[=DIR]",
            help="export the run as it grows: to tensorboard, mlflow, wandb, csv or parquet, into "
            "DIR or exports/TRACKER; may be given several times",
        )
        for option, name, what in (("-m", "module", "a module"), ("-c", "code", "code")):
            parser.add_argument(
                option,
                dest=name,
                nargs=argparse.REMAINDER,
                metavar=name,
                help=f"{option} {name} [argument ...]: run {what}, as python {option} does",
            )
        parser.add_argument(
            "script",
            nargs=argparse.REMAINDER,
            metavar="script.py ...",
            help="the script, with its arguments",
        )

    def run(self, options: argparse.Namespace) -> int:
        """Runs it; returns the script's exit status."""
        target = _target(options)
        if is_off():
            return runner.run(target, None)
        settings = configuration()
        exports = dict(_export(text) for text in options.export)
        recording = _recording(target, options, settings, exports)
        return runner.run(target, recording, quiet=options.quiet or settings.quiet)


def _target(options: argparse.Namespace) -> runner.Target:
    option = "-m" if options.module is not None else "-c" if options.code is not None else ""
    # argparse ends the list of an option at "--"; the rest is then in that of the script.
    words = [*(options.module or options.code or []), *options.script]
    if not words or not (words[0] or option == "-c"):
        raise _nothing("There is nothing to run. Received: no script, no module and no code.")
    if words[0] == "-" and not option:
        raise _nothing("Standard input is not run. Received: -.")
    return runner.Target(words[0], tuple(words[1:]), option)


def _nothing(what: str) -> LossLedgerError:
    return usage(f"{what} Write: lossledger run train.py, -m project.train, or -c 'code'")


def _recording(
    target: runner.Target,
    options: argparse.Namespace,
    settings: Configuration,
    exports: dict[str, Path],
) -> runner.Recording | None:
    script = None if target.option else Path(target.name)
    directory = place_of(options.output) if options.output else settings.directory
    resume = None
    if options.resume:  # refused before the script runs, not after
        from lossledger.recorder.before import found

        remote = remote_of(directory)
        resume = found(options.resume, kept_at(remote, "recorded") if remote else directory)
    try:
        from lossledger.recorder.deferred import DeferredRecording

        return DeferredRecording(
            directory,
            options.name or settings.name or _default_name(target),
            script,
            target.command,
            steps_per_epoch=options.steps_per_epoch,
            export=exports,
            **({} if resume is None else {"resume": resume}),
        )
    except Exception as error:
        runner.warn(error)
        return None


def _export(text: str) -> tuple[str, Path]:
    name, _, folder = text.partition("=")
    if name not in TRACKERS:
        raise LossLedgerError(
            f"No such tracker. Received: --export {text}. Choose one of {', '.join(TRACKERS)}.",
            slug="unknown-tracker",
            exit_code=2,
        )
    return name, Path(folder or Path("exports", name))


def _default_name(target: runner.Target) -> str:
    if target.option == "-c":
        return "code"
    if target.option == "-m":
        return target.name.removesuffix(".__main__").rpartition(".")[2]
    return Path(target.name).absolute().stem
