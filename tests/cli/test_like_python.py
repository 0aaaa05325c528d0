"""`lossledger run` against `python`: the same output, traceback and exit status, byte by byte."""

import signal
import sys
import zipfile
from pathlib import Path

import pytest
from command import LOSSLEDGER, PYTHON, RUN, Outcome, execute

SCRIPTS = {
    "prints": "import sys\nprint('out')\nprint('err', file=sys.stderr)\n",
    "world": """
import os, sys
print(sys.argv, sys.orig_argv, sys.path, sys.flags, os.getcwd(), dict(os.environ))
print(list(globals()), __name__, __file__, __package__, __spec__, __cached__, __builtins__)
print(type(__loader__), __loader__.name, __loader__.path, __annotations__, __doc__)
print(sys.modules["__main__"].__dict__ is globals(), sys.stdin.read())
""",
    "docstring": '"""Says so."""\nfrom __future__ import annotations\nprint(__doc__)\n',
    "raises": "def f():\n    raise ValueError('no', 1)\nprint('before')\nf()\n",
    "chained": """
def f():
    try:
        1 / 0
    except ZeroDivisionError as error:
        raise KeyError("x") from error
try:
    f()
except KeyError:
    raise RuntimeError("again")
""",
    "group": """
def f(n):
    raise ValueError(n)
found = []
for n in range(3):
    try:
        f(n)
    except ValueError as error:
        error.add_note(f"note {n}")
        found.append(error)
raise ExceptionGroup("several", found)
""",
    "runtime_syntax_error": "compile('x = (', 'inner.py', 'exec')\n",
    "exit_none": "import sys\nsys.exit()\n",
    "exit_zero": "import sys\nsys.exit(0)\n",
    "exit_seven": "import sys\nsys.exit(7)\n",
    "exit_negative": "import sys\nsys.exit(-1)\n",
    "exit_large": "import sys\nsys.exit(2**70)\n",
    "exit_true": "raise SystemExit(True)\n",
    "exit_text": "import sys\nprint('out')\nsys.exit('a message')\n",
    "exit_object": "import sys\nsys.exit(('a', 1))\n",
    "exit_subclass": "class Done(SystemExit):\n    code = 5\nraise Done(6)\n",
    "os_exit": "import os, sys\nprint('x', flush=True)\nos._exit(9)\n",
    "interrupt": "import atexit\natexit.register(print, 'bye')\nraise KeyboardInterrupt('stop')\n",
    "interrupt_subclass": "class Stop(KeyboardInterrupt): pass\nraise Stop\n",
    "abort": "import os\nos.abort()\n",
    "kill_self": "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n",
    "atexit": """
import atexit
atexit.register(lambda: print("last", globals().get("__file__")))
@atexit.register
def fail():
    raise OSError("in atexit")
print("body")
""",
    "atexit_after_exit": """
import atexit, sys
atexit.register(lambda: print("last", __file__))
sys.exit(3)
""",
    "atexit_exits": "import atexit, sys\natexit.register(sys.exit, 4)\n",
    "hook": """
import sys
def hook(kind, value, traceback):
    frames = []
    while traceback:
        frames.append(traceback.tb_frame.f_code.co_name)
        traceback = traceback.tb_next
    print("hooked", kind, value, frames, sys.last_value is value, file=sys.stderr)
sys.excepthook = hook
def f():
    raise ValueError("x")
f()
""",
    "hook_fails": """
import sys
def hook(*_):
    raise TypeError("the hook")
sys.excepthook = hook
raise ValueError("the script")
""",
    "hook_exits": "import sys\nsys.excepthook = lambda *_: sys.exit(6)\nraise ValueError\n",
    "hook_missing": "import sys\ndel sys.excepthook\nraise ValueError\n",
    "thread": """
import threading, time, atexit
atexit.register(print, "atexit")
def work():
    time.sleep(0.2)
    print("thread", threading.main_thread().is_alive(), "__file__" in globals())
threading.Thread(target=work).start()
print("main ends")
""",
    "thread_raises": """
import threading
def work():
    raise ValueError("in a thread")
threading.Thread(target=work, name="worker").start()
""",
    "pool": """
from concurrent.futures import ThreadPoolExecutor
pool = ThreadPoolExecutor(2)
future = pool.submit(lambda: print("done"))
""",
    "interrupted_wait": """
import os, signal, threading, time
def work():
    time.sleep(0.3)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.2)
threading.Thread(target=work).start()
""",
    "finalizer": """
class Last:
    def __del__(self):
        print("deleted", flush=True)
last = Last()
""",
    "fork": """
import os, sys
child = os.fork()
print("child" if child == 0 else os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
sys.exit(8 if child == 0 else 0)
""",
    "pickle": """
import pickle
class Point:
    def __init__(self, x):
        self.x = x
data = pickle.dumps(Point(3))
print(data, pickle.loads(data).x, Point)
""",
    "spawn": """
import multiprocessing, sys
class Box:
    def __init__(self, x):
        self.x = x
def work(box):
    print(__name__, box.x, "lossledger" in sys.modules, flush=True)
    return Box(box.x + 1)
if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        print(pool.map(work, [Box(1)])[0].x)
    process = context.Process(target=work, args=(Box(5),))
    process.start()
    process.join()
    print(process.exitcode)
""",
    "fork_pool": """
import multiprocessing
def double(x):
    return 2 * x
if __name__ == "__main__":
    with multiprocessing.get_context("fork").Pool(2) as pool:
        print(pool.map(double, [1, 2]))
""",
    "closed_stdout": "import sys\nprint('x')\nsys.stdout.close()\n",
    "other_stderr": "import sys, io\nsys.stderr = io.StringIO()\nraise ValueError\n",
    "no_stderr": "import sys\nsys.stderr = None\nraise ValueError\n",
    "warns": "import warnings\nwarnings.warn('careful')\nimport re\n",
    "source": "import inspect\ndef f(): pass\nprint(inspect.getsource(f), inspect.getfile(f))\n",
    "reads_backend": "import os\nos.environ['KERAS_BACKEND'] = 'jax'\nprint(os.environ)\n",
    "asyncio": """
import asyncio
async def main():
    await asyncio.sleep(0)
    raise ValueError("async")
asyncio.run(main())
""",
    "annotated": "x: int = 1\nprint(__annotations__)\n",
    "imports_neighbour": "import neighbour\nprint(neighbour.__file__)\n",
    "latin": "# -*- coding: latin-1 -*-\nprint(ascii('\xe9'))\n",
    "unicode_name": "print('\u00fc')\nraise ValueError('\u00fc')\n",
    "carriage_returns": "print(1)\r\nraise ValueError\r\n",
    "no_final_newline": "print(1)",
    "empty": "",
}

UNLOADABLE = {
    "syntax": b"print(1)\ndef f(:\n",
    "indent": b"if 1:\nx = 1\n",
    "tabs": b"if 1:\n\tx = 1\n        y = 2\n",
    "open_string": b'x = """abc\n',
    "no_utf8": b'x = "caf\xe9"\n',
    "unknown_coding": b"# coding: nonsense\n",
    "null_byte": b"x = 1\0\n",
    "return_outside": b"return 1\n",
}


def same(folder: Path, target: list[str], *, options: tuple[str, ...] = (), **how) -> Outcome:
    """Runs the target by `python` and by us; they must not differ. Gives what python does."""
    expected = execute([*PYTHON, *options, *target], folder, **how)
    found = execute([PYTHON[0], *options, *RUN[1:], *target], folder, **how)
    assert found == expected
    return expected


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "neighbour.py").write_text("")
    return tmp_path


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_runs_as_under_python(folder: Path, name: str) -> None:
    coding = "latin-1" if name == "latin" else "utf-8"
    (folder / "x.py").write_bytes(SCRIPTS[name].encode(coding))
    same(folder, ["x.py", "-q", "a b", "--", "--name", "-m", ""], stdin=b"typed")


@pytest.mark.parametrize(
    "name", ["world", "raises", "interrupt", "exit_text", "exit_seven", "chained", "atexit"]
)
def test_a_module_runs_as_under_python(folder: Path, name: str) -> None:
    (folder / "package").mkdir()
    (folder / "package" / "__init__.py").write_text("import sys\nprint(sys.argv, sys.path[0])\n")
    (folder / "package" / "inner.py").write_text(SCRIPTS[name])
    same(folder, ["-m", "package.inner", "-q", "--", "-m", "x"], stdin=b"typed")


@pytest.mark.parametrize("name", ["raises", "chained", "exit_text", "interrupt", "atexit"])
def test_code_runs_as_under_python(folder: Path, name: str) -> None:
    code = f"import sys\nprint(sys.argv, sys.path[0], sys.orig_argv, dir())\n{SCRIPTS[name]}"
    same(folder, ["-c", code, "-q", "--", "-m", "x"])


@pytest.mark.parametrize("code", ["", "def f(:", "import neighbour; print(neighbour.__file__)"])
def test_code_in_one_line_runs_as_under_python(folder: Path, code: str) -> None:
    same(folder, ["-c", code], merged=True)


@pytest.mark.parametrize("name", ["raises", "exit_text", "atexit", "thread", "hook_fails"])
@pytest.mark.parametrize("module", [False, True])
def test_output_and_errors_come_in_pythons_order(folder: Path, name: str, module: bool) -> None:
    (folder / "x.py").write_text(SCRIPTS[name])
    same(folder, ["-m", "x"] if module else ["x.py"], merged=True)


@pytest.mark.parametrize("name", UNLOADABLE)
def test_a_script_that_does_not_compile_is_reported_by_python(folder: Path, name: str) -> None:
    (folder / "x.py").write_bytes(UNLOADABLE[name])
    assert same(folder, ["x.py"]).status == 1


def test_a_missing_script_is_reported_by_python(folder: Path) -> None:
    missing = same(folder, ["sub/x.py"])
    assert missing.status == 2
    assert b"can't open file" in missing.stderr


def test_a_missing_module_is_reported_by_python(folder: Path) -> None:
    assert b"No module named absent" in same(folder, ["-m", "absent"]).stderr
    assert b"neighbour.absent" in same(folder, ["-m", "neighbour.absent"]).stderr


def test_a_folder_and_a_zip_file_run(folder: Path) -> None:
    (folder / "app").mkdir()
    assert b"can't find '__main__'" in same(folder, ["app"]).stderr
    (folder / "app" / "__main__.py").write_text(SCRIPTS["world"])
    same(folder, ["app", "-q"])
    with zipfile.ZipFile(folder / "app.zip", "w") as file:
        file.writestr("__main__.py", SCRIPTS["world"] + SCRIPTS["raises"])
    assert same(folder, ["app.zip", "a"]).status == 1


def test_a_compiled_script_runs(folder: Path) -> None:
    (folder / "x.py").write_text(SCRIPTS["raises"])
    execute([*PYTHON, "-c", "import py_compile as p; p.compile('x.py', 'x.pyc')"], folder)
    same(folder, ["x.pyc"])


@pytest.mark.parametrize("path", ["./x.py", "sub/../x.py", "link.py", "sub/link.py"])
def test_a_path_is_resolved_as_python_does(folder: Path, path: str) -> None:
    (folder / "x.py").write_text(SCRIPTS["world"] + SCRIPTS["imports_neighbour"])
    (folder / "sub").mkdir()
    (folder / "link.py").symlink_to("x.py")
    (folder / "sub" / "link.py").symlink_to("../x.py")
    assert same(folder, [path]).status == 0


@pytest.mark.parametrize(
    "options", [("-P",), ("-O",), ("-B", "-W", "error"), ("-X", "dev"), ("-u",), ("-E", "-s")]
)
def test_the_interpreters_own_options_stay(folder: Path, options: tuple[str, ...]) -> None:
    (folder / "x.py").write_text(SCRIPTS["world"] + "assert not __debug__\n")
    same(folder, ["x.py", "a"], options=options)


def test_environment_variables_for_python_stay(folder: Path) -> None:
    (folder / "x.py").write_text("import warnings, sys\nprint(sys.warnoptions)\nwarnings.warn('x')")
    same(folder, ["x.py"], PYTHONWARNINGS="error", PYTHONPATH="elsewhere", PYTHONUNBUFFERED="1")


# The signal is let in at one place of the script: a traceback tells where it came.
WAITS = """
import atexit, pathlib, signal, sys, time
atexit.register(print, "atexit")
print("waiting", flush=True)
try:
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    pathlib.Path("ready").touch()
    while not signal.sigpending():
        time.sleep(0.01)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())
finally:
    print("finally", flush=True)
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP", "SIGKILL", "SIGUSR1"])
def test_a_signal_ends_it_as_it_ends_python(folder: Path, name: str) -> None:
    (folder / "x.py").write_text(WAITS)
    kill = signal.Signals[name]
    assert same(folder, ["x.py"], kill=kill).status == -kill


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_scripts_own_signal_handler_works(folder: Path, name: str) -> None:
    handler = f"import signal, sys\nsignal.signal(signal.{name}, lambda *_: sys.exit(12))\n"
    (folder / "x.py").write_text(handler + WAITS)
    assert same(folder, ["x.py"], kill=signal.Signals[name]).status == 12


def test_output_into_a_closed_pipe_ends_as_under_python(folder: Path) -> None:
    (folder / "x.py").write_text("for n in range(100000): print(n)\n")
    shell = "{ %s x.py; echo $? >status; } 2>err | head -1; cat status err"
    expected = execute(["bash", "-c", shell % " ".join(PYTHON)], folder)
    assert execute(["bash", "-c", shell % " ".join(RUN)], folder) == expected


def test_the_installed_command_runs_a_script(folder: Path) -> None:
    command = Path(sys.executable).with_name("lossledger")
    if not command.exists():
        pytest.skip("the package is not installed with its command")
    (folder / "x.py").write_text(
        "import sys\nprint(sys.argv, sys.path[0])\nraise KeyboardInterrupt"
    )
    expected = execute([*PYTHON, "x.py", "a"], folder)
    assert execute([str(command), "run", "-q", "x.py", "a"], folder) == expected
    assert expected.status == -signal.SIGINT


def test_a_script_finds_few_modules_imported(folder: Path) -> None:
    (folder / "x.py").write_text("import sys\nprint(*sorted(sys.modules))\n")
    plain = set(execute([*PYTHON, "x.py"], folder).stdout.decode().split())
    ours = set(execute([*RUN, "x.py"], folder).stdout.decode().split())
    new = {name.partition(".")[0] for name in ours - plain}
    assert plain <= ours
    assert new <= sys.stdlib_module_names | {"lossledger"}


def test_a_script_may_have_modules_named_as_in_the_standard_library(folder: Path) -> None:
    names = ["ast", "code", "inspect", "queue", "random", "secrets", "statistics", "token"]
    for name in names:
        (folder / f"{name}.py").write_text("mine = True\n")
    script = "".join(f"import {name}\nassert {name}.mine\n" for name in names)
    (folder / "x.py").write_text(script)
    assert same(folder, ["x.py"]).status == 0
    # The installed command looks into another folder first: what it imports is the library's.
    command = Path(sys.executable).with_name("lossledger")
    if command.exists():
        assert execute([str(command), "run", "-q", "x.py"], folder) == Outcome(0, b"", b"")


def test_a_script_that_never_trains_leaves_no_folder(folder: Path) -> None:
    (folder / "x.py").write_text("print('nothing')\n")
    execute([*LOSSLEDGER, "run", "x.py"], folder)
    assert sorted(path.name for path in folder.iterdir()) == ["neighbour.py", "x.py"]
