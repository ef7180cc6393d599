"""The child process that opens PDFs. It answers one request after another until its parent ends.

A message is JSON after its length in four bytes. Text goes into a file, not into the reply.
"""

import hashlib
import json
import logging
import os
import queue
import struct
import sys
import threading
from typing import Any, BinaryIO, cast

from trfmoe_core.data.formats.boundary import described
from trfmoe_core.data.pdf.engines import EngineName, LockedError, Pages, file_errors
from trfmoe_core.data.pdf.pages import join, tidy

MAX_CHARACTERS = 1 << 26
MAX_ERRORS = 20
# A document of many pages with fewer letters and digits per page than this is a scan with stamps on it.
SCAN_PAGES, SCAN_CHARACTERS = 10, 8


def extract(request: dict[str, Any]) -> dict[str, Any]:
    """Returns the fields of a `PdfText` for one PDF. Its text, if it has any, is in the file `request["out"]`."""
    name = cast(EngineName, request["engine"])
    errors = file_errors(name)
    with open(request["path"], "rb") as file:  # noqa: PTH123
        data = file.read()
    if hashlib.sha256(data).hexdigest() != request["sha256"]:
        return _result("changed", detail="it changed since it was examined; start again")
    try:
        pages = Pages(name, data, request["passwords"])
        num_pages = len(pages)
    except LockedError:
        count = len(request["passwords"])
        tried = f"none of {count} passwords opens it" if count else "no password is given"
        return _result("needs-password", detail=f"encrypted; {tried}")
    except errors as error:
        return _result("broken", detail=_describe(error))
    del data
    texts: list[str] = []
    failures: list[str] = []
    characters = 0
    for number in range(num_pages):
        try:
            text = pages.text(number)
        except errors as error:
            failures.append(f"page {number + 1}: {_describe(error)}")
            text = ""
        characters += len(text)
        if characters > MAX_CHARACTERS:
            return _result("too-large", num_pages, detail=f"more than {MAX_CHARACTERS} characters of text")
        texts.append(text)
    tidied, dropped = tidy(texts, drop_headers=request["drop_headers"])
    return _judge(num_pages, tidied, failures + dropped, request["out"])


def _judge(num_pages: int, texts: list[str], lost: list[str], out: str) -> dict[str, Any]:
    letters = sum(letter.isalnum() for text in texts for letter in text)
    what = f"{len(lost)} of {num_pages} pages lost, first {lost[0]}" if lost else ""
    if not letters and lost:
        return _result("broken", num_pages, detail=what, page_errors=lost)
    if not letters:
        return _result("no-text", num_pages, detail=f"{num_pages} pages without text: scanned?" * bool(num_pages))
    words = any(letter.isalpha() for text in texts for letter in text)
    if not words or (num_pages >= SCAN_PAGES and letters < SCAN_CHARACTERS * num_pages):
        return _result("no-text", num_pages, detail=f"{letters} letters and digits on {num_pages} pages: scanned?")
    text = join(texts)
    data = text.encode("utf-8", "replace")
    with open(out, "wb") as file:  # noqa: PTH123
        file.write(data)
    full = sum(bool(text.strip()) for text in texts)
    blank = num_pages - full - len(lost)
    notes = [what, f"{blank} of {num_pages} pages hold no text" if blank > 0 else ""]
    return _result(
        "partial" if lost else "ok",
        num_pages,
        pages=full,
        characters=len(text),
        size=len(data),
        text_sha256=hashlib.sha256(data).hexdigest(),
        detail="; ".join(filter(None, notes)),
        page_errors=lost,
    )


def _result(status: str, num_pages: int = 0, **more: Any) -> dict[str, Any]:
    blank = {"pages": 0, "characters": 0, "size": 0, "text_sha256": "", "detail": "", "page_errors": []}
    result = {"status": status, "num_pages": num_pages, **blank, **more}
    result["page_errors"] = result["page_errors"][:MAX_ERRORS]
    result["detail"] = result["detail"] or ("no pages" if status == "no-text" else "")
    return result


def _describe(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:160]}" if lines else type(error).__name__


def limit_memory(megabytes: int) -> None:
    """Limits the process to `megabytes` more memory than it has now, if the system can do that."""
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
    """Queues requests, and ends the process when the parent closes the pipe, even during a page that never ends."""
    while True:
        head = stream.read(4)
        data = stream.read(struct.unpack(">I", head)[0]) if len(head) == 4 else b""
        if not data:
            os._exit(0)
        requests.put(json.loads(data))


def _watch_parent(parent: int) -> None:
    """Ends the process when the parent dies: a forked sibling may hold the pipe open after that."""
    pause = threading.Event()
    while not pause.wait(1.0):
        if os.getppid() != parent:
            os._exit(0)


def main() -> None:
    """Answers requests from standard input until it ends. Only replies reach the real standard output."""
    parent = os.getppid()
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    logging.disable(logging.CRITICAL)
    memory_mb, engine = int(sys.argv[1]), cast(EngineName, sys.argv[2])
    file_errors(engine)
    requests: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_receive_all, args=(sys.stdin.buffer, requests), daemon=True).start()
    threading.Thread(target=_watch_parent, args=(parent,), daemon=True).start()
    limit_memory(memory_mb)
    send(replies, {"status": "ready"})
    while True:
        request = requests.get()
        try:
            send(replies, extract(request))
        except MemoryError:
            send(replies, _result("too-large", detail=f"needs more than {memory_mb} MB of memory"))
        except OSError as error:
            send(replies, _result("unreadable", detail=error.strerror or str(error)))
        except Exception as error:  # noqa: BLE001  As in `formats.boundary`: no file may end the others.
            send(replies, _result("broken", detail=f"its reader failed: {described(error)}"))


if __name__ == "__main__":
    main()
