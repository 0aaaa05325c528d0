"""Runs in other trackers' forms: `lossledger export`, and beside a recording."""

from lossledger.export.exporting import TRACKERS, Exported, export

__all__ = ["TRACKERS", "Exported", "export"]
