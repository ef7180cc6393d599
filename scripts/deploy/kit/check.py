"""Checks a deployment kit, or one folder of it, on the machine where it lies: keys, certificates, settings, reach."""

import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization

from scripts.deploy import connection_check as reach
from scripts.deploy.allowed_code import ALLOWED_FILE, SHOWN_DIGITS, allowed_apps
from scripts.deploy.kit.certificates import certificate_names, days_left, public_half
from scripts.deploy.kit.kit import (
    CONNECTION_FILE,
    COORDINATOR_FILE,
    NODE_FILE,
    SIGNING_KEY,
    Connection,
    Coordinator,
    read_connection,
    read_coordinator,
)
from scripts.deploy.lifecycle.refresh import check_written
from scripts.terminal.findings import Finding, trouble, warning, well
from server.run_folder.signatures import load_private_key
from trfmoe_core.config import load_node_file
from trfmoe_core.config.sources import DataEntry
from trfmoe_core.errors import ConfigError, TRFMoEError

SOON_DAYS = 30
REPLACE = "the operator replaces it: trfmoe deploy rotate DIR --authority begin"
RENEW = "make a new one where the kit's authority lies: trfmoe deploy rotate DIR --server"


def is_kit(folder: Path) -> bool:
    """Returns True if a folder is a kit, or a coordinator's or node's folder of one."""
    return any((folder / name).exists() for name in (COORDINATOR_FILE, CONNECTION_FILE, "coordinator"))


def check_kit(folder: Path) -> Iterator[Finding]:
    """Yields findings about a whole kit, or about the one folder of it that is here.

    Raises:
        ConfigError: it is none.
    """
    found = False
    for part in (folder / "coordinator", folder):
        if (part / COORDINATOR_FILE).is_file():
            found = True
            yield from _check_coordinator(part)
    parts = sorted((folder / "nodes").iterdir()) if (folder / "nodes").is_dir() else []
    for part in (*parts, folder):
        if (part / CONNECTION_FILE).is_file():
            found = True
            yield from _check_node(part)
    if (folder / "authority" / "ca.key").is_file():
        yield from _private(folder / "authority" / "ca.key")
    if not found:
        raise ConfigError(f"{folder}: no kit, nor a coordinator's or node's folder of one; see `trfmoe deploy init`")


def _check_coordinator(folder: Path) -> Iterator[Finding]:
    try:
        coordinator = read_coordinator(folder)
    except ConfigError as error:
        yield trouble("settings", str(error), "mend the file")
        return
    yield from _private(folder / "server.key")
    yield from _private(folder / "superexec.secret")
    yield from _signing_key(folder)
    yield from _server_certificate(folder, coordinator)
    yield from _no_node_keys(folder)
    yield from _public_keys(folder, coordinator)
    yield from check_written(folder)
    yield from reach.check_coordinator(folder, coordinator)


def _check_node(folder: Path) -> Iterator[Finding]:
    yield from _private(folder / "node.key")
    yield from _own_key(folder)
    yield from _authority(folder)
    try:
        connection = read_connection(folder)
        settings = load_node_file(folder / NODE_FILE)
    except TRFMoEError as error:
        yield trouble("settings", str(error), "mend the file")
        return
    yield well("settings", f"{folder / NODE_FILE}: node {settings.name}")
    yield from check_data(settings.data, f"{folder / NODE_FILE}: data")
    yield from check_written(folder)
    yield from _apps(folder)
    yield from _reach_from(folder, connection)


def check_data(entries: Sequence[DataEntry], key: str) -> Iterator[Finding]:
    """Yields findings about the files and folders among entries of data.

    Args:
        entries: With absolute paths. Sources without a path, such as a hub's, are passed over.
        key: Where the entries stand, such as `node.yaml: data`.
    """
    for entry in entries:
        named = entry if isinstance(entry, str) else getattr(entry, "path", None)
        if named is None:
            continue
        path = Path(named)
        try:
            empty = path.is_dir() and not any(file.is_file() for file in path.rglob("*"))
            there = path.exists()
        except OSError as error:
            yield trouble("data", f"{path}: cannot be read ({error.strerror})", "let this account read it")
            continue
        if not there:
            yield trouble("data", f"{path}: does not exist", f"name a file or folder in {key}")
        elif empty:
            yield trouble("data", f"{path}: is empty", "put text there: PDF, parquet, JSONL or text files")
        else:
            yield well("data", f"{path}: is there")


def _private(path: Path) -> Iterator[Finding]:
    if not path.is_file():
        yield trouble("keys", f"{path}: is missing", "copy it from where the kit was made, or make a new kit")
        return
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        yield trouble("keys", f"{path}: has mode {mode:o}, others may read it", f"chmod 600 {path}")
    else:
        yield well("keys", f"{path}: only its owner may read it")


def _signing_key(folder: Path) -> Iterator[Finding]:
    key = folder / SIGNING_KEY
    if not key.exists():
        remedy = f"make one: trfmoe sign RUN --new-key {key}, and give {key}.pub to the nodes' owners"
        yield warning("keys", f"{key}: is missing, so journals are not signed", remedy)
        return
    yield from _private(key)
    try:
        load_private_key(key)
    except ConfigError as error:
        yield trouble("keys", str(error), "put the coordinator's own key back")


def _no_node_keys(folder: Path) -> Iterator[Finding]:
    own = {folder / "server.key", folder / SIGNING_KEY}
    for path in folder.rglob("*"):
        if path not in own and path.is_file() and path.stat().st_size < 1 << 16 and _holds_private_key(path):
            remedy = "delete it here, and give its node a new key pair: a node's identity is the node's alone"
            yield trouble("keys", f"{path}: a private key in the coordinator's folder", remedy)


def _holds_private_key(path: Path) -> bool:
    return b"PRIVATE KEY-----" in path.read_bytes()


def _public_keys(folder: Path, coordinator: Coordinator) -> Iterator[Finding]:
    seen: dict[bytes, str] = {}
    for node in coordinator.nodes:
        path = folder / "keys" / f"{node.name}.pub"
        try:
            key = path.read_bytes().split()[1]
            serialization.load_ssh_public_key(path.read_bytes())
        except (OSError, ValueError, IndexError) as error:
            yield trouble("keys", f"{path}: no public key ({error})", f"copy node.pub of {node.name} there")
            continue
        if key in seen:
            yield trouble("keys", f"{path}: is the key of {seen[key]} too", "give every node a key of its own")
        seen[key] = node.name
    yield well("keys", f"{len(seen)} public keys of nodes")


def _own_key(folder: Path) -> Iterator[Finding]:
    try:
        mine = public_half((folder / "node.key").read_bytes()).split()[1]
        told = (folder / "node.pub").read_bytes().split()[1]
    except (OSError, ValueError, IndexError) as error:
        yield trouble("keys", f"{folder}: key pair cannot be read ({error})", "make a new kit for this node")
        return
    if mine == told:
        yield well("keys", f"{folder / 'node.key'} and node.pub belong together")
    else:
        yield trouble("keys", f"{folder}: node.pub is not of node.key", "give the coordinator the right node.pub")


def _server_certificate(folder: Path, coordinator: Coordinator) -> Iterator[Finding]:
    try:
        certificate = x509.load_pem_x509_certificate((folder / "server.pem").read_bytes())
        authorities = x509.load_pem_x509_certificates((folder / "ca.crt").read_bytes())
        key = serialization.load_pem_private_key((folder / "server.key").read_bytes(), None)
        signed = any(_signed(certificate, authority) for authority in authorities)
    except (OSError, ValueError, TypeError) as error:
        yield trouble("certificate", f"{folder}/server.pem: cannot be used ({error})", RENEW)
        return
    if not signed:
        yield trouble("certificate", f"{folder}/server.pem: not signed by ca.crt", RENEW)
        return
    if key.public_key() != certificate.public_key():
        yield trouble("certificate", f"{folder}/server.key is not the key of server.pem", RENEW)
    names = certificate_names(certificate)
    if coordinator.host not in names:
        text = f"{folder}/server.pem: is for {', '.join(names)}, not for {coordinator.host}"
        yield trouble("certificate", text, RENEW)
    yield from _expiry(certificate, folder / "server.pem")
    for authority in authorities:
        yield from _expiry(authority, folder / "ca.crt", REPLACE)


def _signed(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    """Returns True if an authority signed a certificate. While the authority changes, there are two."""
    try:
        certificate.verify_directly_issued_by(authority)
    except (InvalidSignature, ValueError):
        return False
    return True


def _authority(folder: Path) -> Iterator[Finding]:
    try:
        found = x509.load_pem_x509_certificates((folder / "ca.crt").read_bytes())
    except (OSError, ValueError) as error:
        yield trouble("certificate", f"{folder}/ca.crt: cannot be used ({error})", "copy the coordinator's ca.crt")
        return
    for certificate in found:
        yield from _expiry(certificate, folder / "ca.crt", REPLACE)


def _expiry(certificate: x509.Certificate, path: Path, remedy: str = RENEW) -> Iterator[Finding]:
    days = days_left(certificate)
    if days <= 0:
        yield trouble("certificate", f"{path}: expired {-days:.0f} days ago", remedy)
    elif days < SOON_DAYS:
        yield warning("certificate", f"{path}: expires in {days:.0f} days", remedy)
    else:
        yield well("certificate", f"{path}: valid for {days:.0f} days")


def _apps(folder: Path) -> Iterator[Finding]:
    from scripts.processes.control import app_hash
    from scripts.run.simulation import app_folder

    allowed, mine = [app.digest for app in allowed_apps(folder / ALLOWED_FILE)], app_hash(app_folder())
    if mine in allowed:
        yield well("apps", f"{folder}: the release on this machine (app {mine[:SHOWN_DIGITS]}) may run")
    else:
        text = (
            f"{folder}: the release on this machine (app {mine[:SHOWN_DIGITS]}) is not among the {len(allowed)} allowed"
        )
        yield trouble("apps", text, f"trfmoe deploy allow {folder} --only")


def _reach_from(folder: Path, connection: Connection) -> Iterator[Finding]:
    if (folder / "ca.crt").is_file() and (folder / "node.key").is_file():
        yield from reach.check_node(folder, connection)
