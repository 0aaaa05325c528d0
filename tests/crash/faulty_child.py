"""Forks recordings that meet trouble; a line on stdin starts one: a folder and the trouble.

`fault:N:ERROR:how`: the Nth call that changes something under the folder fails with an errno,
`once` or from there on (`always`); a write may take `half` of its bytes before. `interrupt:N`:
Ctrl-C at the Nth line of ours that runs. `gone:N`: the folder is deleted before the Nth step.
`clock:N`: the calendar jumps about. A run that is there already is resumed. Its outcome goes to
stdout as one line of JSON.
"""

import contextlib
import datetime
import errno
import io
import itertools
import json
import os
import random
import shutil
import signal
import sys
import time
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet  # noqa: F401 - before the fork: it takes longer than all the rest

import lossledger as ll
from lossledger import folder, run, store  # noqa: F401
from lossledger.recorder import before, call, collector, custom, output, record, recording
from lossledger.segments import checked, sealed, segment, stream, tables

OURS = (before, call, collector, custom, folder, output, record, recording)
OURS = {m.__file__ for m in (*OURS, checked, sealed, segment, store, stream, tables)}
ON_PATHS = ("open", "mkdir", "replace", "unlink", "symlink")
ON_FILES = ("write", "fsync", "ftruncate", "close")
EPOCHS, STEPS = 3, 9


class Disk:
    """Every call of the system that changes something under a folder, counted; some fail."""

    def __init__(self, directory, number, error, how):
        self.directory = str(directory)
        self.number, self.error, self.how = number, error, how
        self.calls = []
        self.ours = set()
        for name in ON_PATHS:
            setattr(os, name, partial(self.on_path, name, getattr(os, name)))
        for name in ON_FILES:
            setattr(os, name, partial(self.on_file, name, getattr(os, name)))
        self.plain_open, io.open = io.open, self.open

    def on_path(self, name, original, path, *arguments, **options):
        ours = str(path).startswith(self.directory) and (
            name != "open" or arguments[0] & os.O_CREAT
        )
        if ours:
            self.counted(name)
        result = original(path, *arguments, **options)
        if name == "open" and ours:
            self.ours.add(result)
        return result

    def on_file(self, name, original, descriptor, *arguments):
        if descriptor not in self.ours:
            return original(descriptor, *arguments)
        if name == "close":
            self.ours.discard(descriptor)
            original(descriptor)  # as Linux has it: closed, whatever it says
            self.counted(name)
            return None
        try:
            self.counted(name)
        except OSError:
            if name == "write" and self.how == "half" and len(arguments[0]) > 1:
                self.how = "once"
                return original(descriptor, arguments[0][: len(arguments[0]) // 2])
            raise
        return original(descriptor, *arguments)

    def counted(self, name):
        self.calls.append(name)
        past = len(self.calls) - self.number
        if past == 0 or (past > 0 and self.how == "always") or (past == 1 and self.how == "half"):
            raise OSError(self.error, os.strerror(self.error))

    def open(self, path, mode="r", buffering=-1, *arguments, **options):
        if not str(path).startswith(self.directory) or not set(mode) & set("wax+"):
            return self.plain_open(path, mode, buffering, *arguments, **options)
        disk = self

        class File(io.FileIO):
            """A file whose writes are counted."""

            def write(self, data):
                return disk.on_file("write", lambda _, data: super(File, self).write(data), 0, data)

            def truncate(self, size=None):
                disk.counted("ftruncate")
                return super().truncate(size)

            def close(self):
                again = self.closed
                super().close()
                if not again:
                    disk.counted("close")

        self.counted("open")
        self.ours.add(0)
        raw = File(path, mode.replace("b", ""))
        self.ours.add(raw.fileno())
        if buffering == 0:
            return raw
        return io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)


def interrupt_at_line(number):
    left = itertools.count(number, -1)

    def trace(frame, event, _):
        if frame.f_code.co_filename not in OURS:
            return None
        if event == "line" and next(left) == 0:
            os.kill(os.getpid(), signal.SIGINT)
        return trace

    sys.settrace(trace)


def jumping_clock(seed):
    chance = random.Random(seed)

    class Jumping(datetime.datetime):
        @classmethod
        def now(cls, zone=None):
            jump = datetime.timedelta(days=chance.uniform(-400, 400))
            return datetime.datetime.fromtimestamp(1.8e9, zone) + jump

    before.datetime = output.datetime = Jumping
    time.time = lambda: 1.8e9 + chance.uniform(-1e7, 1e7)


def train(steps, gone=-1, directory=None):
    """A descent on numbers of its own, with a ledger in it; returns what it has come to."""
    weight, losses, interrupts = np.float64(1.0), [], 0
    for epoch in range(EPOCHS):
        try:
            if steps is not None:
                steps.epoch(epoch)
        except KeyboardInterrupt:
            interrupts += 1
        for batch in range(STEPS):
            if len(losses) == gone:
                shutil.rmtree(directory)
            loss = np.float32(weight**2 + batch / 8)
            weight -= 0.1 * weight
            more = {"a_loss": loss / 2} if epoch == 2 else {}
            losses.append(float(loss))
            try:
                if steps is not None:
                    steps.step(loss, rows=2, model=("main", "other")[batch == 5], **more)
                    if batch % 3 == 2:
                        steps.collector.collect()
            except KeyboardInterrupt:
                interrupts += 1
    return float(weight), losses, interrupts


def recorded(directory, trouble):
    store.Writer = partial(store.Writer, segment_rows=8)
    collector.FLUSH_SECONDS = 3600
    kind, *how = trouble.split(":")
    error = getattr(errno, how[1]) if kind == "fault" else 0
    disk = Disk(directory, int(how[0]), error, how[2]) if kind == "fault" else None
    gone = int(how[0]) if kind == "gone" else -1
    if kind == "clock":
        jumping_clock(int(how[0]))
    escaped = None
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        there = "latest" if (directory / "latest").exists() else None
        one = ll.record(directory, name="run", resume=there)
        if kind == "interrupt":
            interrupt_at_line(int(how[0]))
        interrupts = 0
        try:
            with contextlib.suppress(KeyboardInterrupt):
                one.start()
            weight, losses, interrupts = train(one, gone, directory)
        except Exception as error:
            escaped = repr(error)
            weight, losses, interrupts = 0.0, [], 0
        for _ in range(2):
            try:
                one.stop()
                break
            except KeyboardInterrupt:
                interrupts += 1
        sys.settrace(None)
    return {
        "same": (weight, losses) == train(None)[:2],
        "escaped": escaped,
        "losses": losses,
        "interrupts": interrupts,
        "told": [str(each.message) for each in told],
        "calls": disk.calls if disk else [],
    }


def main():
    for line in sys.stdin:
        directory, trouble = line.split()
        if os.fork() == 0:
            write, leave = os.write, os._exit
            try:
                outcome = recorded(Path(directory), trouble)
            except BaseException as error:
                outcome = {"escaped": repr(error)}
            write(1, json.dumps(outcome).encode() + b"\n")
            leave(0)
        os.wait()


if __name__ == "__main__":
    main()
