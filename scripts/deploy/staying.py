"""A program that stays for the next messages of its node: what it has imported and keeps in memory is at hand then.

It listens only while it is idle, on a socket in the node's own folder that only the node's account may use. It takes
messages only from programs of the same executor, under the settings with which it started, and ends after a while
without any. It is a child of the executor and ends with it (`node_clientapp.end_with_the_supernode`).
"""

import contextlib
import ctypes
import gc
import json
import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scripts.deploy.hand_over import (
    ANSWER_S,
    GO,
    LONGEST_REQUEST,
    SOCKET,
    YES,
    digest,
    peer_user,
    short_path,
)


def answer_messages(answer: Callable[[list[str]], bool], arguments: list[str], node_file: Path, idle_s: float) -> None:
    """Answers a message, and then those that other programs hand over.

    Args:
        answer: Answers one message, given the arguments of `flwr-clientapp`; returns whether the process may stay.
        arguments: Those of the first message.
        node_file: The node's settings.
        idle_s: How long to wait for the next message.
    """
    started_with = digest(node_file)
    while answer(arguments):
        free_memory()
        received = _next(node_file, started_with, idle_s)
        if received is None:
            return
        arguments = received


def free_memory() -> None:
    """Gives freed memory back to the system, where the C library can."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _next(node_file: Path, started_with: str, idle_s: float) -> list[str] | None:
    """Returns the arguments of the next message, or None if there is none that this process may answer."""
    end = time.monotonic() + idle_s
    with short_path(node_file.parent) as folder, socket.socket(socket.AF_UNIX) as listener:
        path = Path(folder, SOCKET)
        if not _bind(listener, path):
            return None
        try:
            while (left := end - time.monotonic()) > 0:
                listener.settimeout(left)
                try:
                    connection, _ = listener.accept()
                except TimeoutError:
                    return None
                with connection:
                    request = _request(connection)
                    if request is None:
                        continue
                    if request.get("parent") != os.getppid() or request.get("settings") != started_with:
                        return None
                    if _agreed(connection):
                        return [str(argument) for argument in request["arguments"]]
        finally:
            path.unlink(missing_ok=True)
    return None


def _bind(listener: socket.socket, path: Path) -> bool:
    """Listens at a path, unless another process does."""
    with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError):
        probe.connect(str(path))
        return False
    before = os.umask(0o177)
    try:
        path.unlink(missing_ok=True)
        listener.bind(str(path))
        listener.listen(4)
    except OSError as error:
        sys.stderr.write(f"{SOCKET}: cannot be opened ({error}), so the next message starts a new process\n")
        return False
    finally:
        os.umask(before)
    return True


def _request(connection: socket.socket) -> dict[str, Any] | None:
    connection.settimeout(ANSWER_S)
    with contextlib.suppress(OSError, ValueError):
        if peer_user(connection) == os.getuid():
            request = json.loads(_line(connection))
            return request if isinstance(request, dict) else None
    return None


def _agreed(connection: socket.socket) -> bool:
    """Says yes, and returns whether the other side still wants it."""
    with contextlib.suppress(OSError):
        connection.sendall(YES)
        return _line(connection) == GO
    return False


def _line(connection: socket.socket) -> bytes:
    data = b""
    while not data.endswith(b"\n") and len(data) < LONGEST_REQUEST:
        part = connection.recv(4096)
        if not part:
            break
        data += part
    return data
