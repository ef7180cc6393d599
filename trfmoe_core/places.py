"""Resolves the relative paths of a recipe, and makes paths from names safely."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import platformdirs

from trfmoe_core.errors import MachineError, PathError

APP_FOLDER = Path(__file__).resolve().parents[1]
"""The folder that holds the packages of this project: the checkout, or where Flower unpacked the app."""


def home() -> Path:
    """Returns the folder that relative paths are relative to: `TRFMOE_HOME`, else the working folder."""
    return Path(os.environ.get("TRFMOE_HOME") or Path.cwd())


def expand(path: str | os.PathLike[str]) -> Path:
    """Returns a path with the home folder for a leading `~` or `~user`; any other name that begins so stays as it is.

    An editor's `~$notes.txt` is a file, and a user or home that does not exist is told where the path is opened.
    """
    return Path(os.path.expanduser(path))  # noqa: PTH111  (Path.expanduser raises for a user that does not exist)


def cache_home() -> Path:
    """Returns the user's folder for token shards, keyed by content: `TRFMOE_CACHE`, else the platform's."""
    try:
        return Path(os.environ.get("TRFMOE_CACHE") or platformdirs.user_cache_dir("trfmoe"))
    except RuntimeError:
        raise no_home("TRFMOE_CACHE") from None


def no_home(instead: str) -> MachineError:
    """Returns the error of an account without a home folder; `instead` is what else could name the folder."""
    return MachineError(f"HOME is not set and user {os.getuid()} has no home folder; set HOME or {instead} to a folder")


def config_home() -> Path:
    """Returns the user's folder for what stays: `TRFMOE_CONFIG`, else the platform's."""
    return Path(os.environ.get("TRFMOE_CONFIG") or platformdirs.user_config_dir("trfmoe"))


def find_recipe(path: str) -> Path:
    """Returns a recipe's path: as given, or among the app's own files, where `configs/` travels with it."""
    given = home() / path
    bundled = APP_FOLDER / path
    return bundled if not given.exists() and bundled.exists() else given


# What a tokenizer or data set of the Hugging Face hub is called: NAME or OWNER/NAME.
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def is_hub_name(name: str) -> bool:
    """Returns whether `name` could stand on the Hugging Face hub: NAME or OWNER/NAME."""
    return _HUB_NAME.fullmatch(name) is not None


def tokenizer_place(name: str, absolute: Callable[[str], str]) -> str:
    """Returns what a tokenizer is called wherever a process starts: `byte`, an absolute path or a name on the hub.

    A folder at `absolute(name)` comes before a name on the hub; what begins with `/`, `.` or `~` is always a path.
    """
    path = absolute(name)
    return name if name == "byte" or (is_hub_name(name) and not Path(path).is_dir()) else path


# One plain letter or digit first, so neither a hidden file, nor an option, nor the way up.
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+@=,-]{0,199}")
# What some systems take for a device, whatever the suffix.
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def inside(base: Path, *parts: str) -> Path:
    """Returns the path that names lead to below `base`, which need not exist.

    For every path that is made from a name of a node, a run or anything else that another machine or a file says.

    Args:
        base: A folder that this machine's user has chosen; it may be a link.
        parts: One file or folder name each.

    Raises:
        PathError: a part is no plain file name, or a link leads out of `base`.
    """
    for part in parts:
        if not _PART.fullmatch(part) or _DEVICES.fullmatch(part) or part.endswith("."):
            raise PathError(
                f"{part[:80]!r} cannot be a file's name below {base}; a name has 1 to 200 letters, digits and "
                "._+@=,- and begins with a letter or digit"
            )
    path = base.joinpath(*parts)
    root, real = os.path.realpath(base), os.path.realpath(path)
    if os.path.commonpath([root, real]) != root or (parts and real == root):
        raise PathError(f"{path}: a link in it leads to {real}, out of {base}; remove the link")
    return path
