"""Every recipe of the project can be read, and the demo has its liar."""

from pathlib import Path

import pytest

from tests.places import ROOT
from trfmoe_core.config import load_recipe

FOLDER = ROOT / "configs"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.name)
def test_recipe(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.name.replace("-", "_") == path.stem
    assert recipe.federation_size == len(recipe.nodes) == 3


def test_the_demo_is_told_to_lie() -> None:
    drills = [node.drill for node in load_recipe(FOLDER / "demo.yaml").nodes]
    assert [drill and (drill.attack, drill.factor, drill.from_round) for drill in drills] == [
        None,
        None,
        ("scale", -10.0, 4),
    ]
