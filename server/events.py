"""The journal: one append-only JSONL file a run, from which every other output is made.

Each line carries the hash of the line before, so a change of the past shows. A line that a crash cut short is removed
when the journal is opened again.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from trfmoe_core.errors import RunFolderError

Event = dict[str, Any]
GENESIS = "0" * 64


class Journal:
    """Appends events to a file. One writer at a time: hold the run folder's lock.

    Raises:
        RunFolderError: when the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seq, self._prev = 0, GENESIS
        try:
            path.touch()
            with path.open("rb+") as file:
                whole = _cut_torn_line(file.read())
                file.truncate(len(whole))
        except OSError as error:
            raise RunFolderError(f"{path}: the journal cannot be opened ({error})") from error
        for line in whole.splitlines():
            self._seq += 1
            self._prev = hashlib.sha256(line).hexdigest()

    def append(self, kind: str, **fields: Any) -> Event:
        """Writes one event and returns it; on return it is on the disk.

        Raises:
            RunFolderError: when it cannot be written, for instance on a full disk.
        """
        event = {"seq": self._seq, "time": round(time.time(), 3), "event": kind, **fields, "prev": self._prev}
        line = json.dumps(event, separators=(",", ":"), default=str).encode()
        try:
            with self.path.open("ab") as file:
                file.write(line + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise RunFolderError(
                f"{self.path}: cannot write event {kind!r} ({error}); free space and resume"
            ) from error
        self._seq += 1
        self._prev = hashlib.sha256(line).hexdigest()
        return event


def read_events(path: Path) -> list[Event]:
    """Returns all whole events of a journal; an empty list when there is none yet."""
    if not path.exists():
        return []
    return [json.loads(line) for line in _cut_torn_line(path.read_bytes()).splitlines()]


def follow_events(path: Path, stop: Callable[[], bool], poll_s: float = 0.2) -> Iterator[Event]:
    """Yields events as they are written, from the first; ends when `stop()` is true and nothing is left."""
    position = 0
    while True:
        last_look = stop()
        if path.exists():
            with path.open("rb") as file:
                file.seek(position)
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    position += len(line)
                    yield json.loads(line)
        if last_look:
            return
        time.sleep(poll_s)


def _cut_torn_line(data: bytes) -> bytes:
    whole = data[: data.rfind(b"\n") + 1]
    lines = whole.splitlines(keepends=True)
    if lines:
        try:
            json.loads(lines[-1])
        except ValueError:
            return b"".join(lines[:-1])
    return whole
