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
from trfmoe_core.data.pdf.document_text import Options, as_result, read_pdf, result
from trfmoe_core.data.pdf.engines import EngineChoice, engines_of, file_errors


def extract(request: dict[str, Any]) -> dict[str, Any]:
    """Returns the fields of a `PdfText` for one PDF. Its text, if it has any, is in the file `request["out"]`."""
    with open(request["path"], "rb") as file:  # noqa: PTH123
        data = file.read()
    if hashlib.sha256(data).hexdigest() != request["sha256"]:
        return result("changed", detail="it changed since it was examined; start again")
    options = Options(
        cast(EngineChoice, request["engine"]), tuple(request["passwords"]), request["drop_headers"], request["retry_s"]
    )
    return as_result(read_pdf(data, options), request["out"])


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
    memory_mb, engine = int(sys.argv[1]), cast(EngineChoice, sys.argv[2])
    # The second engine is imported when it is needed.
    file_errors(engines_of(engine)[0])
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
            send(replies, result("too-large", detail=f"needs more than {memory_mb} MB of memory"))
        except OSError as error:
            send(replies, result("unreadable", detail=error.strerror or str(error)))
        except Exception as error:  # noqa: BLE001  As in `formats.boundary`: no file may end the others.
            send(replies, result("broken", detail=f"its reader failed: {described(error)}"))


if __name__ == "__main__":
    main()
