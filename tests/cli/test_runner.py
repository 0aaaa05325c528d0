"""The runner with a recording that only takes notes: when it starts, stops and what it says."""

import os
import signal
from pathlib import Path

import pytest
from command import LOSSLEDGER, PYTHON, Outcome, execute

from lossledger import uncaught

DRIVER = """
import os, sys
from lossledger import runner

class Stub:
    def note(self, text):
        with open("notes", "a") as file:
            print(text, file=file)
    def start(self):
        self.note("start")
        self.pid = os.getpid()
    def stop(self):
        self.note("stop" if os.getpid() == self.pid else "stop in a child")
    def summary(self):
        return "lossledger: the line"

class FailsToStart(Stub):
    def start(self):
        raise OSError("no room. Make some.")

class FailsToStop(Stub):
    def stop(self):
        raise OSError("no room")

class Interrupted(Stub):
    def stop(self):
        os.kill(os.getpid(), __import__("signal").SIGINT)
        self.note("not reached")

class Quiet(Stub):
    def summary(self):
        return ""

kind, target, *arguments = sys.argv[1:]
recording = globals()[kind]()
quiet = os.environ.get("QUIET") == "1"
sys.exit(runner.run(runner.Target(target, tuple(arguments)), recording, quiet=quiet))
"""
LINE = b"lossledger: the line\n"
ENDINGS = {
    "end": "",
    "exit": "import sys\nsys.exit(5)\n",
    "raise": "raise ValueError\n",
    "interrupt": "raise KeyboardInterrupt\n",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "driver.py").write_text(DRIVER)
    return tmp_path


def drive(folder: Path, script: str, kind: str = "Stub", **how) -> tuple[Outcome, list[str]]:
    (folder / "x.py").write_text(script)
    outcome = execute([*PYTHON, "driver.py", kind, "x.py"], folder, **how)
    notes = folder / "notes"
    return outcome, notes.read_text().splitlines() if notes.exists() else []


FINDER = """
from importlib import util
find, there = util.find_spec, {there!r}
util.find_spec = lambda name: find("sys" if name in there else "no_such_module")
import keras
"""


@pytest.mark.parametrize(
    ("there", "chosen", "said"),
    [
        (["jax"], "", "tensorflow unless KERAS_BACKEND is set, installed is jax  next: set KERAS_"),
        (["jax", "torch"], "tensorflow", "KERAS_BACKEND=tensorflow, installed is jax, torch  next"),
        ([], "", "installed is no backend  next: pip install 'lossledger[jax]'"),
        (["tensorflow"], "", "lossledger: nothing recorded: Keras could not be imported\n"),
    ],
)
def test_a_keras_without_its_backend_is_told_from_no_training(
    folder: Path, there: list[str], chosen: str, said: str
) -> None:
    (folder / "keras.py").write_text("import no_such_backend\n")
    (folder / "x.py").write_text(FINDER.format(there=there))
    outcome = execute([*LOSSLEDGER, "run", "x.py"], folder, KERAS_BACKEND=chosen)
    assert said in outcome.stderr.decode()
    assert outcome.status == 1


@pytest.mark.parametrize("name", ENDINGS)
def test_the_recording_stops_however_the_script_ends(folder: Path, name: str) -> None:
    outcome, notes = drive(folder, ENDINGS[name])
    (folder / "x.py").write_text(ENDINGS[name])
    plain = execute([*PYTHON, "x.py"], folder)
    assert notes == ["start", "stop"]
    assert outcome.status == plain.status
    expected = plain.stderr if name == "interrupt" else plain.stderr + LINE
    # The driver lets the interrupt through, which the interpreter reports a second time.
    assert outcome.stderr.startswith(expected)


def test_quiet_leaves_out_the_line(folder: Path) -> None:
    assert drive(folder, "", QUIET="1")[0].stderr == b""


def test_no_line_where_there_is_nothing_to_say(folder: Path) -> None:
    assert drive(folder, "", kind="Quiet")[0].stderr == b""


def test_the_line_goes_to_the_terminal_though_the_script_took_stderr(folder: Path) -> None:
    script = "import sys\nsys.stderr = open('log', 'w')\n"
    assert drive(folder, script)[0].stderr == LINE
    assert (folder / "log").read_text() == ""


def test_threads_end_before_the_recording_stops_and_atexit_comes_after(folder: Path) -> None:
    script = """
import atexit, threading, time
def note(text):
    print(text, file=open("notes", "a"), flush=True)
def work():
    time.sleep(0.2)
    note("thread")
atexit.register(note, "atexit")
threading.Thread(target=work).start()
"""
    assert drive(folder, script)[1] == ["start", "thread", "stop", "atexit"]


def test_a_forked_child_leaves_the_recording_to_its_parent(folder: Path) -> None:
    script = """
import os, sys
child = os.fork()
if child == 0:
    sys.exit(0)
os.waitpid(child, 0)
"""
    outcome, notes = drive(folder, script)
    assert notes == ["start", "stop"]
    assert outcome.stderr == LINE


def test_a_recording_that_cannot_start_costs_one_warning(folder: Path) -> None:
    outcome, _ = drive(folder, "print('ran')\nraise SystemExit(4)\n", kind="FailsToStart")
    assert (outcome.status, outcome.stdout) == (4, b"ran\n")
    assert outcome.stderr == (
        b"lossledger: warning [not-recording]: the script runs, but is not recorded. "
        b"no room. Make some.\n"
    )


@pytest.mark.parametrize("kind", ["FailsToStop", "Interrupted"])
def test_stopping_never_changes_the_status(folder: Path, kind: str) -> None:
    outcome, notes = drive(folder, "raise SystemExit(4)\n", kind=kind)
    assert outcome == Outcome(4, b"", b"")
    assert notes == ["start"]


def test_nothing_starts_for_a_script_that_does_not_compile(folder: Path) -> None:
    outcome, notes = drive(folder, "def f(:\n")
    assert outcome.status == 1
    assert notes == []


@pytest.mark.parametrize("value", ["1", "yes"])
def test_off_runs_the_script_alone(folder: Path, value: str) -> None:
    (folder / "x.py").write_text(
        "import sys\nprint('lossledger.recorder.deferred' in sys.modules)\n"
    )
    command = [*LOSSLEDGER, "run", "-o", "/proc/none", "x.py"]
    assert execute(command, folder, LOSSLEDGER_OFF=value) == Outcome(0, b"False\n", b"")


def test_a_second_interrupt_while_the_script_cleans_up(folder: Path) -> None:
    script = """
import pathlib, time
try:
    time.sleep(30)
except KeyboardInterrupt:
    pass
pathlib.Path("cleaned").touch()
raise SystemExit(3)
"""
    (folder / "x.py").write_text("import pathlib\npathlib.Path('ready').touch()\n" + script)
    outcome = execute([*PYTHON, "driver.py", "Stub", "x.py"], folder, kill=signal.SIGINT)
    assert outcome == Outcome(3, b"", LINE)


def _frames(error: BaseException) -> list[str]:
    traceback, names = error.__traceback__, []
    while traceback is not None:
        names.append(traceback.tb_frame.f_code.co_name)
        traceback = traceback.tb_next
    return names


def _ours(name: str, body: str = "f()"):
    """A function of a file of the package; it calls what it is given."""
    path = os.path.join(uncaught.PACKAGE, "keras", "made_up.py")
    space: dict = {}
    exec(compile(f"def {name}(f):\n    {body}\n", path, "exec"), space)
    return space[name]


def _caught(function) -> BaseException:
    try:
        function()
    except BaseException as error:
        return error
    raise AssertionError


def test_frames_between_keras_and_the_step_are_taken_out() -> None:
    def step():
        raise ValueError

    def fit():
        _ours("tap")(step)

    error = _caught(lambda: _ours("runner")(fit))
    uncaught.strip(error)
    assert _frames(error) == ["_caught", "<lambda>", "fit", "step"]


def test_a_traceback_that_ends_in_our_code_says_so() -> None:
    tap = _ours("tap")
    error = _caught(lambda: tap(None))
    uncaught.strip(error)
    assert _frames(error)[-1] == "tap"


def test_an_interrupt_does_not_tell_that_it_came_in_our_code() -> None:
    tap = _ours("tap", "raise KeyboardInterrupt")
    error = _caught(lambda: tap(None))
    uncaught.strip(error)
    assert _frames(error) == ["_caught", "<lambda>"]


def test_frames_are_taken_out_of_all_that_is_chained() -> None:
    def fail():
        raise ValueError

    def step():
        try:
            _ours("inner")(fail)
        except ValueError as cause:
            raise KeyError from cause

    def several():
        raise BaseExceptionGroup("several", [_caught(lambda: _ours("outer")(step))])

    group = _caught(lambda: _ours("runner")(several))
    uncaught.strip(group)
    assert isinstance(group, BaseExceptionGroup)
    key_error = group.exceptions[0]
    cause = key_error.__cause__
    assert cause is not None
    assert _frames(group) == ["_caught", "<lambda>", "several"]
    assert _frames(key_error) == ["_caught", "<lambda>", "step"]
    assert _frames(cause) == ["step", "fail"]


def test_an_exception_that_is_its_own_context_is_stripped_once() -> None:
    def fail():
        raise ValueError

    error, other = _caught(lambda: _ours("tap")(fail)), KeyError()
    error.__context__, other.__context__ = other, error
    uncaught.strip(error)
    assert _frames(error) == ["_caught", "<lambda>", "fail"]
