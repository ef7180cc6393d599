"""Keys and certificates of a deployment: an authority, the coordinator's server certificate, a key pair a node."""

import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from server.run_folder.signatures import new_key

AUTHORITY_DAYS = 3650
SERVER_DAYS = 730
LOOPBACK = ("localhost", "127.0.0.1")


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A private key and what belongs to it in public, both as the files that Flower and nginx read."""

    private: bytes
    public: bytes


def new_authority(name: str, days: int = AUTHORITY_DAYS) -> Pair:
    """Returns a certificate authority of a deployment's own: private key and certificate, PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{name} authority"[:64])])
    usage = _usage(key_cert_sign=True, crl_sign=True)
    builder = (
        _builder(subject, subject, key, days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
    )
    return Pair(private=_pem(key), public=builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))


def server_certificate(authority: Pair, hosts: Sequence[str], days: int = SERVER_DAYS) -> Pair:
    """Returns a TLS server's private key and certificate, PEM.

    Args:
        authority: Who signs.
        hosts: Names and addresses that clients call it by; loopback is added.
        days: How long it is valid.
    """
    issuer_key = serialization.load_pem_private_key(authority.private, None)
    if not isinstance(issuer_key, ec.EllipticCurvePrivateKey):
        raise TypeError("the authority's key is no EC key")
    issuer = x509.load_pem_x509_certificate(authority.public)
    key = ec.generate_private_key(ec.SECP256R1())
    names = [_general_name(host) for host in dict.fromkeys((*hosts, *LOOPBACK))]
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0][:64])])
    builder = (
        _builder(subject, issuer.subject, key, days, issuer_key)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(_usage(digital_signature=True), critical=True)
    )
    certificate = builder.sign(issuer_key, hashes.SHA256())
    return Pair(private=_pem(key), public=certificate.public_bytes(serialization.Encoding.PEM))


def node_key_pair() -> Pair:
    """Returns a SuperNode's key pair on the curve P-384, in OpenSSH's formats."""
    key = ec.generate_private_key(ec.SECP384R1())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return Pair(private=private, public=public + b"\n")


def signing_key_pair() -> Pair:
    """Returns the Ed25519 key pair by which a coordinator signs its journals, PEM."""
    private, public = new_key()
    return Pair(private=private, public=public)


def public_half(private: bytes) -> bytes:
    """Returns the OpenSSH public key that belongs to an OpenSSH private key.

    Raises:
        ValueError: when it is no EC private key without a passphrase.
    """
    key = serialization.load_ssh_private_key(private, None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("no EC private key")
    return key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)


def certificate_names(certificate: x509.Certificate) -> list[str]:
    """Returns the names and addresses that a server certificate is valid for."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [str(name.value) for name in names]


def days_left(certificate: x509.Certificate) -> float:
    """Returns for how many days a certificate is still valid; negative when it has expired."""
    return (certificate.not_valid_after_utc - _now()).total_seconds() / 86400


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    days: int,
    issuer_key: ec.EllipticCurvePrivateKey | None = None,
) -> x509.CertificateBuilder:
    public = key.public_key()
    signer = (issuer_key or key).public_key()
    start = _now() - datetime.timedelta(minutes=10)  # a node whose clock is a little behind accepts it at once
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer), critical=False)
    )


def _usage(*, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
