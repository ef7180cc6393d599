"""Nodes that join a kit after it was written, and nodes whose key is taken away."""

from pathlib import Path

from scripts.deploy.connection_check import port_open
from scripts.deploy.kit.kit import (
    COORDINATOR_FILE,
    PUBLIC,
    SIGNING_PUBLIC,
    Coordinator,
    KitNode,
    check_place,
    coordinator_folder,
    read_coordinator,
    write_file,
    write_node,
)
from scripts.processes.control import Control
from trfmoe_core.config.yaml_text import dump_yaml
from trfmoe_core.errors import ConfigError


def open_control(folder: Path) -> Control:
    """Returns the control interface of the SuperLink of a coordinator's folder."""
    remedy = f"start it: {folder}/start.sh, or its units: sudo systemctl start trfmoe-superlink trfmoe-superexec"
    return Control(f"127.0.0.1:{read_coordinator(folder).superlink_port}", folder / "ca.crt", remedy)


def known_node(coordinator: Coordinator, name: str, folder: Path) -> KitNode:
    """Returns a kit's node by its name.

    Raises:
        ConfigError: There is none of that name.
    """
    for node in coordinator.nodes:
        if node.name == name:
            return node
    names = ", ".join(node.name for node in coordinator.nodes)
    raise ConfigError(f"{name}: no node of {folder / COORDINATOR_FILE}; it has {names}")


def add_node(directory: Path, node: KitNode, out: Path | None = None, prefix: str | None = None) -> tuple[Path, bool]:
    """Writes the folder of a new node and registers its key at the SuperLink, if that is running.

    Args:
        directory: The kit, or the coordinator's folder of it.
        node: The new node.
        out: Its folder; None: `nodes/NAME` beside the coordinator's folder.
        prefix: The folder on the node's host below which `node` will lie; None: the folder is used where it is.

    Returns:
        The folder, and whether the key is registered already.

    Raises:
        ConfigError: The kit has a node of this name, or the folder is not empty.
        RunError: The SuperLink refuses the key.
    """
    folder = coordinator_folder(directory)
    coordinator = read_coordinator(folder)
    if any(known.name == node.name for known in coordinator.nodes):
        raise ConfigError(f"{node.name}: is a node of this kit already; choose another name, or revoke it first")
    own = (out or folder.absolute().parent / "nodes" / node.name).absolute()
    if own.exists() and (not own.is_dir() or any(own.iterdir())):
        raise ConfigError(f"{own}: is not empty; name a new folder with --out, keys are never overwritten")
    place = f"{check_place(prefix)}/node" if prefix else check_place(str(own))
    pair = write_node(own, node, coordinator, (folder / "ca.crt").read_bytes(), place)
    if (folder / SIGNING_PUBLIC).is_file():
        write_file(own / SIGNING_PUBLIC, (folder / SIGNING_PUBLIC).read_bytes(), PUBLIC)
    write_file(folder / "keys" / f"{node.name}.pub", pair.public, PUBLIC)
    _write(folder, coordinator, [*coordinator.nodes, node])
    if not port_open("127.0.0.1", coordinator.superlink_port):
        return own, False
    open_control(folder).register(pair.public, node.registered)
    return own, True


def revoke_node(directory: Path, name: str) -> None:
    """Unregisters a node's key at the SuperLink, for good, and takes the node out of the kit.

    Raises:
        ConfigError: The kit has no such node, or no other.
        RunError: The SuperLink does not answer.
    """
    folder = coordinator_folder(directory)
    coordinator = read_coordinator(folder)
    node = known_node(coordinator, name, folder)
    left = [known for known in coordinator.nodes if known is not node]
    if not left:
        raise ConfigError(f"{name}: is the only node of this kit; stop the coordinator instead")
    path = folder / "keys" / f"{name}.pub"
    if not path.is_file():
        raise ConfigError(f"{path}: is missing, so the node's key is not known; put it back and try again")
    open_control(folder).unregister(path.read_bytes())  # first, for the SuperLink decides who gets in
    _write(folder, coordinator, left)
    path.unlink()


def _write(folder: Path, coordinator: Coordinator, nodes: list[KitNode]) -> None:
    changed = coordinator.model_copy(update={"nodes": nodes})
    write_file(folder / COORDINATOR_FILE, dump_yaml(changed.model_dump()), PUBLIC)
