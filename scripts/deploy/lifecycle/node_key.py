"""A new key for a node: its owner makes it, the operator registers it, and the node takes it into use by itself."""

from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from scripts.deploy.connection_check import registration
from scripts.deploy.kit.certificates import node_key_pair
from scripts.deploy.kit.kit import PRIVATE, PUBLIC, coordinator_folder, read_connection, read_coordinator, write_file
from scripts.deploy.lifecycle.members import known_node, open_control
from trfmoe_core.errors import ConfigError, RunError

NEXT_KEY, NEXT_PUBLIC = "next.key", "next.pub"


def make_new_key(folder: Path) -> Path:
    """Makes a node's next key beside the one in use, and returns the public half, which the operator needs.

    A key that was made earlier and is not in use yet stays.

    Raises:
        ConfigError: It is no node's folder, or the key cannot be written.
    """
    if not (folder / "node.key").is_file():
        raise ConfigError(f"{folder}: no node.key in it; give a node's folder of `trfmoe deploy init`")
    if not (folder / NEXT_KEY).is_file() or not (folder / NEXT_PUBLIC).is_file():
        pair = node_key_pair()
        write_file(folder / NEXT_KEY, pair.private, PRIVATE)
        write_file(folder / NEXT_PUBLIC, pair.public, PUBLIC)
    return folder / NEXT_PUBLIC


def take_new_key(folder: Path) -> bool:
    """Takes a node's next key into use once the coordinator knows it; returns whether that happened."""
    path = folder / NEXT_KEY
    if not path.is_file():
        return False
    try:
        key = serialization.load_ssh_private_key(path.read_bytes(), None)
        connection = read_connection(folder)
    except (ConfigError, OSError, ValueError):
        return False  # `trfmoe deploy check` says what is wrong; the key in use still works.
    if not isinstance(key, ec.EllipticCurvePrivateKey) or registration(folder, connection, key)[0] != "known":
        return False
    (folder / NEXT_PUBLIC).replace(folder / "node.pub")
    path.replace(folder / "node.key")
    return True


def replace_key(directory: Path, name: str, public: bytes) -> None:
    """Registers a node's new public key at the SuperLink and unregisters the old one.

    Args:
        directory: The coordinator's folder.
        name: The node.
        public: The new key, in OpenSSH's format.

    Raises:
        ConfigError: The kit has no such node, or the key is the one in use.
        RunError: The SuperLink does not answer, or it refuses the key.
    """
    folder = coordinator_folder(directory)
    node = known_node(read_coordinator(folder), name, folder)
    path = folder / "keys" / f"{name}.pub"
    old = path.read_bytes() if path.is_file() else b""
    if old.split()[1:2] == public.split()[1:2]:
        raise ConfigError(f"{name}: this key is in use already; the owner makes a new one with `trfmoe node rotate`")
    control = open_control(folder)
    if not control.register(public, node.registered) and control.state_of(public) == "unregistered":
        raise RunError(f"{name}: this key was revoked; the owner makes a new one with `trfmoe node rotate`")
    write_file(path, public.strip() + b"\n", PUBLIC)
    if old:
        control.unregister(old)
