"""The examples of `Loop` run, at a small size, and print what they promise."""

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
    "convnet": "evaluate on the training data",
}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    scripts = [EXAMPLES / f"{name}.py" for name in SAYS]
    found = in_turn(scripts, tmp_path_factory.mktemp("examples"), **SMALL)
    return dict(zip(SAYS, found, strict=True))


@pytest.mark.parametrize("name", SAYS)
def test_example(name: str, ran: dict[str, dict[str, str]]) -> None:
    assert not ran[name]["error"], ran[name]["error"]
    assert SAYS[name] in ran[name]["printed"]
