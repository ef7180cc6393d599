"""The keys in which the recipes of runs differ, each with its value in every run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from server.run_folder.folder import RunFolder

LONGEST = 48
"""Characters of a value that a column shows."""


@dataclass(frozen=True)
class RecipeRow:
    """A key that differs, and its value in every run, in the order of the runs; None where a run lacks it."""

    key: str
    values: tuple[Any, ...]

    @property
    def shown(self) -> tuple[str, ...]:
        """The values as text."""
        return tuple(shown(value) for value in self.values)


def run_names(folders: Sequence[RunFolder]) -> list[str]:
    """Returns a name for every run: its folder's, or where two have the same, its path."""
    names = [folder.path.name for folder in folders]
    return names if len(set(names)) == len(names) else [str(folder.path) for folder in folders]


def recipe_table(folders: Sequence[RunFolder]) -> list[RecipeRow]:
    """Returns a row for every key whose value is not the same in all runs, by key.

    The entries of a list are compared one by one; those that have a name, as nodes do, by their name. Paths inside a
    run's own folder are compared as paths within it, so that two runs of one recipe do not differ.
    """
    flat = [_flat(_own(folder.recipe.model_dump(mode="json"), folder.path)) for folder in folders]
    keys = sorted({key for one in flat for key in one})
    rows = [RecipeRow(key, tuple(one.get(key) for one in flat)) for key in keys]
    return [row for row in _together(rows) if any(value != row.values[0] for value in row.values)]


def shown(value: Any) -> str:
    """Returns a value as people write it; a long one ends in dots."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        parts = [shown(one) for one in value]
        text = ", ".join(parts)
        return (text if len(text) <= LONGEST or len(parts) == 1 else f"{len(parts)}, the first {parts[0]}") or "none"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {shown(one)}" for key, one in value.items() if one not in (None, "", [])) + "}"
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= LONGEST else f"...{text[3 - LONGEST :]}"


def _own(value: Any, home: Path) -> Any:
    """Returns a recipe's value with the paths inside the run's folder as paths within it."""
    if isinstance(value, dict):
        return {key: _own(one, home) for key, one in value.items()}
    if isinstance(value, list):
        return [_own(one, home) for one in value]
    if isinstance(value, str) and value.startswith(f"{home}/"):
        return f"RUN{value[len(str(home)) :]}"
    return value


def _flat(value: Any, key: str = "") -> dict[str, Any]:
    """Returns dotted key -> value that is neither a mapping nor a list of named mappings."""
    if isinstance(value, list) and value and all(isinstance(one, dict) and "name" in one for one in value):
        inner = {one["name"]: {name: entry for name, entry in one.items() if name != "name"} for one in value}
        return {key: list(inner), **_flat(inner, key)}
    if not isinstance(value, dict):
        return {key: value}
    found: dict[str, Any] = {}
    for name, one in value.items():
        found |= _flat(one, f"{key}.{name}" if key else str(name))
    return found


def _together(rows: Sequence[RecipeRow]) -> list[RecipeRow]:
    """Returns the rows without those of a node that some run lacks: the row of the list's names says that."""
    listed = {row.key: row.values for row in rows if any(isinstance(value, list) for value in row.values)}

    def told(key: str) -> bool:
        for parent, names in listed.items():
            if key.startswith(f"{parent}."):
                name = key[len(parent) + 1 :].split(".")[0]
                return not all(isinstance(one, list) and name in one for one in names)
        return False

    return [row for row in rows if not told(row.key)]
