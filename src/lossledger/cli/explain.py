"""`lossledger explain`: which statistic the numbers in another tool's file are."""

import argparse

from lossledger.cli.command import Command

_TOOLS = ("keras", "transformers", "lightning")


class ExplainCommand(Command):
    """Prints what a file of losses says, and what it can't say."""

    name = "explain"
    help = "say which statistic the losses in another tool's file are"
    description = (
        "Say of a file of losses which statistic each of its series is, under which versions of\n"
        "the tool that holds, and what can't be recovered from it. It reads a Keras CSVLogger\n"
        "file, a History as JSON, a TensorBoard event file or its folder, a Hugging Face\n"
        "trainer_state.json, and a Lightning metrics.csv, told apart by what is in them. Nothing\n"
        "in it is run."
    )
    examples = """\
examples:
  lossledger explain training.log
  lossledger explain training.log --keras 3.8     which Keras wrote it, if you know
  lossledger explain logs                         what TensorBoard reads there
  lossledger explain trainer_state.json --json | jq '.series[].statistic'
"""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declares the file, the versions, and the form."""
        parser.add_argument("file", metavar="FILE", help="the file, or TensorBoard's folder")
        for tool in _TOOLS:
            parser.add_argument(
                f"--{tool}", metavar="VERSION", help=f"the version of {tool} that wrote it"
            )
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def run(self, options: argparse.Namespace) -> int:
        """Prints what the file says to standard output."""
        from lossledger import explain
        from lossledger.cli import output

        versions = {tool: v for tool in _TOOLS if (v := getattr(options, tool)) is not None}
        explained = explain.read(options.file, versions)
        if options.json:
            from lossledger.render.explain import JsonExplain as Explain
        else:
            from lossledger.render.explain import TerminalExplain as Explain
        output.write(Explain(output.options()).render(explained))
        return 0
