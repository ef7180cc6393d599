"""`--pdfs` gives each node its folder, makes new nodes for more, or deals one folder out."""

from pathlib import Path

import pytest

from scripts.run.data.options import deal_out, with_sources
from trfmoe_core.config import Recipe
from trfmoe_core.errors import ConfigError, DataError


def recipe(num_nodes: int = 3) -> Recipe:
    return Recipe.model_validate({"nodes": [{"name": f"n{number}", "data": ["old"]} for number in range(num_nodes)]})


def test_no_sources_change_nothing() -> None:
    assert with_sources(recipe(), []) == recipe()


def test_as_many_as_nodes_are_one_each_in_order(tmp_path: Path) -> None:
    changed = with_sources(recipe(), [tmp_path / name for name in "abc"])
    assert [node.data for node in changed.nodes] == [[str(tmp_path / name)] for name in "abc"]
    assert [node.name for node in changed.nodes] == ["n0", "n1", "n2"]


def test_more_than_nodes_make_new_nodes(tmp_path: Path) -> None:
    changed = with_sources(recipe(), [tmp_path / name for name in "abcde"])
    assert [node.name for node in changed.nodes] == ["n0", "n1", "n2", "node-4", "node-5"]
    assert changed.federation_size == 5


def test_a_recipe_without_nodes_gets_them(tmp_path: Path) -> None:
    changed = with_sources(Recipe(), [tmp_path / name for name in "abc"])
    assert [node.name for node in changed.nodes] == ["node-1", "node-2", "node-3"]


def test_two_for_three_nodes_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="given 2 times, and the recipe has 3 nodes"):
        with_sources(recipe(), [tmp_path, tmp_path])


def test_one_folder_is_dealt_out_in_turn(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("a.pdf", "b.TXT", "c.parquet", "deep/d.pdf", "e.exe"):
        (tmp_path / name).touch()
    shares = deal_out(tmp_path, 3)
    assert [[Path(path).name for path in share] for share in shares] == [["a.pdf", "d.pdf"], ["b.TXT"], ["c.parquet"]]


def test_a_folder_with_too_few_files_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").touch()
    with pytest.raises(DataError, match=r"1 readable file, too few to deal out to 3 nodes; add files, .*\.pdf"):
        with_sources(recipe(), [tmp_path])
    with pytest.raises(DataError, match="no such folder"):
        with_sources(recipe(), [tmp_path / "missing"])
