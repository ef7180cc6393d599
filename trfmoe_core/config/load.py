"""Reads recipes and node files. Reports the problems at once, each with file, key, value and remedy."""

import hashlib
import json
import os
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from trfmoe_core.config.node import NodeSettings
from trfmoe_core.config.problems import describe_problems, nearest_file
from trfmoe_core.config.recipe import Recipe
from trfmoe_core.config.yaml_text import load_yaml
from trfmoe_core.errors import ConfigError
from trfmoe_core.places import expand

MAX_BYTES = 4 << 20
"""Of a recipe or a node's settings."""

MAX_PROBLEMS = 40
"""Problems that one message lists."""

LENGTHS = frozenset({"steps", "tokens", "epochs"})
"""Keys of `training`, of which one determines the length of a run."""

Model = TypeVar("Model", bound=BaseModel)


def load_recipe(path: Path, overrides: list[str] | None = None) -> Recipe:
    """Returns the checked recipe of a YAML file with `a.b=c` overrides applied.

    An override of `training.steps`, `.tokens` or `.epochs` replaces the one of them that the file gives.

    Raises:
        ConfigError: lists all problems of the file, one per line.
    """
    overrides = overrides or []
    raw = apply_overrides(_read_yaml(path), overrides)
    _drop_other_lengths(raw.get("training"), overrides)
    return validate(Recipe, raw, str(path), overrides)


def load_node_file(path: Path) -> NodeSettings:
    """Returns a node's settings from its YAML file. Relative paths start at the folder of the file.

    Raises:
        ConfigError: lists all problems of the file, one per line.
    """
    settings = validate(NodeSettings, _read_yaml(path), str(path))
    base = path.resolve().parent
    # Not Path.resolve: it raises on a loop of links, and what is wrong with a path is said where it is read.
    return settings.relocated(lambda entry: os.path.abspath(base / expand(entry)))  # noqa: PTH100


def recipe_hash(recipe: Recipe) -> str:
    """Returns the SHA-256 of the resolved recipe's canonical JSON, in hexadecimal."""
    text = json.dumps(recipe.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def apply_overrides(raw: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """Returns a copy of a recipe's mapping with `a.b=c` overrides. Values are YAML.

    An entry of a list is named by its index: `nodes.0.name=clinic`.

    Raises:
        ConfigError: an override has no `=`, its value is not YAML, or its key leads nowhere.
    """
    tree = _plain(raw)
    for override in overrides:
        key, sign, text = override.partition("=")
        if not sign or not key.strip():
            raise ConfigError(f"--set {override!r}: expected key=value, for instance --set rounds.num_rounds=5")
        try:
            value = _plain(load_yaml(text))
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {override!r}: the value is not YAML ({error})") from error
        _assign(tree, key.strip().split("."), value, override)
    return typing.cast(dict[str, Any], tree)


def validate(kind: type[Model], raw: Any, source: str, overrides: Sequence[str] = ()) -> Model:
    """Returns `raw` as a checked `kind`.

    Args:
        kind: What it should be.
        raw: Plain values.
        source: Their origin, for messages.
        overrides: `a.b=c` of the command line, which `raw` holds already; a problem with one of them is told as such.

    Raises:
        ConfigError: lists up to 40 problems with origin, dotted key, value and what is allowed.
    """
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        described = describe_problems(kind, error.errors())
        lines = [f"{origin(source, place, text, overrides)}: {text}" for place, text in described[:MAX_PROBLEMS]]
        if len(described) > MAX_PROBLEMS:
            lines.append(f"{source}: and {len(described) - MAX_PROBLEMS} more problems; mend these first")
        raise ConfigError("\n".join(lines)) from None


def origin(source: str, place: Sequence[int | str], text: str, overrides: Sequence[str]) -> str:
    """Returns where a problem comes from: the override of its key, else the source with the overrides that share in it.

    A rule between several settings of a section is broken by all of them together.

    Args:
        source: Where settings come from that no override gives.
        place: The section or setting that is wrong.
        text: What is wrong with it; begins with the dotted key.
        overrides: `a.b=c` of the command line.
    """
    parts = tuple(str(part) for part in place)
    named = tuple(text.partition(":")[0].split("."))
    sharing = []
    for override in overrides:
        keys = tuple(part.strip() for part in override.partition("=")[0].split("."))
        if keys in (named, parts[: len(keys)]):
            return f"--set {override}"
        if keys[: len(parts)] == parts and (parts or any(key in text for key in keys)):
            sharing.append(f"--set {override}")
    return f"{source} with {' '.join(sharing)}" if sharing else source


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:  # a pipe is as good as a file, and /dev/zero has no end
            content = file.read(MAX_BYTES + 1)
        text = content.decode()
    except FileNotFoundError:
        near = nearest_file(path.name, [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else [])
        hint = f"did you mean {path.parent / near}?" if near else f"the working folder is {Path.cwd()}"
        raise ConfigError(f"{path}: no such file; {hint}") from None
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}); give a recipe that you may read, such as configs/demo.yaml"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not text ({error}); give a recipe, such as configs/demo.yaml") from error
    if len(content) > MAX_BYTES:
        raise ConfigError(f"{path}: has more than {MAX_BYTES >> 20} MiB; give a recipe, such as configs/demo.yaml")
    try:
        raw = load_yaml(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error
    if raw is None:
        raise ConfigError(f"{path}: is empty; give a recipe, such as configs/demo.yaml")
    if not isinstance(raw, dict):
        kind = "a list" if isinstance(raw, list) else "a single value"
        raise ConfigError(f"{path}: a recipe is a mapping of keys to values, this is {kind}")
    return raw


def _plain(value: Any) -> Any:
    """Returns a copy as JSON would hold it: keys are texts, so that an override can name them."""
    return json.loads(json.dumps(value, default=str))


def _drop_other_lengths(training: Any, overrides: list[str]) -> None:
    """Removes the length that the file gives if an override gives one."""
    keys = {f"training.{name}": name for name in LENGTHS}
    given = {keys[key] for override in overrides if (key := override.partition("=")[0].strip()) in keys}
    if isinstance(training, dict) and any(training.get(name) is not None for name in given):
        for name in LENGTHS - given:
            training.pop(name, None)


def _assign(tree: Any, keys: list[str], value: Any, override: str) -> None:
    node = tree
    for depth, key in enumerate(keys):
        last = depth == len(keys) - 1
        if isinstance(node, list):
            if not key.isdigit() or int(key) >= len(node):
                raise ConfigError(
                    f"--set {override!r}: {'.'.join(keys[:depth])} is a list of {len(node)}; "
                    f"name an entry by its number 0..{len(node) - 1}"
                )
            index: Any = int(key)
        elif isinstance(node, dict):
            index = key
            if not last:
                node.setdefault(key, {})
        else:
            raise ConfigError(f"--set {override!r}: {'.'.join(keys[:depth])} is {node!r}, not a section")
        if last:
            node[index] = value
        else:
            if node[index] is None:
                node[index] = {}
            node = node[index]
