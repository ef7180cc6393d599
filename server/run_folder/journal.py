"""The journal: one append-only JSONL file a run, from which every other output is made.

Each line carries the hash of the line before, so a changed line is detected. A reader accepts a line only with its line
end, and the writer adds the line end after the line is on disk. So a reader never sees a line whose append failed.
When the journal is opened again, an unfinished last line is completed or removed.
"""

import errno
import os
import stat
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from server.run_folder.journal_entries import (
    GENESIS,
    MAX_LINE,
    Event,
    check_link,
    decode_entry,
    encode_entry,
    line_hash,
)
from trfmoe_core.atomic import sync_folder
from trfmoe_core.errors import RunFolderError

__all__ = ["GENESIS", "Event", "Journal", "JournalReader", "follow_events", "read_events"]


@dataclass(frozen=True)
class Head:
    """The end of a journal: number of entries, hash of the last line, and length of the file up to there in bytes."""

    entries: int = 0
    hash: str = GENESIS
    length: int = 0

    def after(self, line: bytes) -> "Head":
        """Returns the head after one more line, given without its line end."""
        return Head(self.entries + 1, line_hash(line), self.length + len(line) + 1)


class JournalReader:
    """Reads a journal from its first entry on, and at later calls only the new entries.

    Args:
        path: The journal; it may not be there yet.
        chained: Whether numbers and hashes are checked too.
    """

    def __init__(self, path: Path, chained: bool = False) -> None:
        self.path = path
        self.head = Head()
        self._chained = chained
        self._seen = 0

    def read(self) -> Iterator[Event]:
        """Yields the complete entries that were added since the last call, without an unfinished last line.

        Raises:
            RunFolderError: the file cannot be read, an entry that is not the last is broken, or the file has become
                shorter.
        """
        try:
            descriptor = _open_file(self.path, os.O_RDONLY)
        except FileNotFoundError as error:
            if self.head.entries:
                raise RunFolderError(f"{self.path}: was removed while it was read") from error
            return
        except OSError as error:
            raise RunFolderError(f"{self.path}: the journal cannot be read ({_why(error)})") from error
        with os.fdopen(descriptor, "rb") as file:
            size = os.fstat(descriptor).st_size
            if size < self.head.length:
                raise RunFolderError(f"{self.path}: was cut behind entry {self.head.entries - 1} while it was read")
            if size == self._seen:
                return
            file.seek(self.head.length)
            while line := file.readline(MAX_LINE + 1):
                number = self.head.entries
                if len(line) > MAX_LINE:
                    raise RunFolderError(f"{self.path}: entry {number} is longer than {MAX_LINE} bytes")
                if not line.endswith(b"\n"):
                    break
                try:
                    event = decode_entry(line[:-1], number, self.path)
                except RunFolderError:
                    if not file.read(1):
                        break
                    raise
                if self._chained:
                    check_link(event, number, self.head.hash)
                self.head = self.head.after(line[:-1])
                yield event
            self._seen = size

    def follow(self, stop: Callable[[], bool], poll_s: float = 0.2) -> Iterator[Event]:
        """Yields entries as they are written; ends when `stop()` is true and nothing is left.

        Raises:
            RunFolderError: as `read`.
        """
        while True:
            last_look = stop()
            yield from self.read()
            if last_look:
                return
            time.sleep(poll_s)


class Journal:
    """Appends events to a file. One writer at a time: hold the run folder's lock.

    Args:
        path: The file; it is made.

    Raises:
        RunFolderError: when it cannot be opened, is no plain file, or an entry of it is broken.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fault = ""
        try:
            new = not path.exists()
            self._descriptor = _open_file(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
            self._close = weakref.finalize(self, os.close, self._descriptor)
            if new:
                sync_folder(path.parent)
            self._head = self._recover()
        except OSError as error:
            raise RunFolderError(f"{path}: the journal cannot be opened ({_why(error)})") from error

    @property
    def head(self) -> Head:
        """The end of the journal: what the next entry follows from."""
        return self._head

    def append(self, kind: str, **fields: Any) -> Event:
        """Writes one event to the disk and returns it. After an error the file does not contain it.

        Raises:
            RunFolderError: when it cannot be written, for instance on a full disk. If a partly
                written line cannot be removed either, nothing more is written until the journal is opened again.
        """
        if self._fault:
            raise RunFolderError(f"{self.path}: cannot write event {kind!r} ({self._fault}); resume the run")
        head = self._head
        event, line = encode_entry(head.entries, round(time.time(), 3), kind, fields, head.hash)
        try:
            self._check_unchanged()
            self._write(line)
            os.fsync(self._descriptor)
            self._write(b"\n")
            self._head = head.after(line)
        except BaseException as error:  # an interrupt must leave no half line either
            self._take_back()
            if isinstance(error, OSError):
                raise RunFolderError(
                    f"{self.path}: cannot write event {kind!r} ({_why(error)}); free space and resume"
                ) from error
            raise
        return event

    def close(self) -> None:
        """Closes the file."""
        self._fault = "the journal is closed"
        self._close()

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            count = os.write(self._descriptor, rest)
            if count <= 0:
                raise OSError(errno.EIO, "nothing was written")
            rest = rest[count:]

    def _check_unchanged(self) -> None:
        found = os.fstat(self._descriptor)
        if found.st_size != self._head.length or not found.st_nlink:
            what = "was removed" if not found.st_nlink else f"has {found.st_size} bytes, not {self._head.length}"
            self._fault = f"the file {what}: somebody else has changed it"
            raise OSError(errno.EBUSY, self._fault)

    def _take_back(self) -> None:
        if self._fault:
            return
        self._fault = "what was left of an entry could not be taken back"  # holds if this is interrupted, too
        try:
            os.ftruncate(self._descriptor, self._head.length)
            os.fsync(self._descriptor)
        except OSError as error:
            self._fault += f": {_why(error)}"
        else:
            self._fault = ""

    def _recover(self) -> Head:
        """Completes a last line that lacks only its line end, removes one that was cut short, and returns the head."""
        reader = JournalReader(self.path, chained=True)
        try:
            for _ in reader.read():
                pass
        except RunFolderError as error:
            text = str(error)
            raise RunFolderError(text if str(self.path) in text else f"{self.path}: {text}") from error
        head = reader.head
        size = os.fstat(self._descriptor).st_size
        rest = os.pread(self._descriptor, size - head.length, head.length)
        if rest and _is_entry(rest, head):
            os.fsync(self._descriptor)
            os.write(self._descriptor, b"\n")
            head = head.after(rest)
        elif rest:
            os.ftruncate(self._descriptor, head.length)
        os.fsync(self._descriptor)
        return head


def read_events(path: Path) -> list[Event]:
    """Returns all whole events of a journal; an empty list when there is none yet."""
    return list(JournalReader(path).read())


def follow_events(path: Path, stop: Callable[[], bool], poll_s: float = 0.2) -> Iterator[Event]:
    """Yields events as they are written, from the first; ends when `stop()` is true and nothing is left."""
    return JournalReader(path).follow(stop, poll_s)


def _is_entry(line: bytes, head: Head) -> bool:
    try:
        check_link(decode_entry(line, head.entries, ""), head.entries, head.hash)
    except RunFolderError:
        return False
    return True


def _open_file(path: Path, flags: int) -> int:
    """Opens a regular file. Links, pipes and devices are refused."""
    descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no plain file")
    return descriptor


def _why(error: OSError) -> str:
    return "it is a link; put the file itself there" if error.errno == errno.ELOOP else str(error.strerror or error)
