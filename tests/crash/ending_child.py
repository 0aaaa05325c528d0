"""Forks recordings that end; a line on stdin starts one: a folder, how it ends, whether recorded.

Each trains, waits until what it has trained is on disk, and then ends as its function says. The
child leaves by its interpreter's own end, with all that belongs to it; its status goes to stdout,
and what it said on stderr to `stderr` in the folder.
"""

import atexit
import contextlib
import faulthandler
import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pyarrow.parquet  # noqa: F401 - before the fork: it takes longer than all the rest

import lossledger as ll
from lossledger import run, store  # noqa: F401
from lossledger.recorder import collector, recording  # noqa: F401

STEPS = 20
collector.FLUSH_SECONDS = 0.02


class Unrecorded:
    """What stands for a recording where there is none."""

    path = None

    def start(self):
        pass

    stop = start
    epoch = start

    def step(self, *_, **__):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def train(one):
    """Twenty steps, there for certain."""
    for step in range(STEPS):
        one.step(np.float32(step), rows=2)
    while one.path and sum(len(b["step"]) for b in store.scan(one.path, ["step"])) < STEPS:
        time.sleep(0.005)


def begun(one):
    """A recording that nobody ends."""
    one.start()
    train(one)


def signalled(number):
    def end(one):
        with one:
            train(one)
            os.kill(os.getpid(), number)
            time.sleep(60)

    return end


def handled(action):
    """SIGTERM, and a handler of the user's own."""

    def end(one):
        signal.signal(signal.SIGTERM, lambda *_: action())
        signalled(signal.SIGTERM)(one)

    return end


def interrupted_twice(one):
    with one:
        train(one)
        if one.path:
            close = one.output.close

            def again():
                os.kill(os.getpid(), signal.SIGINT)
                close()

            one.output.close = again
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)


def alarm(handler):
    def end(one):
        signal.signal(signal.SIGALRM, handler)
        with one:
            train(one)
            signal.setitimer(signal.ITIMER_REAL, 0.01)
            time.sleep(60)

    return end


def timed_out(*_):
    raise TimeoutError("the job's limit")


def left(leave):
    def end(one):
        with one:
            train(one)
            leave()

    return end


def never_stopped(one):
    begun(one)


def torn_down_in_mid_flush(one):
    """The thread is writing all the time when the interpreter ends."""
    collector.FLUSH_SECONDS = 0
    begun(one)

    def more():
        with contextlib.suppress(Exception):
            while True:
                one.step(np.float32(7), rows=2)

    threading.Thread(target=more, daemon=True).start()
    time.sleep(0.05)


def a_daemon_fails(one):
    begun(one)
    threading.excepthook = lambda _: None
    threading.Thread(target=lambda: 1 / 0, daemon=True).start()


def a_daemon_goes_on(one):
    """It trains when the recording has ended, and while the interpreter does."""
    with one:
        train(one)

        def more():
            while True:
                one.step(np.float32(7), rows=2)

        threading.Thread(target=more, daemon=True).start()
    time.sleep(0.05)


def trains_at_exit(one):
    """After the recording has ended."""
    atexit.register(one.step, np.float32(7), rows=2)
    with one:
        train(one)


def trains_at_exit_unstopped(one):
    begun(one)
    atexit.register(train, one)


def a_new_one_at_exit(one):
    def again():
        with type(one)() if one.path is None else ll.record(one.path.parent, name="second") as two:
            train(two)

    with one:
        train(one)
    atexit.register(again)


def exits_in_a_thread(one):
    with one:
        train(one)
        thread = threading.Thread(target=sys.exit, args=(9,))
        thread.start()
        thread.join()


def forked(body):
    def end(one):
        with one:
            train(one)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                child = multiprocessing.get_context("fork").Process(target=body, args=(one,))
                child.start()
            child.join()
            sys.exit(child.exitcode)

    return end


def child_trains(one):
    for _ in range(3):
        one.epoch()
        one.step(np.float32(9))
    one.stop()
    sys.exit(11)


def child_records(one):
    own = Unrecorded() if one.path is None else ll.record(one.path.parent, name="second")
    with own as two:
        train(two)


def spawned(one):
    with one:
        train(one)
        child = multiprocessing.get_context("spawn").Process(target=print, args=("spawned",))
        child.start()
        child.join()
        sys.exit(child.exitcode)


ENDS = {
    # how it ends: what does it, and whether the run is complete then
    "sigterm": (signalled(signal.SIGTERM), False),
    "sigterm_exit": (handled(lambda: sys.exit(3)), True),
    "sigterm_os_exit": (handled(lambda: os._exit(4)), False),
    "sighup": (signalled(signal.SIGHUP), False),
    "sigint": (signalled(signal.SIGINT), True),
    "sigint_twice": (interrupted_twice, None),
    "sigalrm": (alarm(signal.SIG_DFL), False),
    "sigalrm_raises": (alarm(timed_out), True),
    "exit": (left(lambda: sys.exit(6)), True),
    "os_exit": (left(lambda: os._exit(5)), False),
    "abort": (left(os.abort), False),
    "raises": (left(lambda: 1 / 0), True),
    "exit_in_a_thread": (exits_in_a_thread, True),
    "never_stopped": (never_stopped, False),
    "torn_down_in_mid_flush": (torn_down_in_mid_flush, False),
    "a_daemon_fails": (a_daemon_fails, False),
    "a_daemon_goes_on": (a_daemon_goes_on, True),
    "trains_at_exit": (trains_at_exit, True),
    "trains_at_exit_unstopped": (trains_at_exit_unstopped, False),
    "a_new_one_at_exit": (a_new_one_at_exit, True),
    "a_forked_child_trains": (forked(child_trains), True),
    "a_forked_child_records": (forked(child_records), True),
    "a_spawned_child": (spawned, True),
}


def main():
    """In the server nothing but its loop; in a child the ending."""
    answers = os.dup(1)
    for line in sys.stdin:
        directory, how, recorded = line.split()
        child = os.fork()
        if child == 0:
            os.dup2(os.open(Path(directory, "stderr"), os.O_WRONLY | os.O_CREAT, 0o644), 2)
            faulthandler.dump_traceback_later(200, exit=True)  # not to wait for without end
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            ENDS[how][0](ll.record(directory, name="run") if recorded == "1" else Unrecorded())
            return
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os.write(answers, b"%d\n" % status)


if __name__ == "__main__":
    main()
