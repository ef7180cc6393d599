"""Files of notes that a node keeps for its owner: one JSON object a line, added at the end."""

import json
import logging
import os
from pathlib import Path
from typing import Any

log = logging.getLogger("trfmoe.node")


def add_note(path: Path, note: dict[str, Any], what: str) -> None:
    """Appends a note to a file that only its owner may read. A note that cannot be written is a warning in the log.

    Args:
        path: The file.
        note: What is noted.
        what: What the note is about, for the warning.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        with os.fdopen(os.open(path, flags, 0o600), "ab+", buffering=0) as file:
            os.fchmod(file.fileno(), 0o600)
            size = os.fstat(file.fileno()).st_size
            torn = size and os.pread(file.fileno(), 1, size - 1) != b"\n"
            file.write((b"\n" if torn else b"") + json.dumps(note).encode() + b"\n")
    except OSError as error:
        log.warning("%s: %s cannot be noted (%s)", path, what, error.strerror or error)


def read_notes(path: Path) -> list[dict[str, Any]]:
    """Returns the notes of a file in their order; lines that were torn by a crash are left out.

    Raises:
        OSError: The file cannot be read.
    """
    found = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            note = json.loads(line)
        except ValueError:
            continue
        if isinstance(note, dict):
            found.append(note)
    return found
