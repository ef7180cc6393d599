"""Why a SuperNode ended, in one sentence: Flower's exit code is 1 for nearly everything."""

import re
import signal
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from scripts.deploy.connection_check import registration
from scripts.deploy.kit.kit import read_connection
from trfmoe_core.errors import ConfigError
from trfmoe_core.terminal import visible

AGAIN_S = 10.0
SESSION_S = 60
"""For so long the SuperLink takes a node that ended without a word for one that is there, and refuses its key."""

HANDSHAKE = "SSL/TLS handshake error detected"
"""In a SuperNode's log: after this line it works on nothing more, and does not end either."""

_UNTRUSTED = "CERTIFICATE_VERIFY_FAILED"
_NOT_ACTIVATED = re.compile(r"\[code: 2004\]")
_EXIT = re.compile(r"Exit Code: (\d+)\s*\n(?:Failed to initialize[^\n]*\n)?([^\n]*)")
_PORT_TAKEN = re.compile(r"address \('[^']*', (\d+)\): (?:\[errno \d+\] )?address already in use", re.IGNORECASE)
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Ending:
    """Why a SuperNode ended.

    Attributes:
        reason: The reason with its remedy, as a part of a sentence.
        again_s: Seconds after which the same command may work; None: it will not.
    """

    reason: str
    again_s: float | None = None


def ending(folder: Path, code: int | None, tail: str) -> Ending:
    """Returns why a SuperNode ended.

    Args:
        folder: The node's folder. Its key is looked up at the coordinator if the key may be the reason.
        code: The exit code, or minus the signal; None: not known.
        tail: The last lines of its log.
    """
    text = COLOURS.sub("", tail)
    if HANDSHAKE in text:
        return _of_handshake(folder)
    if code is not None and code < 0:
        more = ", as the system does when memory runs out" if code == -signal.SIGKILL else ""
        return Ending(f"killed by {signal_name(-code)}{more}")
    # A SuperNode whose key is revoked while it runs ends with code 0.
    if _NOT_ACTIVATED.search(text) or code == 0:
        return _of_registration(folder, activated=code == 0)
    if found := _EXIT.search(text):
        return Ending(f"Flower's exit code {found[1]}: {visible(found[2].strip(), layout='')}")
    if found := _PORT_TAKEN.search(text):
        return Ending(
            f"port {found[1]} of this machine is in use, perhaps by another node; stop that, or start this node with"
            " TRFMOE_NODE_PORT=another"
        )
    return Ending(f"exit code {code}" if code is not None else "no exit code is known")


def signal_name(number: int) -> str:
    """Returns the name of a signal, such as `SIGKILL`."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def is_untrusted(folder: Path) -> bool:
    """Returns True if the coordinator is there and shows a certificate of an authority that the node does not trust."""
    key = _key(folder)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        return False
    found, details = registration(folder, read_connection(folder), key)
    return found == "away" and _UNTRUSTED in details


def _of_handshake(folder: Path) -> Ending:
    try:
        untrusted = is_untrusted(folder)
    except (ConfigError, OSError, ValueError) as error:
        return Ending(f"the node's folder cannot be read ({error})")
    if not untrusted:
        return Ending("the encrypted connection to the coordinator broke", again_s=AGAIN_S)
    return Ending(
        "the coordinator shows a certificate of an authority that this node does not trust; ask the operator for the "
        f"new ca.crt, compare its fingerprint by telephone, and run: trfmoe node trust {folder} ca.crt --anew",
        again_s=AGAIN_S,
    )


def _key(folder: Path) -> object:
    return serialization.load_ssh_private_key((folder / "node.key").read_bytes(), None)


def _of_registration(folder: Path, *, activated: bool) -> Ending:
    try:
        connection = read_connection(folder)
        key = _key(folder)
    except (ConfigError, OSError, ValueError) as error:
        return Ending(f"the node's folder cannot be read ({error})")
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        return Ending(f"{folder / 'node.key'} is no EC key; make one with `trfmoe node rotate {folder}`")
    found, details = registration(folder, connection, key)
    if found == "unknown":
        return Ending(
            "the coordinator does not know this node's key: it was revoked or never registered; ask the operator"
        )
    if found == "refused":
        return Ending("the coordinator refuses this node's signature; set the clocks of both machines right")
    if found == "known" and not activated:
        return Ending(
            f"the coordinator counts this node's last session as online for up to {SESSION_S} s",
            again_s=AGAIN_S,
        )
    if found == "away":
        return Ending(f"the coordinator at {connection.address} is not reached ({details})", again_s=AGAIN_S)
    return Ending(f"the coordinator answers {details}" if details else "somebody asked it to end")
