"""Run a script as `python` would, with a recording around it.

`python script.py` is the specification: arguments, `sys.path[0]`, `__main__`, output, traceback
and exit status are its own. What remains visible is a few frames of ours below the script's, to
code that walks the stack. The order at the end is Python's, too: report the exception, wait for
the threads, and (after we have sealed the recording) run the atexit handlers.

Nothing heavy is imported here, not even `dataclasses`, which brings a dozen modules: a script
that sets `KERAS_BACKEND`, or that has a module named like one of the standard library's, finds
the interpreter nearly as `python` would hand it over.
"""

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib.machinery import BuiltinImporter, SourceFileLoader, SourcelessFileLoader
from types import CodeType, ModuleType
from typing import Literal, NamedTuple, Protocol

from lossledger import uncaught

Loader = SourceFileLoader | SourcelessFileLoader


class Recording(Protocol):
    """What the runner asks of a recording."""

    def start(self) -> None:
        """Begins to watch for training."""
        ...

    def stop(self) -> None:
        """Seals what was recorded."""
        ...

    def summary(self) -> str:
        """Says in one line what was recorded and where; empty if there is nothing to say."""
        ...


class Target(NamedTuple):
    """What to run: a script's path (or a folder's or zip file's), a module's name, or code.

    Args:
        name: The path, the dotted name, or the code.
        arguments: What follows it on the command line: `sys.argv[1:]`.
        option: Python's option for it: `-m` for a module, `-c` for code.
    """

    name: str
    arguments: tuple[str, ...] = ()
    option: Literal["", "-m", "-c"] = ""

    @property
    def command(self) -> list[str]:
        """What follows `python` to run it."""
        return [*([self.option] if self.option else []), self.name, *self.arguments]


class _Program(NamedTuple):
    """A target that is found and loaded, before anything of the process is changed for it."""

    argv: list[str]
    path0: str
    run: Callable[[ModuleType], None]
    is_file: bool = False


def run(target: Target, recording: Recording | None, *, quiet: bool = False) -> int:
    """Runs the target to its end, as `python` would.

    Args:
        target: What to run.
        recording: Started before the target and stopped after its last non-daemon thread. None
            runs the target alone.
        quiet: Whether to leave out the recording's line on standard error.

    Returns:
        The exit status that `python` would have ended with.

    Raises:
        KeyboardInterrupt: The target ended so, and has said so: whoever called should let it
            reach the interpreter, which then dies by the signal as `python` does.
    """
    program = _load(target)
    if program is None:
        return _let_python_say_why(target)
    process = os.getpid()
    recording = _start(recording)
    try:
        status, interrupted = _execute(program, target)
        _wait_for_threads()
    finally:
        # A child that the target forked comes by here, too: the recording is its parent's.
        if recording is not None and os.getpid() == process:
            _stop(recording, quiet)
    if interrupted:
        raise KeyboardInterrupt
    return status


def _load(target: Target) -> _Program | None:
    """Finds and compiles the target; None for one that can't be read or compiled."""
    argv = [target.option or target.name, *target.arguments]
    if target.option == "-m":
        return _Program(argv, os.getcwd(), lambda main: _run_module(target.name, alter_argv=True))
    if target.option == "-c":
        code = _compiled(target.name, "<string>")
        return code and _Program(argv, "", lambda main: _run_code(code, target.name, main))
    # As CPython makes it absolute: joined, not normalized.
    path = target.name if os.path.isabs(target.name) else os.path.join(os.getcwd(), target.name)
    if _has_importer(path):
        return _Program(argv, path, lambda main: _run_module("__main__", alter_argv=False))
    loader = (SourcelessFileLoader if path.endswith(".pyc") else SourceFileLoader)("__main__", path)
    code = _code(loader, path)
    folder = os.path.dirname(os.path.realpath(path))
    return code and _Program(argv, folder, lambda main: _run_script(code, loader, main), True)


def _has_importer(path: str) -> bool:
    """Whether the path is a folder or a zip file: something that modules are imported from."""
    for hook in sys.path_hooks:
        try:
            hook(path)
        except ImportError:
            continue
        return True
    return False


def _code(loader: Loader, path: str) -> CodeType | None:
    with suppress(Exception):
        if isinstance(loader, SourcelessFileLoader):
            return loader.get_code("__main__")
        return _compiled(loader.get_data(path), path)
    return None


def _compiled(source: str | bytes, name: str) -> CodeType | None:
    with suppress(Exception):
        return compile(source, name, "exec", dont_inherit=True)
    return None


def _enter(program: _Program, target: Target) -> ModuleType:
    """Makes the process look as `python` makes it for the target; gives its `__main__`."""
    sys.orig_argv = _python_command(target)
    sys.argv = program.argv
    if not sys.flags.safe_path:
        sys.path[0] = program.path0
    main = ModuleType("__main__")
    names: dict[str, object] = {"__loader__": BuiltinImporter}
    if sys.version_info < (3, 14):
        names["__annotations__"] = {}
    names["__builtins__"] = sys.modules["builtins"]
    main.__dict__.update(names)
    sys.modules["__main__"] = main
    return main


def _python_command(target: Target) -> list[str]:
    """The command line of the `python` that we stand for: its own options, then the target."""
    command = sys.orig_argv[: len(sys.orig_argv) - len(sys.argv)]
    if command[-1:] == ["-m"]:
        del command[-1]
    return [*command, *target.command]


def _run_script(code: CodeType, loader: Loader, main: ModuleType) -> None:
    main.__dict__.update(__loader__=loader, __file__=loader.path, __cached__=None)
    try:
        exec(code, main.__dict__)
    finally:
        for stream in (sys.stderr, sys.stdout):
            with suppress(Exception):
                stream.flush()


def _run_code(code: CodeType, text: str, main: ModuleType) -> None:
    if sys.version_info >= (3, 13):  # whose tracebacks show the lines of code, too
        import linecache

        lines = [f"{line}\n" for line in text.splitlines()]
        linecache.cache["<string>"] = len(text), None, lines, "<string>"
    exec(code, main.__dict__)


def _run_module(name: str, *, alter_argv: bool) -> None:
    # The function that `python -m` itself calls: a traceback shows its frames, as python's does.
    import runpy

    runpy._run_module_as_main(name, alter_argv)  # pyright: ignore


def _let_python_say_why(target: Target) -> int:
    """What can't be read or compiled has not begun: have `python` itself report it.

    Its messages come from reading the file, and `compile` words several of them otherwise.
    """
    import subprocess

    return subprocess.call(_python_command(target), executable=sys.executable)


def _start(recording: Recording | None) -> Recording | None:
    if recording is not None:
        try:
            recording.start()
        except Exception as error:
            warn(error)
            return None
    return recording


def warn(error: Exception) -> None:
    """Says on standard error that the script runs without a recording, and why."""
    message = f"the script runs, but is not recorded. {error}"
    print(f"lossledger: warning [not-recording]: {message}", file=sys.stderr)


def _stop(recording: Recording, quiet: bool) -> None:
    # Whatever happens here, a second Ctrl-C included, the status is the script's: what was
    # flushed is safe, and a run that was not sealed reads as one that was cut short.
    with suppress(Exception, KeyboardInterrupt):
        recording.stop()
        line = "" if quiet else recording.summary()
        if line and sys.__stderr__ is not None:
            # The script may have put something else in place of sys.stderr.
            print(line, file=sys.__stderr__, flush=True)


def _execute(program: _Program, target: Target) -> tuple[int, bool]:
    """Runs the program and reports what it raised; gives the status, and whether interrupted."""
    main = _enter(program, target)
    raised: BaseException | None = None
    try:
        program.run(main)
    except SystemExit as error:
        return uncaught.exit_status(error), False
    except BaseException as error:
        raised = error
    # Outside the except block: what a hook raises must not have our exception as its context.
    status = None if raised is None else uncaught.report(raised)
    if status is not None:
        return status, False
    if program.is_file:
        # CPython takes them back when a script has run; atexit handlers and threads can tell.
        main.__dict__.pop("__file__", None)
        main.__dict__.pop("__cached__", None)
    return int(raised is not None), type(raised) is KeyboardInterrupt


def _wait_for_threads() -> None:
    """Waits for the target's threads, as the interpreter does before it runs atexit handlers."""
    threading = sys.modules.get("threading")
    if threading is None:
        return
    try:
        # It also ends the workers of thread pools, which joining the threads would wait for
        # without end. The interpreter's own call then returns at once.
        threading._shutdown()
    except BaseException as error:
        uncaught.say_ignored(threading, error)
