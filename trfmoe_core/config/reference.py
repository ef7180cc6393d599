"""The page about all settings of a recipe, made from their types."""

from collections.abc import Iterator
from typing import Any

from trfmoe_core.config.schema import Schema, recipe_schema, resolve, settings_of
from trfmoe_core.config.yaml_text import flow_yaml

INTRODUCTION = """\
# Configuration reference

Every setting of a recipe and of a node, with its range, default, meaning and an example. This page is made from the
types in `trfmoe_core/config/` by `trfmoe configs reference`; edit those, not this page.

- A recipe is a YAML file. `trfmoe configs ls` lists those that come with the project, and `trfmoe configs cp` copies
  one to edit.
- A key is written here with dots. `--set rounds.num_rounds=20` on the command line is the same as, in the file,

  ```yaml
  rounds:
    num_rounds: 20
  ```

- `trfmoe configs check RECIPE` finds every wrong key and value, and names the place and the remedy.
- Editors that speak YAML's language server complete and check recipes by `configs/schema.json`, which the first line of
  every recipe names.
- Units stand at the end of a key: `_s` seconds, `_mb` megabytes. `null` means that nothing is set.
- `trfmoe plan RECIPE` says what a run will cost. The [glossary](glossary.md) explains the words.
"""
COLUMNS = ("Key", "Type and range", "Default", "Meaning", "Example")
BOUNDS = (
    ("minimum", "≥ {}"),
    ("exclusiveMinimum", "> {}"),
    ("maximum", "≤ {}"),
    ("exclusiveMaximum", "< {}"),
)
TYPES = {"integer": "integer", "number": "number", "string": "text", "boolean": "true or false", "null": "null"}


def reference_page() -> str:
    """Returns the page, in Markdown: one table a section, in the order of the types."""
    schema = recipe_schema()
    definitions = schema["$defs"]
    parts = [INTRODUCTION]
    told = []
    for key, section in _sections("", schema, definitions):
        if section in told:  # the sources share a section
            continue
        told.append(section)
        parts.append(f"## {f'`{key}`' if key else 'Top level'}\n\n{section['description']}\n")
        parts.append(_table(key, section, definitions))
    return "\n".join(parts)


def _sections(key: str, section: Schema, definitions: Schema) -> Iterator[tuple[str, Schema]]:
    """Yields every section with its dotted key, outer ones first."""
    yield key, section
    for name, setting in settings_of(section, definitions).items():
        for place, inner in _inner(f"{key}.{name}" if key else name, setting, definitions):
            yield from _sections(place, inner, definitions)


def _inner(key: str, setting: Schema, definitions: Schema) -> Iterator[tuple[str, Schema]]:
    """Yields the sections that a setting may hold."""
    for one in (setting, *setting.get("anyOf", [])):
        found = resolve(one, definitions)
        if "properties" in found:
            yield key, found
    if setting.get("type") == "array" and (found := resolve(setting["items"], definitions)).get("properties"):
        yield f"{key}[]", found
    if key == "data.sources":
        for one in definitions["SourceSettings"]["anyOf"]:
            found = resolve(one, definitions)
            yield f"{key}[] of source {found['properties']['source']['const']}", found


def _table(key: str, section: Schema, definitions: Schema) -> str:
    rows = [COLUMNS, tuple("---" for _ in COLUMNS)]
    required = section.get("required", [])
    for name, setting in settings_of(section, definitions).items():
        if "examples" not in setting:  # a section, which has a table of its own
            continue
        prefix = f"{key}." if key and " " not in key else ""
        rows.append(
            (
                f"`{prefix}{name}`",
                "; ".join(dict.fromkeys(_types(setting, definitions))),
                "*required*" if name in required else _code(setting.get("default", setting.get("const", []))),
                _cell(setting["description"]),
                _code(setting["examples"][0]),
            )
        )
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _types(setting: Schema, definitions: Schema) -> Iterator[str]:
    """Yields the types that a value may have, with their ranges, in words."""
    for one in setting.get("anyOf", [setting]):
        found = resolve(one, definitions)
        if "anyOf" in found:
            yield "section"
        elif "enum" in found or "const" in found:
            yield " or ".join(f"`{choice}`" for choice in found.get("enum", [found.get("const")]))
        elif found.get("type") == "array":
            yield f"list of {' or '.join(dict.fromkeys(_types(found['items'], definitions)))}"
        elif found.get("type") == "object":
            yield "section" if "properties" in found else "mapping"
        else:
            bounds = [text.format(f"{found[key]:,}") for key, text in BOUNDS if key in found]
            yield " ".join([TYPES[found["type"]], ", ".join(bounds)]).strip()


def _code(value: Any) -> str:
    """Returns a value as it can stand in a recipe."""
    return f"`{_cell(repr(value) if isinstance(value, float) else flow_yaml(value))}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
