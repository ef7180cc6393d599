"""Who starts a recipe whose text is not here is told of all of it at once, and of --pdfs where that helps."""

from collections.abc import Callable
from pathlib import Path

import pytest

from scripts.run.preflight import prepare_nodes
from scripts.terminal.output import Output
from trfmoe_core.config import Recipe
from trfmoe_core.errors import DataError


def test_all_missing_text_is_named_at_once(tiny_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    recipe = tiny_recipe()
    nodes = [node.model_copy(update={"data": [str(tmp_path / node.name)]}) for node in recipe.nodes]
    recipe = recipe.model_copy(update={"nodes": nodes})
    first, last = nodes[0].name, nodes[-1].name
    with pytest.raises(DataError, match=rf"{first} \(.*{last} \(.*correct the paths, or give --pdfs FOLDER"):
        prepare_nodes(recipe, Output(as_json=True), choosable=True)
    with pytest.raises(DataError, match=rf"node {first}: .*correct the path$"):
        prepare_nodes(recipe, Output(as_json=True))
