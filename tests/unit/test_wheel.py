"""The wheel has all that an installation needs without the repository."""

import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Its files by name."""
    folder = tmp_path_factory.mktemp("wheel")
    (path,) = WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


def files(folder: str) -> dict[str, bytes]:
    paths = [path for path in (ROOT / folder).rglob("*") if path.is_file()]
    return {
        str(path.relative_to(ROOT / folder)): path.read_bytes()
        for path in paths
        if "__pycache__" not in path.parts
    }


def test_it_has_every_file_of_the_package_and_the_examples(wheel: dict[str, bytes]) -> None:
    """What is no Python, too: the page's script and styles, `py.typed`, vendored licences."""
    inside = {name: text for name, text in wheel.items() if name.startswith("lossledger/")}
    wanted = {f"lossledger/{name}": text for name, text in files("src/lossledger").items()}
    wanted |= {f"lossledger/examples/{name}": text for name, text in files("examples").items()}
    assert inside == wanted
    assert "lossledger/py.typed" in inside


def test_it_has_its_licence_and_its_command(wheel: dict[str, bytes]) -> None:
    (about,) = [name.partition("/")[0] for name in wheel if name.endswith("/METADATA")]
    metadata = message_from_bytes(wheel[f"{about}/METADATA"])
    for name in metadata.get_all("License-File", []):
        assert wheel[f"{about}/licenses/{name}"] == (ROOT / name).read_bytes()
    assert "LICENSE" in metadata.get_all("License-File", [])
    assert metadata["License-Expression"]
    assert b"lossledger = lossledger.cli:main" in wheel[f"{about}/entry_points.txt"]
    extras = set(metadata.get_all("Provides-Extra", []))
    assert {"tensorflow", "jax", "torch"} <= extras
