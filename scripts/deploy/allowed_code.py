"""The code that a node's owner allows: a file of hashes of app bundles, which the node's own program asks.

A line is `SHA256  # when it was allowed, release, where it was installed`. `scripts/deploy/node_clientapp.py` reads the
hash at the beginning of each line and nothing else, anew for every message.
"""

import re
import stat
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from scripts.deploy.kit import files as kit_files
from trfmoe_core.atomic import write_bytes
from trfmoe_core.errors import ConfigError
from trfmoe_core.terminal import visible

ALLOWED_FILE = "allowed_apps.txt"
SHOWN_DIGITS = 12
"""Of an app's hash, where it is shown in short."""
_LINE = re.compile(r"([0-9a-f]{64})\b[ \t]*#?[ \t]*(.*)")


@dataclass(frozen=True)
class AllowedApp:
    """One app bundle that may run, with what was noted when it was allowed."""

    digest: str
    note: str


def allowed_apps(path: Path) -> list[AllowedApp]:
    """Returns what an owner has allowed, the first first; a file that is missing allows nothing.

    Raises:
        ConfigError: the file cannot be read.
    """
    found: dict[str, AllowedApp] = {}
    for line in _lines(path):
        if match := _LINE.match(line):
            found.setdefault(match[1], AllowedApp(match[1], match[2].strip()))
    return list(found.values())


def allow_app(folder: Path, digest: str, where: str, *, only: bool = False) -> bool:
    """Adds a hash to those that a node's owner allows; returns whether it is new.

    Args:
        folder: The node's.
        digest: SHA-256 of the bundle, in hexadecimal.
        where: Where the bundle was seen, for the owner to remember.
        only: Drops all others in the same step, so that there is no moment without any.
    """
    path = folder / ALLOWED_FILE
    known = allowed_apps(path)
    new = all(app.digest != digest for app in known)
    if new:
        known.append(AllowedApp(digest, f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {visible(where, layout='')}".strip()))
    kept = [app for app in known if app.digest == digest] if only else known
    if new or len(kept) < len(known):
        _write(path, kept)
    return new


def revoke_apps(folder: Path, start: str) -> list[AllowedApp]:
    """Removes the allowed app with this hash, or with the only hash that begins so, and returns what was removed.

    Raises:
        ConfigError: it is no hash, or several begin so.
    """
    if not re.fullmatch(r"[0-9a-f]{8,64}", start):
        raise ConfigError(f"{start}: is no SHA-256, nor the first 8 or more of its hexadecimal digits")
    path = folder / ALLOWED_FILE
    known = allowed_apps(path)
    gone = [app for app in known if app.digest.startswith(start)]
    if len(gone) > 1:
        names = ", ".join(app.digest[:12] for app in gone)
        raise ConfigError(f"{start}: {len(gone)} allowed apps begin so ({names}); give more digits")
    if gone:
        _write(path, [app for app in known if app not in gone])
    return gone


def release() -> str:
    """Returns the name and version of the installed release, as far as they are known."""
    try:
        return f"trfmoe {version('trfmoe')}"
    except PackageNotFoundError:
        return "trfmoe"


def _write(path: Path, apps: list[AllowedApp]) -> None:
    """Replaces the file whole, with its mode and the comment lines that its owner wrote."""
    comments = [line for line in _lines(path) if not _LINE.match(line)] or kit_files.NO_APPS.splitlines()
    lines = [*comments, *(f"{app.digest}  # {app.note}".rstrip(" #") for app in apps)]
    mode = stat.S_IMODE(path.stat().st_mode) if path.is_file() else 0o600
    write_bytes(path, ("\n".join(lines) + "\n").encode(), mode)


def _lines(path: Path) -> list[str]:
    try:
        # Only at line ends that the node's program knows too: a note must not hide a hash, nor make one.
        return path.read_text(encoding="utf-8").rstrip("\n").split("\n") if path.is_file() else []
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); mend it") from error
