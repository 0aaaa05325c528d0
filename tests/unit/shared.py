"""A run that several workers recorded, written as their recorders write it."""

import numpy as np

from lossledger import store, workers
from lossledger.folder import append_line, write_json


class Shared:
    """A run that several workers recorded, each in its folder, as the recorder writes it."""

    def __init__(self, directory, count, segment_rows=50):
        self.path = directory / "2026-11-22_18-38-54-shared"
        about = {"format": 2, "id": self.path.name, "name": "shared", "workers": count}
        self.folders = [workers.join_folder(self.path, rank, about) for rank in range(count)]
        self.writers = [store.Writer(each, segment_rows=segment_rows) for each in self.folders]
        for folder in self.folders:
            append_line(folder / "calls.jsonl", {"call": 0, "model": 0, "driver": "fit"})
        self.about = about

    def write(self, rank, **columns):
        n = len(columns["step"])
        usual = {"call": np.zeros(n, "i4"), "model": np.zeros(n, "i4"), "epoch": np.zeros(n, "i4")}
        self.writers[rank].append({**usual, **columns})

    def close(self, rank, **info):
        self.writers[rank].close()
        own = {**self.about, "workers": None, "complete": True, "warnings": [], **info}
        write_json(self.folders[rank] / "run.json", own)
