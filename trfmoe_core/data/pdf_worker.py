"""The child process that opens PDFs: one request in, one reply out, until its parent is gone.

Started by path, so it needs no package but pypdf: whoever starts it may run from anywhere. Messages are JSON with
their length in four bytes before it.
"""

import json
import logging
import os
import queue
import struct
import sys
import threading
import zlib
from typing import Any, BinaryIO

import pypdf
from pypdf.errors import DependencyError, DeprecationError, PyPdfError

MAX_CHARACTERS = 1 << 26
# What pypdf raises on files as they are found: its own tree, and what malformed objects provoke in plain code.
PDF_ERRORS = (
    PyPdfError,
    DependencyError,
    DeprecationError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)


def extract(path: str) -> dict[str, Any]:
    """Returns status, pages, text (pages parted by form feeds) and detail of one PDF."""
    try:
        reader = pypdf.PdfReader(path, strict=False)
        if reader.is_encrypted and not reader.decrypt(""):
            return _result("needs-password", detail="encrypted, and not with the empty password")
        num_pages = len(reader.pages)
    except PDF_ERRORS as error:
        return _result("broken", detail=_describe(error))
    texts: list[str] = []
    failures: list[str] = []
    characters = 0
    for number in range(num_pages):
        try:
            text = reader.pages[number].extract_text()
        except PDF_ERRORS as error:
            failures.append(f"page {number + 1}: {_describe(error)}")
            continue
        characters += len(text)
        if characters > MAX_CHARACTERS:
            return _result("too-large", detail=f"more than {MAX_CHARACTERS} characters of text")
        texts.append(text)
    return _judge(num_pages, texts, failures)


def _judge(num_pages: int, texts: list[str], failures: list[str]) -> dict[str, Any]:
    full = [text for text in texts if any(letter.isalnum() for letter in text)]
    lost = f"{len(failures)} of {num_pages} pages lost, first {failures[0]}" if failures else ""
    if full:
        return _result("partial" if failures else "ok", len(full), "\f".join(full), lost)
    if failures:
        return _result("broken", detail=lost)
    return _result("no-text", detail=f"{num_pages} pages without text: scanned?" if num_pages else "no pages")


def _result(status: str, pages: int = 0, text: str = "", detail: str = "") -> dict[str, Any]:
    return {"status": status, "pages": pages, "text": text, "detail": detail}


def _describe(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:160]}" if lines else type(error).__name__


def limit_memory(megabytes: int) -> None:
    """Allows the process `megabytes` more than it has now, where the system can do that."""
    try:
        import resource

        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123
            now = int(file.read().split()[0]) * resource.getpagesize()
        limit = now + (megabytes << 20)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    except (ImportError, OSError, ValueError):
        return


def send(stream: BinaryIO, message: dict[str, Any]) -> None:
    """Writes one message."""
    data = json.dumps(message).encode("ascii")
    stream.write(struct.pack(">I", len(data)) + data)
    stream.flush()


def _receive_all(stream: BinaryIO, requests: "queue.SimpleQueue[dict[str, Any]]") -> None:
    """Reads requests in a thread of its own, so that the parent's end stops even a page that never ends."""
    while True:
        head = stream.read(4)
        data = stream.read(struct.unpack(">I", head)[0]) if len(head) == 4 else b""
        if not data:
            os._exit(0)
        requests.put(json.loads(data))


def _watch_parent(parent: int) -> None:
    """A forked sibling may hold the pipe open after the parent's death: ask who the parent is as well."""
    pause = threading.Event()
    while not pause.wait(1.0):
        if os.getppid() != parent:
            os._exit(0)


def main() -> None:
    """Serves requests from standard input until it ends; nothing but replies reaches the real standard output."""
    parent = os.getppid()
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    logging.disable(logging.CRITICAL)
    requests: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_receive_all, args=(sys.stdin.buffer, requests), daemon=True).start()
    threading.Thread(target=_watch_parent, args=(parent,), daemon=True).start()
    limit_memory(int(sys.argv[1]))
    send(replies, {"status": "ready"})
    while True:
        request = requests.get()
        try:
            send(replies, extract(request["path"]))
        except MemoryError:
            send(replies, _result("too-large", detail=f"needs more than {sys.argv[1]} MB of memory"))


if __name__ == "__main__":
    main()
