"""The examples of `Loop` run, at a small size, and print what they promise.

`convnet.py` is run by tests/docs, since a page shows how.
"""

from pathlib import Path

import pytest
from command import in_turn

EXAMPLES = Path(__file__).parents[2] / "examples"
SMALL = {"EPOCHS": "2", "STEPS": "12", "EPISODES": "6"}
SAYS = {
    "gan": "epoch 1   generator",
    "lr_finder": "a tenth of it is a good start",
    "physics": "largest error against sin",
    "dqn": "last episodes took",
}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    scripts = [EXAMPLES / f"{name}.py" for name in SAYS]
    folder = tmp_path_factory.mktemp("examples")
    found = in_turn(scripts, folder, PYTHONPATH="", **SMALL)  # two take digits from scikit-learn
    return dict(zip(SAYS, found, strict=True))


@pytest.mark.parametrize("name", SAYS)
def test_example(name: str, ran: dict[str, dict[str, str]]) -> None:
    assert not ran[name]["error"], ran[name]["error"]
    assert SAYS[name] in ran[name]["printed"]
