"""New certificates for a kit: the server's, and the authority's with a time in which nodes trust both."""

import contextlib
from pathlib import Path

import psutil
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from scripts.deploy.kit.certificates import Pair, new_authority, server_certificate
from scripts.deploy.kit.kit import (
    NODE_FILE,
    PRIVATE,
    PUBLIC,
    coordinator_folder,
    read_coordinator,
    write_file,
)
from trfmoe_core.errors import ConfigError

TRUST = "ca.crt"
NEXT, OLD = "next", "old"
END_S = 30.0


def authority_folder(directory: Path, given: Path | None) -> Path:
    """Returns the folder of a kit's authority: the given one, or `authority` beside the coordinator's folder.

    Raises:
        ConfigError: No private key of an authority lies there.
    """
    folder = given or coordinator_folder(directory).absolute().parent / "authority"
    if not (folder / "ca.key").is_file():
        raise ConfigError(f"{folder}: no ca.key in it; say with --authority-dir where the kit's authority lies")
    return folder


def renew_server(directory: Path, authority: Path) -> None:
    """Writes a new server key and certificate into the coordinator's folder, signed by its authority.

    Args:
        directory: The kit, or the coordinator's folder of it.
        authority: The authority's folder.

    Raises:
        ConfigError: The authority cannot be read, or it is not one that the nodes trust.
    """
    folder = coordinator_folder(directory)
    pair = _pair(authority)
    trusted = {_fingerprint(certificate) for certificate in certificates(folder / TRUST)}
    if _fingerprint(certificates(authority / TRUST)[0]) not in trusted:
        raise ConfigError(f"{authority}: is not the authority of {folder / TRUST}; name the right one")
    server = server_certificate(pair, [read_coordinator(folder).host])
    write_file(folder / "server.key.new", server.private, PRIVATE)
    write_file(folder / "server.pem", server.public, PUBLIC)
    (folder / "server.key.new").replace(folder / "server.key")


def begin_authority(directory: Path, authority: Path) -> Path:
    """Makes a new authority beside the one in use, and returns the file with both, which every owner has to trust.

    Args:
        directory: The kit, or the coordinator's folder of it.
        authority: The authority's folder.

    Raises:
        ConfigError: A change has begun already, or a file cannot be read or written.
    """
    folder = coordinator_folder(directory)
    if (authority / NEXT).exists():
        raise ConfigError(f"{authority / NEXT}: a change of the authority has begun; end it with --authority finish")
    old = certificates(authority / TRUST)
    new = new_authority(read_coordinator(folder).host)
    write_file(authority / NEXT / "ca.key", new.private, PRIVATE)
    write_file(authority / NEXT / TRUST, new.public, PUBLIC)
    both = _pem(old) + new.public
    write_file(folder / TRUST, both, PUBLIC)
    return folder / TRUST


def finish_authority(directory: Path, authority: Path) -> None:
    """Takes the new authority into use: it signs a new server certificate, and the old one is trusted no more.

    Args:
        directory: The kit, or the coordinator's folder of it.
        authority: The authority's folder.

    Raises:
        ConfigError: No change has begun, or a file cannot be read or written.
    """
    folder = coordinator_folder(directory)
    if not (authority / NEXT / "ca.key").is_file():
        raise ConfigError(f"{authority}: no change of the authority has begun; begin it with --authority begin")
    new = _pair(authority / NEXT)
    for name, mode in (("ca.key", PRIVATE), (TRUST, PUBLIC)):
        write_file(authority / OLD / name, (authority / name).read_bytes(), mode)
    renew_server(directory, authority / NEXT)
    write_file(folder / TRUST, new.public, PUBLIC)
    for name in ("ca.key", TRUST):
        (authority / NEXT / name).replace(authority / name)
    (authority / NEXT).rmdir()


def trust(folder: Path, source: Path, *, anew: bool = False) -> list[str]:
    """Replaces the authorities that a node trusts, and returns the fingerprints of the new ones.

    Args:
        folder: The node's folder.
        source: The file that the operator sent.
        anew: Also if none of them is trusted so far.

    Raises:
        ConfigError: It is no node's folder, the file holds no authority, or none of them is trusted so far.
    """
    if not (folder / NODE_FILE).is_file():
        raise ConfigError(f"{folder}: no {NODE_FILE} in it; give a node's folder of `trfmoe deploy init`")
    found = certificates(source)
    known = {_fingerprint(certificate) for certificate in certificates(folder / TRUST)} if not anew else set()
    if not anew and known.isdisjoint(_fingerprint(certificate) for certificate in found):
        raise ConfigError(
            f"{source}: holds none of the authorities that this node trusts so far; if the operator confirms its "
            "fingerprint by another way, give --anew"
        )
    write_file(folder / TRUST, _pem(found), PUBLIC)
    return [_fingerprint(certificate) for certificate in found]


def certificates(path: Path) -> list[x509.Certificate]:
    """Returns the authorities in a PEM file.

    Raises:
        ConfigError: The file cannot be read, or a certificate in it is no authority's.
    """
    try:
        found = x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: holds no certificates ({error}); name the ca.crt of the coordinator") from error
    for certificate in found:
        with contextlib.suppress(x509.ExtensionNotFound):
            if certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
                continue
        raise ConfigError(f"{path}: holds a certificate that is no authority's; name the ca.crt of the coordinator")
    return found


def restart_superlink(directory: Path) -> bool:
    """Ends the SuperLink of a coordinator's folder, so that start.sh or systemd starts it with the new certificate.

    Returns:
        Whether one was running and has ended.
    """
    database = str(coordinator_folder(directory).absolute() / "state.db")
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            words = process.cmdline()
            if database in words and any(Path(word).name == "flower-superlink" for word in words[:3]):
                process.terminate()
                found.append(process)
    # Whoever calls it next must not meet the old certificate.
    gone, left = psutil.wait_procs(found, timeout=END_S)
    return bool(gone) and not left


def _pair(folder: Path) -> Pair:
    try:
        return Pair(private=(folder / "ca.key").read_bytes(), public=(folder / TRUST).read_bytes())
    except OSError as error:
        raise ConfigError(f"{folder}: the authority cannot be read ({error.strerror})") from error


def _pem(found: list[x509.Certificate]) -> bytes:
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in found)


def _fingerprint(certificate: x509.Certificate) -> str:
    return certificate.fingerprint(hashes.SHA256()).hex()
