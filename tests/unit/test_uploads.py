"""The order of uploads, and what a reader sees of them at any moment."""

import os
import shutil

import numpy as np
from made import Made

import lossledger
from lossledger import copies, uploads
from lossledger.errors import LossLedgerError
from lossledger.growth import growth
from lossledger.objects import Remote

LOSSES = [4.0, 2.0, 1.0, 0.5, 0.25, 0.125]


def test_a_run_whose_machine_is_gone_is_over(tmp_path, monkeypatch):
    """Its lock on the store gets old: nobody is left to take it away."""
    monkeypatch.setenv("LOSSLEDGER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(copies, "LOOK_SECONDS", 0.0)
    made = Made(tmp_path / "here")
    made.steps(LOSSES)
    made.writer.flush()
    there = f"file://{tmp_path}/there"
    uploads.upload(made.path, Remote(there))
    lock = tmp_path / "there" / made.path.name / "writer.lock"
    lock.touch()
    path = lossledger.open(f"{there}/train").path
    looks = growth(path, sleep=lambda _: os.utime(lock, (0, 0)))
    assert list(looks) == [False, True]


class Down(Remote):
    """A store that is down for the first so many requests."""

    left = 0

    def files(self):
        if Down.left:
            Down.left -= 1
            raise OSError("it is down")
        return super().files()

    def __truediv__(self, name):
        return Down(f"{self.uri}/{name}")


def test_trouble_is_tried_again_ever_more_slowly(tmp_path):
    made = Made(tmp_path / "here")
    made.steps(LOSSES)
    made.close()
    there = f"file://{tmp_path}/there"
    for fails, outcome in ((8, None), (100, "not-uploaded")):
        time, waits = [0.0], []

        def sleep(seconds, time=time, waits=waits):
            waits.append(seconds)
            time[0] += seconds

        Down.left = fails
        try:
            uploads.upload(made.path, Down(there), sleep=sleep, clock=lambda time=time: time[0])
            slug = None
        except LossLedgerError as error:
            slug = error.slug
        assert slug == outcome
        assert waits[:8] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert uploads.PATIENCE <= sum(waits) <= uploads.PATIENCE + 30
    assert lossledger.open(f"{there}/train").losses().tolist() == LOSSES


class Cut(Exception):
    pass


class Cutting(Remote):
    """Loses its connection for good after so many changes."""

    left = 0

    def _change(self):
        if Cutting.left == 0:
            raise Cut
        Cutting.left -= 1

    def write(self, name, data):
        self._change()
        super().write(name, data)

    def delete(self, name):
        self._change()
        super().delete(name)

    def _at(self, path):
        return Cutting(super()._at(path).uri)

    def __truediv__(self, name):
        return self._at(f"{self._path}/{name}")


def test_a_reader_always_sees_what_is_promised(tmp_path, monkeypatch):
    """Uploads of a run as it grows, each cut after its every change."""
    monkeypatch.setattr(copies, "LOOK_SECONDS", 0.0)
    made = Made(tmp_path / "here", segment_rows=8)
    made.call(0, driver="custom", model=0)
    stages = [made.path]
    for place in range(3):
        made.steps(np.arange(6.0))
        made.writer.flush()
        stages.append(tmp_path / f"stage-{place}" / made.path.name)
        shutil.copytree(made.path, stages[-1])
    made.close()
    truth = np.tile(np.arange(6.0), 3).tolist()
    stages = [*stages[1:], made.path]
    seen = set()
    for left in range(30):
        monkeypatch.setenv("LOSSLEDGER_CACHE", str(tmp_path / f"cache-{left}"))
        there = f"file://{tmp_path}/there-{left}"
        Cutting.left = left
        for stage in stages:
            try:
                uploads.upload(stage, Cutting(there))
            except Cut:
                break
        if not copies.is_run(Remote(f"{there}/{made.path.name}")):
            continue
        run = lossledger.open(f"{there}/{made.path.name}")
        losses = run.losses().tolist()
        assert losses == truth[: len(losses)]
        assert not run.complete or losses == truth
        seen.add(len(losses))
    assert seen == {6, 12, 18}
    assert run.complete
