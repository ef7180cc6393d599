"""The node's notes on the coordinator's journal: the hash of its last entry, which comes with every request.

If the coordinator rewrites its journal later, the new journal does not match these notes. `trfmoe verify RUN --heads
FILE` compares them.
"""

import json
import logging
import os
import time
from pathlib import Path

from strategies.exchange.messages import TrainRequest

HEADS_FILE = "heads.jsonl"

log = logging.getLogger("trfmoe.node")


def note_head(folder: Path, request: TrainRequest) -> None:
    """Appends a request's head to the node's notes. Notes that cannot be written are a warning in the node's log."""
    if request.journal_head is None:
        return
    note = {
        "time": round(time.time(), 3),
        "run_id": request.run_id,
        "round": request.round,
        "entries": request.journal_entries,
        "head": request.journal_head,
    }
    path = folder / HEADS_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        with os.fdopen(os.open(path, flags, 0o600), "ab+", buffering=0) as file:
            os.fchmod(file.fileno(), 0o600)
            size = os.fstat(file.fileno()).st_size
            torn = size and os.pread(file.fileno(), 1, size - 1) != b"\n"
            file.write((b"\n" if torn else b"") + json.dumps(note).encode() + b"\n")
    except OSError as error:
        log.warning("%s: the coordinator's journal head cannot be noted (%s)", path, error.strerror or error)
