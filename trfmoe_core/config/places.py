"""Where relative paths of a recipe lead."""

import os
from pathlib import Path

import platformdirs


def home() -> Path:
    """Returns the folder that relative paths are relative to: `TRFMOE_HOME`, else the working folder."""
    return Path(os.environ.get("TRFMOE_HOME") or Path.cwd())


def cache_home() -> Path:
    """Returns the user's folder for token shards, keyed by content: `TRFMOE_CACHE`, else the platform's."""
    return Path(os.environ.get("TRFMOE_CACHE") or platformdirs.user_cache_dir("trfmoe"))


def find_recipe(path: str) -> Path:
    """Returns a recipe's path: as given, or among the app's own files, where `configs/` travels with it."""
    given = home() / path
    bundled = Path(__file__).resolve().parents[2] / path
    return bundled if not given.exists() and bundled.exists() else given
