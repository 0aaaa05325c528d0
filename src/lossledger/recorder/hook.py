"""Run something when a module has just been imported, without importing it.

Imports little: a script may have modules named like those of the standard library, and would get
ours. `importlib.abc` alone brings `random` and `tempfile`.
"""

import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_executed: set[str] = set()
"""Modules whose code has run, though their import may not have returned: an action sees them so."""


class AfterImport:
    """A finder on `sys.meta_path` that calls `action` once the module `name` has been imported.

    Args:
        name: A top-level module's name.
        action: Called without arguments, after the module's own code has run.

    `failed` says whether the module's code raised, when it ran last.
    """

    def __init__(self, name: str, action: Callable[[], None]) -> None:
        self.name = name
        self.action = action
        self.failed = False

    def install(self) -> None:
        """Begin to watch; `remove` ends it. Acts at once if the module is there already."""
        module = sys.modules.get(self.name)
        begun = getattr(getattr(module, "__spec__", None), "_initializing", False)
        if module is not None and (self.name in _executed or not begun):
            self.action()
        else:
            sys.meta_path.insert(0, self)

    def remove(self) -> None:
        """Stop watching."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)

    def find_spec(
        self, fullname: str, path: Any = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Let the other finders find the module, and wrap how it is executed."""
        if fullname != self.name:
            return None
        # Those before it were asked already; one of them may be another hook, which asks this one.
        place = sys.meta_path.index(self) if self in sys.meta_path else -1
        for finder in sys.meta_path[place + 1 :]:
            find = None if finder is self else getattr(finder, "find_spec", None)
            spec = find(fullname, path, target) if find is not None else None
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _Loader(spec.loader, self._imported, self._failed)
                return spec
        return None

    def _imported(self) -> None:
        # Not before: to ask for a module's spec, as TensorFlow does of Keras, is not to import it.
        self.remove()
        self.failed = False
        self.action()

    def _failed(self) -> None:
        self.failed = True


class _Loader:
    """A loader that calls `action` after executing the module, and then leaves no trace.

    Args:
        loader: The module's own.
        action: What follows its code.
        failed: What follows where that code raised.
    """

    def __init__(self, loader: Any, action: Callable[[], None], failed: Callable[[], None]) -> None:
        self._loader = loader
        self._action = action
        self._failed = failed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        _executed.discard(module.__name__)
        try:
            self._loader.exec_module(module)
        except BaseException:
            self._failed()
            raise
        _executed.add(module.__name__)
        self._action()
