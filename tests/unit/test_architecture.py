"""The package's files and their levels: an import leads to the same level or a lower one."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

import lossledger

SOURCE = Path(lossledger.__file__).parent

LEVELS: tuple[set[str], ...] = (
    # Values and errors.
    {"__init__", "backends", "entry", "errors", "floats", "uncaught", "vectors", "words"},
    # Folds over arrays; files on disk.
    {
        "exact",
        "chance",
        "totals",
        "series",
        "statistics",
        "epochs",
        "passes",
        "uneven",
        "conventions",
        "request",
    }
    | {
        "folder",
        "lock",
        "segments.*",
        "records",
        "store",
        "shares",
        "merging",
        "workers",
        "catalog",
    }
    | {"catalog", "growth"}
    | {"objects", "copies", "uploads"},
    # What a run says.
    {"call", "chosen", "continued", "folded", "restored", "statement", "reported", "returned"}
    | {"run", "notebook", "plot"},
    # Into Keras, why numbers differ, out to people, and files of other tools.
    {"keras.*", "reconciliation.*", "render.*", "page.*", "explain.*", "export.*"},
    # The recording of a training, the loop, and training again.
    {"recorder.*", "callback", "runner", "loop.*", "replay.*"},
    # The programs.
    {"cli.*", "__main__", "demo.*", "live.*"},
)

ALONE = {
    "pyarrow": {
        "segments.tables",
        "segments.spans",
        "segments.stream",
        "segments.sealed",
        "export.tables",
        "objects",
    },
    "rich": {"render.terminal"},
    "keras": {"keras.*", "callback", "loop.*", "replay.training", "replay.seeded"},
    "tensorflow": {
        *("keras.tensorflow", "keras.tensorflow_ring", "keras.tensorflow_replicas"),
        *("keras.tensorflow_buffer", "keras.describe"),
        *("loop.tensorflow", "loop.tensorflow_replicas", "loop.order"),
    },
    "jax": {"keras.jax", "keras.describe", "loop.jax"},
    "torch": {"keras.torch", "keras.describe", "loop.torch", "loop.tape", "loop.noted"},
    "matplotlib": {"plot"},
}
"""The only modules that import a library."""


class Arrow(NamedTuple):
    """One import; `target` is a module of the package (`ours`), or another's full name."""

    source: str
    target: str
    ours: bool
    typing: bool = False  # only for the type checker


def module_of(path: Path) -> str:
    """The name within the package: `render.terminal`; a package's `__init__` is `render`."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


MODULES = {module_of(path): path for path in sorted(SOURCE.rglob("*.py"))}


def is_one_of(module: str, patterns: set[str]) -> bool:
    top = module.partition(".")[0]
    return module in patterns or f"{top}.*" in patterns


def level_of(module: str) -> int:
    found = [level for level, patterns in enumerate(LEVELS) if is_one_of(module, patterns)]
    assert len(found) == 1, f"{module} must stand on one level of LEVELS"
    return found[0]


def imports(source: str) -> Iterator[Arrow]:
    """All imports of a module, those inside functions too."""
    tree = ast.parse(MODULES[source].read_text())
    typing = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{source}: imports are absolute"
            base = node.module or ""
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            top, _, rest = name.partition(".")
            ours = top == "lossledger"
            yield Arrow(source, within(rest) if ours else name, ours, id(node) in typing)


def within(name: str) -> str:
    """The module of the package that a name in it is or comes from."""
    while name and name not in MODULES:
        name = name.rpartition(".")[0]
    return name or "__init__"


ARROWS = [arrow for module in MODULES for arrow in imports(module)]
# The package's own names are imported where they are first asked for.
OURS = [arrow for arrow in ARROWS if arrow.ours and arrow.source != "__init__"]


def test_the_arrows_are_found() -> None:
    assert Arrow("store", "segments.stream", ours=True) in OURS
    assert Arrow("recorder.deferred", "recorder.recording", ours=True) in OURS  # in a function
    assert Arrow("run", "pyarrow", ours=False, typing=True) in ARROWS


@pytest.mark.parametrize("module", MODULES)
def test_every_module_stands_on_one_level(module: str) -> None:
    assert level_of(module) >= 0


def test_no_import_leads_to_a_higher_level() -> None:
    # Not for a type's sake either: what lies below names what it needs in a protocol.
    up = [arrow for arrow in OURS if level_of(arrow.target) > level_of(arrow.source)]
    assert not up


def test_no_imports_go_round() -> None:
    graph: dict[str, set[str]] = {}
    for arrow in OURS:
        if not arrow.typing:
            graph.setdefault(arrow.source, set()).add(arrow.target)
    TopologicalSorter(graph).prepare()  # raises where there is a cycle


@pytest.mark.parametrize(("source", "target"), [("keras", "render"), ("render", "keras")])
def test_recording_and_showing_know_nothing_of_each_other(source: str, target: str) -> None:
    tops = {(arrow.source.partition(".")[0], arrow.target.partition(".")[0]) for arrow in OURS}
    assert (source, target) not in tops


@pytest.mark.parametrize("library", ALONE)
def test_only_some_modules_know_a_library(library: str) -> None:
    knowing = {
        arrow.source
        for arrow in ARROWS
        if arrow.target.partition(".")[0] == library and not (arrow.ours or arrow.typing)
    }
    assert not {module for module in knowing if not is_one_of(module, ALONE[library])}
    assert knowing


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import lossledger", {"numpy", "keras", "pyarrow", "rich"}),
        (
            "from lossledger.cli import main; main(['--help'])",
            {"numpy", "keras", "pyarrow", "rich"},
        ),
        ("from lossledger.cli import main; main(['list', '.'])", {"numpy", "keras", "pyarrow"}),
        ("from lossledger.cli import main; main(['show', 'absent'])", {"keras"}),
        ("from lossledger.cli import main; main(['report', 'absent'])", {"keras", "rich"}),
        ("from lossledger.cli import main; main(['explain', '.'])", {"keras", "pyarrow"}),
        ("from lossledger.cli import main; main(['reconcile', 'a', 'b'])", {"keras"}),
        (
            "from lossledger.cli import main; main(['export', 'absent', '--to', 'csv'])",
            {"keras", "mlflow", "wandb"},
        ),
    ],
)
def test_a_program_imports_only_what_it_needs(code: str, absent: set[str], tmp_path: Path) -> None:
    script = f"import atexit, sys\natexit.register(lambda: print('\\n', *sys.modules))\n{code}\n"
    command = [sys.executable, "-c", script]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    modules = set(found.stdout.splitlines()[-1].split())
    assert "lossledger" in modules
    assert not modules & (absent | {"tensorflow", "jax", "torch"})
