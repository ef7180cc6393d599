"""The JSON schema of recipes, made from their types. Editors complete and check recipes with it."""

from typing import Any

from trfmoe_core.config.recipe import Recipe
from trfmoe_core.config.sources import DEFAULT, SOURCES

DIALECT = "https://json-schema.org/draft/2020-12/schema"
REFERENCE = "#/$defs/{model}"

Schema = dict[str, Any]


def recipe_schema() -> Schema:
    """Returns the schema of a recipe's file. Every setting has its meaning, range, default and an example.

    A rule between two settings, such as that `heads` divides `width`, is no part of a schema: only reading the recipe
    checks it.
    """
    schema = Recipe.model_json_schema(ref_template=REFERENCE)
    definitions = schema.pop("$defs")
    definitions["SourceSettings"] = {"anyOf": [_add_source(name, definitions) for name in SOURCES.names()]}
    return {"$schema": DIALECT, "title": "TR-FMoE recipe", **_tidy(schema), "$defs": _tidy_all(definitions)}


def settings_of(schema: Schema, definitions: Schema) -> dict[str, Schema]:
    """Returns the settings of a section by name, each with the example that its type gives.

    Args:
        schema: The section's schema, or a reference to it.
        definitions: Schemas that it may refer to.
    """
    section = resolve(schema, definitions)
    return {name: _with_example(one) for name, one in section.get("properties", {}).items()}


def resolve(schema: Schema, definitions: Schema) -> Schema:
    """Returns the schema that a reference means, and anything else as it is."""
    reference = schema.get("$ref")
    return definitions[reference.rpartition("/")[2]] if reference else schema


def _add_source(name: str, definitions: Schema) -> Schema:
    """Adds the schema of a source to the definitions, and returns a reference to it."""
    kind = SOURCES.find(name)
    schema = kind.model_json_schema(ref_template=REFERENCE)
    for inner, definition in schema.pop("$defs", {}).items():
        definitions.setdefault(inner, definition)
    if name == DEFAULT:
        schema["required"] = [key for key in schema["required"] if key != "source"]
    definitions[kind.__name__] = schema
    return {"$ref": REFERENCE.format(model=kind.__name__)}


def _tidy_all(definitions: Schema) -> Schema:
    return {name: _tidy(definition) for name, definition in sorted(definitions.items())}


def _tidy(schema: Any) -> Any:
    """Returns a schema without the titles that pydantic makes of names, and with examples of its settings."""
    if isinstance(schema, list):
        return [_tidy(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    tidied = {key: _tidy(value) for key, value in schema.items() if not (key == "title" and isinstance(value, str))}
    if isinstance(schema.get("default"), dict):
        del tidied["default"]  # of a section: its settings have theirs
    if "properties" in schema:
        tidied["properties"] = {name: _tidy(_with_example(one)) for name, one in schema["properties"].items()}
        tidied["description"] = " ".join(schema.get("description", "").split("\n\n")[0].split())
    return tidied


def _with_example(setting: Schema) -> Schema:
    """Returns a setting with an example: its own, or a choice other than the default where the type lists them all."""
    choices: list[Any] = next(
        (one["enum"] for one in [setting, *setting.get("anyOf", [])] if "enum" in one),
        [True, False] if setting.get("type") == "boolean" else [],
    )
    if "examples" in setting or not choices:
        return setting
    other = next((choice for choice in choices if choice != setting.get("default")), choices[0])
    return {**setting, "examples": [other]}
