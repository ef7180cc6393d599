"""Signatures of a journal: Ed25519 over its head, kept as `signatures.jsonl` beside it.

A signature says that the key's owner saw these entries. Without the key nobody can change them undetected. It does not
cover later entries.
"""

import base64
import binascii
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from trfmoe_core.atomic import locked, write_bytes
from trfmoe_core.errors import ConfigError, RunFolderError

SIGNATURES_FILE = "signatures.jsonl"
_PURPOSE = b"trfmoe journal signature 1\n"
_MAX_FILE = 16 << 20


@dataclass(frozen=True, kw_only=True)
class Statement:
    """The signed statement. `entries` is the number of entries in the journal, `head` the hash of the last one."""

    run_id: str
    entries: int
    head: str
    time: float
    recipe_hash: str

    def signed_bytes(self) -> bytes:
        """Returns the bytes that the signature is over."""
        return _PURPOSE + json.dumps(asdict(self), sort_keys=True, separators=(",", ":")).encode()


@dataclass(frozen=True, kw_only=True)
class Signature:
    """A statement, the public key that the file names (not verified) and the signature, both raw in base64."""

    statement: Statement
    public_key: str
    signature: str

    def verifies(self, key: Ed25519PublicKey) -> bool:
        """Returns True if the statement was signed by the owner of `key`."""
        try:
            key.verify(base64.b64decode(self.signature, validate=True), self.statement.signed_bytes())
        except (InvalidSignature, binascii.Error, ValueError):
            return False
        return True


def new_key() -> tuple[bytes, bytes]:
    """Returns a new key: the private half (PKCS8) and the public half (SubjectPublicKeyInfo), both PEM."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private, public_pem(key)


def public_pem(key: Ed25519PrivateKey) -> bytes:
    """Returns the public half of a key as PEM."""
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def load_private_key(path: Path) -> Ed25519PrivateKey:
    """Returns the key of a PEM or OpenSSH file.

    Raises:
        ConfigError: it cannot be read, or is no Ed25519 private key without a passphrase.
    """
    data = _read_key(path)
    load = serialization.load_ssh_private_key if b"OPENSSH" in data[:64] else serialization.load_pem_private_key
    try:
        key = load(data, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError(
            f"{path}: no private key without a passphrase; make one: trfmoe sign RUN --new-key FILE"
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"{path}: a private key, but not of Ed25519; make one: trfmoe sign RUN --new-key FILE")
    return key


def load_public_key(path: Path) -> Ed25519PublicKey:
    """Returns the public key of a PEM or OpenSSH file.

    Raises:
        ConfigError: it cannot be read, or is no Ed25519 public key.
    """
    data = _read_key(path)
    if b"PRIVATE KEY" in data:
        raise ConfigError(f"{path}: a private key, which stays with its owner; give the public half, such as sign.pub")
    load = serialization.load_ssh_public_key if data.startswith(b"ssh-") else serialization.load_pem_public_key
    try:
        key = load(data)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"{path}: no public key; give the sign.pub that the coordinator handed out") from error
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError(f"{path}: a public key, but not of Ed25519; give the coordinator's sign.pub")
    return key


def key_text(key: Ed25519PublicKey) -> str:
    """Returns a public key as the signatures file names it: raw, in base64."""
    return base64.b64encode(key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)).decode()


def add_signature(
    folder: Path, key: Ed25519PrivateKey, run_id: str, entries: int, head: str, recipe_hash: str
) -> Signature:
    """Signs a head, adds the signature to a run folder's file, and returns it.

    Args:
        folder: The run folder.
        key: Signs.
        run_id: The run's own name for itself.
        entries: Number of entries that are signed.
        head: Hash of the last of them.
        recipe_hash: That the run was started with.

    Raises:
        RunFolderError: the file holds something else, or cannot be written.
    """
    statement = Statement(
        run_id=run_id, entries=entries, head=head, time=round(time.time(), 3), recipe_hash=recipe_hash
    )
    signature = Signature(
        statement=statement,
        public_key=key_text(key.public_key()),
        signature=base64.b64encode(key.sign(statement.signed_bytes())).decode(),
    )
    path = folder / SIGNATURES_FILE
    try:
        with locked(folder / f".{SIGNATURES_FILE}.lock"):
            lines = [json.dumps(asdict(found)) for found in [*read_signatures(folder), signature]]
            write_bytes(path, "".join(f"{line}\n" for line in lines).encode())
    except OSError as error:
        raise RunFolderError(f"{path}: cannot be written ({error.strerror or error}); free space") from error
    return signature


def read_signatures(folder: Path) -> list[Signature]:
    """Returns the signatures of a run folder, in the order they were made; none where the file is missing.

    Raises:
        RunFolderError: the file cannot be read, or a line of it is no signature.
    """
    path = folder / SIGNATURES_FILE
    if path.exists() and not path.is_file():
        raise RunFolderError(f"{path}: cannot be read (it is no plain file); put the run's own file back")
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE + 1)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RunFolderError(f"{path}: cannot be read ({error.strerror or error})") from error
    if len(data) > _MAX_FILE:
        raise RunFolderError(f"{path}: is longer than {_MAX_FILE} bytes; put the run's own file back")
    return [_parse(line, number, path) for number, line in enumerate(data.splitlines(), 1)]


def _parse(line: bytes, number: int, path: Path) -> Signature:
    try:
        raw: Any = json.loads(line)
        statement = Statement(**raw["statement"])
        signature = Signature(statement=statement, public_key=raw["public_key"], signature=raw["signature"])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise RunFolderError(f"{path}: line {number} is no signature; put the run's own file back") from error
    texts = (statement.run_id, statement.head, statement.recipe_hash, signature.public_key, signature.signature)
    counts = isinstance(statement.entries, int) and isinstance(statement.time, (int, float))
    if not counts or not all(isinstance(text, str) for text in texts):
        raise RunFolderError(f"{path}: line {number} is no signature; put the run's own file back")
    return signature


def _read_key(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(1 << 16)
    except OSError as error:
        raise ConfigError(f"{path}: the key cannot be read ({error.strerror or error})") from error
