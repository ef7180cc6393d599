"""Who a node is: its own file, `--node-config`, or its entry of the recipe; in this order."""

from pathlib import Path

import pytest

from clients.settings import node_settings
from trfmoe_core.errors import ConfigError

RECIPE = "nodes: [{name: a, data: [x]}, {name: b, data: [y]}, {name: c, data: [z]}]"


def test_the_recipe_speaks_for_simulated_nodes(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    settings = node_settings({"partition-id": 1, "num-partitions": 3}, path, tmp_path)
    assert (settings.name, settings.data, settings.tokenizer) == ("b", [str(tmp_path / "y")], "byte")
    path.write_text(RECIPE + "\ndata: {tokenizer: ./words}")
    assert node_settings({"partition-id": 1}, path, tmp_path).tokenizer == str(tmp_path / "words")
    with pytest.raises(ConfigError, match="num-supernodes=3"):
        node_settings({"partition-id": 3}, path, tmp_path)


def test_pairs_come_before_the_recipe(tmp_path: Path) -> None:
    config = {"partition-id": 0, "name": "clinic", "data": "pdfs:/abs/shard.parquet", "drill-factor": -10.0}
    settings = node_settings(config, tmp_path / "no.yaml", tmp_path)
    assert settings.data == [str(tmp_path / "pdfs"), "/abs/shard.parquet"]
    assert settings.drill is not None
    assert settings.drill.factor == -10.0


def test_a_file_comes_first(tmp_path: Path) -> None:
    (tmp_path / "node.yaml").write_text("name: own\ndata: [texts]\ntokenizer: ./words\n")
    config = {"settings": str(tmp_path / "node.yaml"), "name": "ignored"}
    settings = node_settings(config, tmp_path / "no.yaml", tmp_path)
    assert (settings.name, settings.tokenizer) == ("own", str(tmp_path / "words"))


def test_unknown_keys_and_silence_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--node-config: dat: unknown key; did you mean 'data'"):
        node_settings({"name": "a", "dat": "x", "data": "y"}, tmp_path, tmp_path)
    with pytest.raises(ConfigError, match="does not know who it is"):
        node_settings({}, tmp_path, tmp_path)
