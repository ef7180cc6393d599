import json
from pathlib import Path

import pytest

from trfmoe_core.config import NodeSettings, Recipe
from trfmoe_core.config.load import load_node_file, load_recipe, validate
from trfmoe_core.config.sources import SOURCES, SourceSettings
from trfmoe_core.data.sources.files import FilesSource
from trfmoe_core.errors import ConfigError


def node(entry: object) -> NodeSettings:
    return validate(NodeSettings, {"name": "n", "data": [entry]}, "node.yaml")


def test_a_string_stays_a_string_and_a_mapping_becomes_its_source() -> None:
    assert node("some/folder").data == ["some/folder"]
    (entry,) = node({"path": "x", "weight": 2.0}).data
    assert isinstance(entry, FilesSource)
    assert (entry.path, entry.weight, entry.on_end) == ("x", 2.0, "repeat")
    assert node({"path": "x", "weight": 2}).data == [entry]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"source": "fineweeb"}, "node.yaml: data.0.source: 'fineweeb' is unknown; choose one of files"),
        ({"source": 3}, "data.0.source: 3 is unknown"),
        ({"path": "x", "wieght": 2}, "data.0.wieght: unknown key; did you mean 'weight'?"),
        ({"path": "x", "weight": 0}, "data.0.weight: 0 is not allowed; give more than 0"),
        ({"path": "x", "on_end": "loop"}, "data.0.on_end: 'loop' is not allowed; choose 'repeat' or 'stop'"),
        ({"weight": 1}, "data.0.path: missing; add it"),
        ({"path": ""}, "data.0.path: '' is not allowed"),
        ({"path": "x", "partition": {"index": 2, "of": 2}}, "index: 2 is not below of: 2"),
        (3, "data.0"),
        ("", "data.0"),
    ],
)
def test_wrong_entries_are_named(entry: object, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        node(entry)
    assert message in str(caught.value)


def test_entries_survive_being_written_down_and_are_resolved(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    entry = "{path: shared, weight: 2, passwords: keys.txt, languages: en}"
    path.write_text(f"nodes: [{{name: a, data: [x, {entry}]}}, {{name: b, data: [y]}}, {{name: c, data: [{entry}]}}]")
    recipe = load_recipe(path).resolved(tmp_path)
    again = Recipe.model_validate(json.loads(recipe.model_dump_json()))
    assert again == recipe
    got = again.nodes[0].data[1]
    assert isinstance(got, FilesSource)
    assert (got.path, got.passwords, got.languages) == (str(tmp_path / "shared"), str(tmp_path / "keys.txt"), ["en"])
    (tmp_path / "node.yaml").write_text(f"name: a\ndata: [x, {entry}]\n")
    settings = load_node_file(tmp_path / "node.yaml")
    assert settings.data == recipe.nodes[0].data


def test_a_set_override_reaches_into_an_entry(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("nodes: [{name: a, data: [{path: x}]}, {name: b, data: [y]}, {name: c, data: [z]}]")
    (entry,) = load_recipe(path, ["nodes.0.data.0.weight=3"]).nodes[0].data
    assert isinstance(entry, SourceSettings)
    assert entry.weight == 3


def test_every_source_is_registered_under_the_name_it_reads() -> None:
    for name, kind in ((name, SOURCES.find(name)) for name in SOURCES.names()):
        assert kind.model_fields["source"].annotation.__args__ == (name,)  # type: ignore[union-attr]
