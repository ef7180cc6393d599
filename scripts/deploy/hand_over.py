"""Stands before Flower's `flwr-clientapp` on a node's PATH: hands a message to the node's trainer process.

Flower starts a program for every message. Imports, the app's code and the processor's caches would be new each time, so
the first such program stays (`scripts/deploy/staying.py`) and takes the next messages from this one. If there is none,
or it must not take this message, this program becomes it. It needs nothing but the standard library, to start at once.
"""

import contextlib
import hashlib
import json
import os
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

SOCKET = "trainer.sock"
STAY = "TRFMOE_STAY"
"""Environment variable: set for a program that may stay for further messages."""

PROGRAM = "scripts.deploy.node_clientapp"
ANSWER_S = 5.0
YES, GO = b"yes\n", b"go\n"
LONGEST_REQUEST = 1 << 16


def main() -> None:
    """Hands the message over and ends, or becomes the program that answers it."""
    node_file = Path(os.environ["TRFMOE_NODE_FILE"])
    if not handed_over(node_file, sys.argv[1:]):
        os.environ[STAY] = "1"
        os.execv(sys.executable, [sys.executable, "-P", "-m", PROGRAM, *sys.argv[1:]])


def handed_over(node_file: Path, arguments: list[str]) -> bool:
    """Returns True if the node's trainer process has taken the message. It does so once or not at all.

    Args:
        node_file: The node's settings. The socket lies beside them, where only the node's account may look.
        arguments: Those of `flwr-clientapp`.
    """
    request = {"parent": os.getppid(), "settings": digest(node_file), "arguments": arguments}
    try:
        with short_path(node_file.parent) as folder, socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(ANSWER_S)
            connection.connect(f"{folder}/{SOCKET}")
            if peer_user(connection) != os.getuid():
                return False
            connection.sendall(json.dumps(request).encode() + b"\n")
            if connection.recv(len(YES)) != YES:
                return False
            connection.sendall(GO)
            return True
    except OSError:
        return False  # nobody is there, or it is at work


@contextlib.contextmanager
def short_path(folder: Path) -> Iterator[str]:
    """Gives a short name for a folder: a socket's path may have 107 characters."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}" if Path("/proc/self/fd").is_dir() else str(folder)
    finally:
        os.close(descriptor)


def peer_user(connection: socket.socket) -> int:
    """Returns the account at the other end; this one's where the system cannot tell."""
    if not hasattr(socket, "SO_PEERCRED"):
        return os.getuid()
    size = struct.calcsize("3i")
    return int(struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))[1])


def digest(node_file: Path) -> str:
    """Returns the SHA-256 of the owner's settings; a trainer process stays only while they are the same."""
    return hashlib.sha256(node_file.read_bytes()).hexdigest() if node_file.is_file() else ""


if __name__ == "__main__":
    main()
