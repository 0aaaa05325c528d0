"""The hook that begins a recording when Keras is imported."""

import importlib
import importlib.util
import sys

import pytest

from lossledger.recorder.hook import AfterImport


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "late_module.py").write_text("import sys\nvalue = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "late_module"
    sys.modules.pop("late_module", None)


def test_the_action_follows_the_import(module):
    seen = []
    hook = AfterImport(module, lambda: seen.append(sys.modules[module].value))
    hook.install()
    assert seen == []
    assert importlib.import_module(module).value == 3
    assert seen == [3]
    assert hook not in sys.meta_path
    plain = importlib.util.find_spec(module).loader
    assert type(sys.modules[module].__spec__.loader) is type(plain)
    assert type(sys.modules[module].__loader__) is type(plain)


def test_to_ask_for_a_spec_is_not_to_import(module):
    """TensorFlow looks Keras up before it imports it."""
    seen = []
    hook = AfterImport(module, lambda: seen.append(1))
    hook.install()
    assert importlib.util.find_spec(module) is not None
    assert seen == []
    importlib.import_module(module)
    assert seen == [1]


def test_a_module_that_is_there_already(module):
    seen = []
    importlib.import_module(module)
    AfterImport(module, lambda: seen.append(1)).install()
    assert seen == [1]


def test_a_module_that_fails_or_is_missing(tmp_path, monkeypatch):
    (tmp_path / "broken_module.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    seen = []
    hooks = [AfterImport(name, lambda: seen.append(1)) for name in ("broken_module", "no_module")]
    for hook in hooks:
        hook.install()
    with pytest.raises(ZeroDivisionError):
        importlib.import_module("broken_module")
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("no_module")
    assert seen == []
    for hook in hooks:
        hook.remove()
    assert not {*hooks} & {*sys.meta_path}


def test_two_wait_for_one_module(module):
    """`lossledger run` waits for Keras, and so does a recording that the script begins."""
    seen = []
    hooks = [AfterImport(module, lambda name=name: seen.append(name)) for name in "ab"]
    for hook in hooks:
        hook.install()
    assert importlib.import_module(module).value == 3
    assert sorted(seen) == ["a", "b"]
    assert not set(hooks) & set(sys.meta_path)
