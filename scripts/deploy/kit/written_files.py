"""The files of a kit that a release writes and can write anew: start scripts, programs, units, proxy, instructions.

Keys, certificates and settings are none of them. Units and proxy name the folder in which they lie on their host.
"""

import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from scripts.deploy.kit import files as kit_files
from scripts.deploy.kit.units import unit
from trfmoe_core.atomic import write_bytes
from trfmoe_core.errors import ConfigError

TEXT, PROGRAM = 0o644, 0o755
OLD_SUFFIX = ".old"
_PLACES = (
    re.compile(r'^ReadWritePaths="([^"]*)"', re.MULTILINE),
    re.compile(r'^\s*ssl_certificate "(.*)/server.pem";', re.M),
)
_OWN_LINES = ("User=", "Environment=")
"""Beginnings of a unit's lines that are for the operator or owner to fill in."""

_EDITABLE = ("start.sh", "nginx.conf", "trfmoe-superlink.service", "trfmoe-superexec.service", "trfmoe-node.service")
"""Files that an operator or owner may have changed."""


@dataclass(frozen=True, kw_only=True)
class WrittenFile:
    """A file that a release writes.

    Attributes:
        name: Its path below the folder.
        text: Its content.
        mode: Its permissions.
    """

    name: str
    text: str
    mode: int = TEXT


def coordinator_files(host: str, port: int, superlink_port: int, place: str) -> list[WrittenFile]:
    """Returns the files of a coordinator's folder.

    Args:
        host: At which nodes reach it.
        port: Of the proxy.
        superlink_port: Of the SuperLink, on loopback.
        place: The folder's absolute path on its host.
    """
    units = [
        WrittenFile(
            name=f"trfmoe-{program}.service",
            text=unit(program, f"TR-FMoE coordinator: {program}", place),
        )
        for program in ("superlink", "superexec")
    ]
    return [
        WrittenFile(name="start.sh", text=kit_files.coordinator_start(superlink_port), mode=PROGRAM),
        WrittenFile(name="nginx.conf", text=kit_files.proxy(host, port, superlink_port, place)),
        *units,
        WrittenFile(name="README.md", text=kit_files.coordinator_readme(host, port)),
    ]


def node_files(name: str, address: str, place: str) -> list[WrittenFile]:
    """Returns the files of a node's folder.

    Args:
        name: The node's.
        address: Of the coordinator, as host:port.
        place: The folder's absolute path on its host.
    """
    return [
        WrittenFile(name="start.sh", text=kit_files.node_start(address), mode=PROGRAM),
        WrittenFile(name="trfmoe-node.service", text=unit("node", f"TR-FMoE node {name}", place)),
        WrittenFile(name="README.md", text=kit_files.node_readme(name, address)),
        *(
            WrittenFile(name=f"bin/{program}", text=text, mode=PROGRAM)
            for program, text in kit_files.node_programs().items()
        ),
    ]


def named_place(folder: Path, names: Iterable[str]) -> str | None:
    """Returns the folder that the first of some units and proxies names; None if none of them names one."""
    for name in names:
        if place := _place_in(_read(folder / name) or "", name):
            return place
    return None


def outdated(folder: Path, files: Iterable[WrittenFile]) -> Iterator[WrittenFile]:
    """Yields the files that are missing or not as this release writes them, but for what others filled in."""
    for file in files:
        there = _read(folder / file.name)
        if there is None or _kept_lines(file, there) != there:
            yield file


def write_anew(folder: Path, files: Iterable[WrittenFile]) -> list[Path]:
    """Writes the outdated files anew, each in one step, and returns their paths.

    The account and environment of a unit stay. What somebody has changed besides stays as `NAME.old`.

    Args:
        folder: The coordinator's or node's folder.
        files: As they shall be.

    Raises:
        ConfigError: A file cannot be written.
    """
    changed = []
    for file in outdated(folder, files):
        path = folder / file.name
        there = _read(path)
        text = _kept_lines(file, there or "")
        try:
            if there is not None and file.name in _EDITABLE and _elsewhere(folder, file, text, there) != text:
                mode = stat.S_IMODE(path.stat().st_mode)
                write_bytes(path.with_name(f"{path.name}{OLD_SUFFIX}"), there.encode(), mode)
            # Not in place: a shell may be reading the script that is replaced.
            write_bytes(path, text.encode(), file.mode)
        except OSError as error:
            raise ConfigError(f"{path}: cannot be written ({error.strerror}); use the account that owns it") from error
        changed.append(path)
    return changed


def _elsewhere(folder: Path, file: WrittenFile, text: str, there: str) -> str:
    """Returns what a file holds now, as it were if it named the folder that its new text names."""
    old, new = named_place(folder, [file.name]), _place_in(text, file.name)
    return there.replace(old, new) if old and new else there


def _place_in(text: str, name: str) -> str | None:
    for pattern in _PLACES:
        if match := pattern.search(text):
            return match[1].replace("%%", "%") if name.endswith(".service") else match[1]
    return None


def _kept_lines(file: WrittenFile, there: str) -> str:
    """Returns a file's text with the lines that the operator or owner has filled in."""
    if not file.name.endswith(".service"):
        return file.text
    own = {key: [line for line in there.splitlines() if line.startswith(key)] for key in _OWN_LINES}
    lines: list[str] = []
    for line in file.text.splitlines():
        key = next((key for key in _OWN_LINES if line.startswith(key)), None)
        lines += (own.pop(key) or [line]) if key in own else [] if key else [line]
    return "\n".join(lines) + "\n"


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); use the account that owns it") from error
