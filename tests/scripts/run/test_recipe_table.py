"""What differs between the recipes of runs, key by key."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scripts.main import main
from scripts.run.recipe_table import RecipeRow, recipe_table, shown
from scripts.run.run_folders import new_run
from server.run_folder.folder import RunFolder
from trfmoe_core.config import NodeSettings, Recipe


@pytest.fixture
def pair(tiny_recipe: Callable[..., Recipe]) -> list[RunFolder]:
    recipe = tiny_recipe()
    first, *others = recipe.nodes
    locked = {"path": "papers", "passwords": "words.txt"}
    changed = NodeSettings.model_validate({**first.model_dump(), "data": [locked], "state_dir": None})
    dora = NodeSettings.model_validate({"name": "dora", "data": ["letters"]})
    second = recipe.model_copy(update={"nodes": [changed, *others[1:], dora], "vote": "mean"})
    return [new_run(recipe), new_run(second)]


def test_nodes_are_compared_by_name_and_a_node_of_one_run_is_only_named(pair: list[RunFolder]) -> None:
    rows = {row.key: row for row in recipe_table(pair)}
    names = [node.name for node in pair[0].recipe.nodes]
    assert rows["nodes"].values == (names, [names[0], *names[2:], "dora"])
    assert rows["vote"].shown == ("majority", "mean")
    assert rows[f"nodes.{names[0]}.data"].shown[1].endswith("path: papers, passwords: words.txt}")
    assert not [key for key in rows if "dora" in key or key.startswith(f"nodes.{names[1]}.")]
    assert "{'" not in str([row.shown for row in rows.values()]), "nothing is shown as Python writes it"
    assert recipe_table([pair[0], pair[0]]) == []


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (True, "true"), (3e-4, "0.0003"), ([], "none"), (["a", 1], "a, 1"), ("x" * 99, "..." + "x" * 45)],
)
def test_values_are_shown_as_people_write_them(value: Any, text: str) -> None:
    assert shown(value) == text
    assert RecipeRow("key", (value,)).shown == (text,)


def test_the_command_shows_columns(pair: list[RunFolder], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ending:
        main(["runs", "compare", *(str(folder.path) for folder in pair)])
    assert ending.value.code == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["recipe", *(Path(folder.path).name for folder in pair)] in lines
    assert ["vote", "majority", "mean"] in lines
