"""The recipes that come with the project, and what the comments at their head say.

A recipe begins with the line that leads editors to the schema, and then says in comments `# Purpose: ...`,
`# Size: ...`, `# Memory: ...` and `# Time: ...`; a text may go on in the next lines, indented.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from trfmoe_core.errors import ConfigError
from trfmoe_core.places import APP_FOLDER

FOLDER = APP_FOLDER / "configs"
SCHEMA = FOLDER / "schema.json"
EDITOR_LINE = "# yaml-language-server: $schema={schema}"
FACTS = ("Purpose", "Size", "Memory", "Time")
_FACT = re.compile(rf"^# ({'|'.join(FACTS)}): +(.+(?:\n#  +.+)*)", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What the head of a recipe says of it, empty where it says nothing."""

    purpose: str = ""
    size: str = ""
    memory: str = ""
    time: str = ""


def bundled_recipes() -> list[Path]:
    """Returns the project's own recipes by name."""
    return sorted(FOLDER.glob("*.yaml"))


def read_facts(text: str) -> Facts:
    """Returns what the comments at the head of a recipe say, each on one line."""
    head = re.split(r"^[^#\n]", text, maxsplit=1, flags=re.MULTILINE)[0]
    found = {name.lower(): " ".join(told.replace("\n#", " ").split()) for name, told in _FACT.findall(head)}
    return Facts(**found)


def copy_recipe(source: Path, target: Path) -> Path:
    """Copies a recipe to a new file, whose editor line leads to this installation's schema. Returns the file.

    Args:
        source: The recipe.
        target: The new file, or a folder for it.

    Raises:
        ConfigError: the file exists, or cannot be written.
    """
    place = target / source.name if target.is_dir() else target
    schema = EDITOR_LINE.format(schema=SCHEMA.resolve())
    text = re.sub(r"\A# yaml-language-server: .*", lambda _: schema, source.read_text(encoding="utf-8"))
    try:
        with place.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ConfigError(f"{place}: exists already; name a new file") from None
    except OSError as error:
        raise ConfigError(f"{place}: cannot be written ({error.strerror}); name a file in a folder of yours") from error
    return place
