"""Brings what a release writes into a kit up to date: after an upgrade, and after the folder has moved."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from scripts.deploy.kit.kit import (
    CONNECTION_FILE,
    COORDINATOR_FILE,
    NODE_FILE,
    check_place,
    coordinator_folder,
    read_connection,
    read_coordinator,
)
from scripts.deploy.kit.written_files import (
    WrittenFile,
    coordinator_files,
    named_place,
    node_files,
    outdated,
    write_anew,
)
from scripts.terminal.findings import Finding, warning, well
from trfmoe_core.config import load_node_file
from trfmoe_core.errors import ConfigError

INSTALL = {
    "nginx.conf": "sudo cp {path} /etc/nginx/conf.d/trfmoe.conf && sudo nginx -s reload",
    ".service": "sudo cp {path} /etc/systemd/system/ && sudo systemctl daemon-reload",
}
"""What an operator does with a copy of a file that lies elsewhere: the end of the file's name -> the command."""


@dataclass(frozen=True)
class Part:
    """A coordinator's or node's folder, and the folder that its units and proxy name."""

    folder: Path
    place: str | None

    def files(self, place: str) -> list[WrittenFile]:
        """Returns the folder's files as this release writes them.

        Args:
            place: The folder's absolute path on its host.

        Raises:
            ConfigError: The folder's settings are broken.
        """
        if (self.folder / COORDINATOR_FILE).is_file():
            known = read_coordinator(self.folder)
            return coordinator_files(known.host, known.port, known.superlink_port, place)
        address = read_connection(self.folder).address
        return node_files(load_node_file(self.folder / NODE_FILE).name, address, place)


def parts_of(directory: Path) -> list[Part]:
    """Returns the coordinator's and nodes' folders of a kit, or the one folder that is given.

    Raises:
        ConfigError: It is none.
    """
    nodes = sorted((directory / "nodes").iterdir()) if (directory / "nodes").is_dir() else []
    found = []
    for folder in dict.fromkeys([coordinator_folder(directory), *nodes, directory]):
        if (folder / COORDINATOR_FILE).is_file() or (folder / CONNECTION_FILE).is_file():
            names = ("trfmoe-superlink.service", "trfmoe-node.service", "nginx.conf")
            found.append(Part(folder, named_place(folder, names)))
    if not found:
        raise ConfigError(f"{directory}: no kit, nor a coordinator's or node's folder of one; see `trfmoe deploy init`")
    return found


def refresh(directory: Path, prefix: str | None = None, *, moved: bool = True) -> list[Path]:
    """Writes start scripts, programs, units, proxy and instructions as this release writes them.

    Args:
        directory: A kit, or the coordinator's or node's folder of one.
        prefix: The folder on the hosts below which `coordinator` and `node` will lie; None: each folder is used where
            it is.
        moved: Whether units and proxy shall name where the folders are now; otherwise they name what they named.

    Returns:
        What was written.

    Raises:
        ConfigError: It is no kit, or a file cannot be read or written.
    """
    changed = []
    for part in parts_of(directory):
        role = "coordinator" if (part.folder / COORDINATOR_FILE).is_file() else "node"
        here = check_place(str(part.folder.absolute()))
        place = f"{check_place(prefix)}/{role}" if prefix else here if moved else part.place or here
        changed += write_anew(part.folder, part.files(place))
    return changed


def install_hints(changed: list[Path]) -> list[str]:
    """Returns the commands that put changed files where nginx and systemd read them."""
    found = []
    for path in changed:
        found += [text.format(path=path) for end, text in INSTALL.items() if path.name.endswith(end)]
    return found


def check_written(folder: Path) -> Iterator[Finding]:
    """Yields findings about the files of a folder that another release wrote, or that name another folder.

    Args:
        folder: The coordinator's or node's.

    Raises:
        ConfigError: Its settings are broken.
    """
    (part,) = [part for part in parts_of(folder) if part.folder == folder]
    here = str(folder.absolute())
    place = part.place or here
    if place != here:
        names = [file.name for file in part.files(here) if named_place(folder, [file.name]) not in (None, here)]
        verb = "names" if len(names) == 1 else "name"
        text = f"{folder}: {', '.join(names)} {verb} {place}, and the folder is {here}"
        yield warning("settings", text, f"carry it there, or write it anew: trfmoe deploy refresh {folder}")
    old = [file.name for file in outdated(folder, part.files(place))]
    if old:
        text = f"{folder}: not as this release writes them: {', '.join(old)}"
        yield warning("settings", text, f"trfmoe deploy refresh {folder}")
    elif place == here:
        yield well("settings", f"{folder}: start script, units and programs are those of this release")
