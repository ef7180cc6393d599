"""Reads the heads of a coordinator's journal that a node noted, one JSON object a line."""

import json
from dataclasses import dataclass
from pathlib import Path

from trfmoe_core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class NotedHead:
    """A head as it came with a request: number of entries and hash of the last one. `source` is the notes' file."""

    source: str
    run_id: str
    round: int
    entries: int
    head: str


def read_noted_heads(path: Path) -> list[NotedHead]:
    """Returns the heads of a node's `heads.jsonl`; an unfinished last line is skipped.

    Raises:
        ConfigError: the file cannot be read, or holds no such note.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise ConfigError(f"--heads {path}: cannot be read ({error.strerror or error})") from error
    notes = [note for line in lines if (note := _note(line, str(path))) is not None]
    if not notes:
        raise ConfigError(f"--heads {path}: notes no head; give heads.jsonl of a node's state folder for this run")
    return notes


def _note(line: bytes, source: str) -> NotedHead | None:
    try:
        raw = json.loads(line)
        note = NotedHead(
            source=source, run_id=raw["run_id"], round=raw["round"], entries=raw["entries"], head=raw["head"]
        )
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    numbers = isinstance(note.round, int) and isinstance(note.entries, int)
    return note if numbers and isinstance(note.run_id, str) and isinstance(note.head, str) else None
