"""Writes a deployment kit: an authority, and a complete folder for the coordinator and for every node.

A node's private key is made in its own folder and lies nowhere else; the authority's lies in neither.
"""

import os
import secrets
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import AfterValidator, Field

from scripts.deploy.allowed_code import ALLOWED_FILE
from scripts.deploy.hosts import check_host, in_url
from scripts.deploy.kit import files as kit_files
from scripts.deploy.kit.certificates import Pair, new_authority, node_key_pair, server_certificate, signing_key_pair
from scripts.deploy.kit.written_files import coordinator_files, node_files, write_anew
from trfmoe_core.config.load import validate
from trfmoe_core.config.section import Name, Section
from trfmoe_core.config.yaml_text import dump_yaml, load_yaml
from trfmoe_core.counts import counted
from trfmoe_core.errors import ConfigError

COORDINATOR_FILE = "coordinator.yaml"
NODE_FILE = "node.yaml"
CONNECTION_FILE = "connection.yaml"
SIGNING_KEY, SIGNING_PUBLIC = "sign.key", "sign.pub"
PRIVATE, PUBLIC = 0o600, 0o644


class KitNode(Section):
    """A node of a kit."""

    name: Name
    zone: Name | None = None

    @property
    def registered(self) -> str:
        """What the operator registers it as: `zone/name`, or the name alone."""
        return f"{self.zone}/{self.name}" if self.zone else self.name


class Connection(Section):
    """Where nodes find the coordinator."""

    host: Annotated[str, AfterValidator(check_host)]
    port: int = Field(ge=1, le=65535, description="of the proxy, for nodes")

    @property
    def address(self) -> str:
        """Host and port as Flower takes them."""
        return f"{in_url(self.host)}:{self.port}"


class Coordinator(Connection):
    """The coordinator of a kit and its nodes."""

    superlink_port: int = Field(ge=1, le=65535, description="of the SuperLink, on loopback")
    nodes: list[KitNode] = Field(min_length=1)


def write_kit(folder: Path, coordinator: Coordinator, prefix: str | None = None) -> None:
    """Writes a whole kit into a new or empty folder.

    Args:
        folder: Where.
        coordinator: Of whom.
        prefix: The folder on the hosts below which `coordinator` and `node` will lie, for units and proxy; None: the
            kit is used where it is.

    Raises:
        ConfigError: the folder is not empty, or a path has something in it that nginx or Flower cannot take.
    """
    base = check_place(prefix) if prefix else None
    check_place(base or str(folder.absolute()))
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder}: is not empty; name a new folder, keys are never overwritten")
    _folder(folder)
    authority = new_authority(coordinator.host)
    write_file(folder / "authority" / "ca.key", authority.private, PRIVATE)
    write_file(folder / "authority" / "ca.crt", authority.public, PUBLIC)
    place = f"{base}/coordinator" if base else str((folder / "coordinator").absolute())
    write_coordinator(folder / "coordinator", coordinator, authority, place)
    signing = signing_key_pair()
    write_file(folder / "coordinator" / SIGNING_KEY, signing.private, PRIVATE)
    write_file(folder / "coordinator" / SIGNING_PUBLIC, signing.public, PUBLIC)
    write_file(folder / "authority" / SIGNING_PUBLIC, signing.public, PUBLIC)
    for node in coordinator.nodes:
        own = folder / "nodes" / node.name
        pair = write_node(own, node, coordinator, authority.public, f"{base}/node" if base else str(own.absolute()))
        write_file(own / SIGNING_PUBLIC, signing.public, PUBLIC)
        write_file(folder / "coordinator" / "keys" / f"{node.name}.pub", pair.public, PUBLIC)


def check_place(path: str) -> str:
    """Returns a folder's path on a host as units, nginx and Flower can name it.

    Raises:
        ConfigError: it is not absolute, or holds a character that one of them gives another meaning.
    """
    if not path.startswith("/"):
        raise ConfigError(f"--prefix {path}: is not absolute; give the folder on the hosts, such as /opt/trfmoe")
    for character in path:
        if character in '$"\\' or not character.isprintable():
            raise ConfigError(
                f"{path!r}: nginx or Flower takes no path with {character!r} in it; name another folder on the hosts "
                "with --prefix"
            )
    return path.rstrip("/")


def write_coordinator(folder: Path, coordinator: Coordinator, authority: Pair, place: str) -> None:
    """Writes the coordinator's folder, without the nodes' public keys."""
    server = server_certificate(authority, [coordinator.host])
    write_file(folder / "ca.crt", authority.public, PUBLIC)
    write_file(folder / "server.pem", server.public, PUBLIC)
    write_file(folder / "server.key", server.private, PRIVATE)
    write_file(folder / "superexec.secret", secrets.token_hex(32).encode(), PRIVATE)
    write_file(folder / COORDINATOR_FILE, dump_yaml(coordinator.model_dump()), PUBLIC)
    write_anew(folder, coordinator_files(coordinator.host, coordinator.port, coordinator.superlink_port, place))


def write_node(folder: Path, node: KitNode, connection: Connection, authority_certificate: bytes, place: str) -> Pair:
    """Writes a node's folder with a key of its own, and returns the key pair."""
    pair = node_key_pair()
    where = Connection(host=connection.host, port=connection.port)
    write_file(folder / "node.key", pair.private, PRIVATE)
    write_file(folder / "node.pub", pair.public, PUBLIC)
    write_file(folder / "ca.crt", authority_certificate, PUBLIC)
    write_file(folder / CONNECTION_FILE, dump_yaml(where.model_dump()), PUBLIC)
    write_file(folder / NODE_FILE, kit_files.node_settings(node.name, node.zone), PRIVATE)
    write_file(folder / ALLOWED_FILE, kit_files.NO_APPS, PUBLIC)
    write_anew(folder, node_files(node.name, where.address, place))
    return pair


def write_file(path: Path, content: bytes | str, mode: int) -> None:
    """Writes a file with its mode from the first byte on; missing folders are made.

    Raises:
        ConfigError: it cannot be written.
    """
    data = content.encode() if isinstance(content, str) else content
    try:
        _folder(path.parent)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(data)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror}); name a folder where there is room") from error


def read_coordinator(folder: Path) -> Coordinator:
    """Returns what a coordinator's folder says; a whole kit is as good.

    Raises:
        ConfigError: no such folder, or a broken one.
    """
    for candidate in (folder, folder / "coordinator"):
        if (candidate / COORDINATOR_FILE).is_file():
            return validate(Coordinator, _read(candidate / COORDINATOR_FILE), str(candidate / COORDINATOR_FILE))
    raise ConfigError(f"{folder}: no {COORDINATOR_FILE}; give the coordinator's folder of `trfmoe deploy init`")


def read_connection(folder: Path) -> Connection:
    """Returns where a node's folder finds its coordinator.

    Raises:
        ConfigError: a broken file.
    """
    return validate(Connection, _read(folder / CONNECTION_FILE), str(folder / CONNECTION_FILE))


def coordinator_folder(folder: Path) -> Path:
    """Returns the coordinator's folder of a kit, or the folder itself."""
    return folder / "coordinator" if (folder / "coordinator" / COORDINATOR_FILE).is_file() else folder


def parse_nodes(names: str, zones: str) -> list[KitNode]:
    """Returns the nodes of `--nodes a,b,c --zones north,south,south`.

    Raises:
        ConfigError: no or repeated names, or another number of zones.
    """
    listed = _split(names)
    places = _split(zones)
    if len(listed) < 1 or len(set(listed)) != len(listed):
        raise ConfigError(f"--nodes {names}: give names of their own, such as alice,bob,carol")
    if places and len(places) != len(listed):
        raise ConfigError(
            f"--zones {zones}: {counted(len(places), 'zone')} for {counted(len(listed), 'node')}; give one a "
            "node, or none"
        )
    pairs = [{"name": name, "zone": places[number] if places else None} for number, name in enumerate(listed)]
    return [validate(KitNode, pair, "--nodes") for pair in pairs]


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _folder(path: Path) -> None:
    path.mkdir(parents=True, exist_ok=True)


def _read(path: Path) -> object:
    try:
        return load_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from error
