"""The page and the JSON schema of all settings: current, complete, and as strict as the types."""

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

from tests.places import ROOT
from trfmoe_core.config import Recipe, load_recipe
from trfmoe_core.config.problems import _inner_model
from trfmoe_core.config.reference import reference_page
from trfmoe_core.config.schema import recipe_schema, settings_of
from trfmoe_core.config.sources import SOURCES, Partition
from trfmoe_core.config.yaml_text import flow_yaml, load_yaml

SCHEMA = recipe_schema()
RECIPES = sorted((ROOT / "configs").glob("*.yaml"))
AGAIN = "run `trfmoe configs reference` and commit what it writes"


def sections(kind: type[BaseModel] = Recipe) -> Iterator[type[BaseModel]]:
    yield kind
    for field in kind.model_fields.values():
        inner = _inner_model(field.annotation)
        if isinstance(inner, type) and issubclass(inner, BaseModel) and inner is not Partition:
            yield from sections(inner)


TYPES = [*dict.fromkeys(sections()), Partition, *(SOURCES.find(name) for name in SOURCES.names())]


def test_the_page_and_the_schema_are_current() -> None:
    assert (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8") == reference_page(), AGAIN
    assert json.loads((ROOT / "configs" / "schema.json").read_text(encoding="utf-8")) == SCHEMA, AGAIN


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.__name__)
def test_every_setting_has_a_meaning_and_an_example_that_its_type_takes(kind: type[BaseModel]) -> None:
    shown = settings_of(kind.model_json_schema(), {})
    for name, field in kind.model_fields.items():
        inner = _inner_model(field.annotation)
        if isinstance(inner, type) and issubclass(inner, BaseModel) and not field.description:
            assert isinstance(field.default, BaseModel), f"{kind.__name__}.{name}: no description"
            continue
        assert shown[name].get("description"), f"{kind.__name__}.{name}: give it a description"
        assert shown[name].get("examples"), f"{kind.__name__}.{name}: give it an example"
        example = shown[name]["examples"][0]
        assert example != field.default, f"{kind.__name__}.{name}: the example is the default"
        TypeAdapter(kind.__annotations__.get(name, field.annotation)).validate_python(example)
        if isinstance(example, int | float | str) and name not in ("source", "index", "of"):
            check_alone(kind, name, example)


def check_alone(kind: type[BaseModel], name: str, example: Any) -> None:
    """The example keeps the setting's own range; that it may need another setting beside it is no fault."""
    try:
        kind.model_validate({name: example})
    except ValidationError as error:
        assert not [one for one in error.errors() if one["loc"] == (name,)], error


def test_the_page_has_every_key_once() -> None:
    page = reference_page()
    for key in ("rounds.num_rounds", "model.expert_width", "data.pdf.engine", "nodes[].limits.hours", "max_documents"):
        assert page.count(f"| `{key}` |") == 1, key
    assert "| `training.learning_rate` | number > 0, ≤ 1 | `0.001` |" in page


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_the_schema_takes_every_recipe(path: Any) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# yaml-language-server: $schema=schema.json\n")
    jsonschema.Draft202012Validator(SCHEMA).validate(load_yaml(text))
    load_recipe(path)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"model": {"widht": 64}}, "widht"),
        ({"model": {"layers": 0}}, "minimum"),
        ({"rounds": {"wait": "some"}}, "enum"),
        ({"nodes": [{"name": "a"}]}, "data"),
        ({"nodes": [{"name": "a", "data": [{"path": "x", "pasword": "y"}]}]}, "anyOf"),
        ({"training": {"learning_rate": "fast"}}, "number"),
    ],
)
def test_the_schema_refuses_what_the_types_refuse(change: dict[str, Any], told: str) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    with pytest.raises(jsonschema.ValidationError, match=told):
        jsonschema.Draft202012Validator(SCHEMA).validate(change)
    with pytest.raises(ValidationError):
        Recipe.model_validate(change)


@pytest.mark.parametrize(
    "written",
    [
        {"data": ["papers"]},
        {"data": {"sources": [{"source": "fineweb", "max_documents": 5}, {"path": "x", "languages": "en"}]}},
        {"witness": {"data": ["x"]}},
        {"nodes": [{"name": "a", "data": ["x", {"path": "y", "partition": {"index": 0, "of": 3}}]}]},
    ],
)
def test_the_schema_takes_what_the_types_take(written: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator(SCHEMA).validate(written)
    Recipe.model_validate(written)


@pytest.mark.parametrize("value", [{"a": [1, "b c"]}, ["on", None, True], "x", "", 1e-6, 7])
def test_a_value_in_one_line_of_yaml(value: Any) -> None:
    assert "\n" not in flow_yaml(value)
    assert load_yaml(flow_yaml(value)) == value
