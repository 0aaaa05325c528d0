"""What an export did: a line for a person, and the same as JSON."""

from lossledger.export.exporting import Exported
from lossledger.render.base import Renderer
from lossledger.render.objects import to_json
from lossledger.words import counted


class TerminalExport(Renderer[Exported]):
    """One line: how much was written, where, and the next command."""

    def render(self, content: Exported) -> str:
        """Gives the line."""
        what = f"{counted(content.added, 'number')} added" if content.added else "nothing to add"
        then = f"  next: {content.next}" if content.next else ""
        has = counted(content.entries, "step")
        return f"{content.tracker}: {what}, {has} in all -> {content.where}{then}"


class JsonExport(Renderer[Exported]):
    """One object: `tracker`, `where`, `entries`, `added`, `next`."""

    def render(self, content: Exported) -> str:
        """Gives the object."""
        return to_json(vars(content))
