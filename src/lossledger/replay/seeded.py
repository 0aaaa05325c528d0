"""Runs a recorded script again under another seed: `python -m lossledger.replay.seeded`.

The seed is set when the script has imported Keras, before it goes on, and every seed that the
script gives to `keras.utils.set_random_seed` is moved by as much.
"""

import sys
from pathlib import Path

from lossledger import runner
from lossledger.recorder.deferred import DeferredRecording
from lossledger.recorder.hook import AfterImport


def run(offset: int, folder: str, command: list[str]) -> int:
    """Runs and records a command; returns its exit status.

    Args:
        offset: What is added to every seed.
        folder: Where to record.
        command: What follows `python`.
    """
    AfterImport("keras", lambda: _seed(offset)).install()
    module = command[0] == "-m"
    name, *arguments = command[1:] if module else command
    target = runner.Target(name, tuple(arguments), "-m" if module else "")
    script = None if module else Path(name)
    recording = DeferredRecording(Path(folder), "replay", script, target.command)
    return runner.run(target, recording, quiet=True)


def _seed(offset: int) -> None:
    import keras

    original = keras.utils.set_random_seed

    def set_random_seed(seed: int) -> None:
        original((int(seed) + offset) % 2**32)

    for name, module in list(sys.modules.items()):
        if name.startswith("keras") and vars(module).get("set_random_seed") is original:
            vars(module)["set_random_seed"] = set_random_seed
    original(offset)


if __name__ == "__main__":
    sys.exit(run(int(sys.argv[1]), sys.argv[2], sys.argv[3:]))
