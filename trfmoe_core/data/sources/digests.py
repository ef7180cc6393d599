"""SHA-256 digests and kinds of files, kept on disk and reused until the file system says that a file was changed."""

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from trfmoe_core.atomic import write_text
from trfmoe_core.data.documents.opening import open_plain
from trfmoe_core.data.documents.records import Stamp
from trfmoe_core.data.formats.base import FORMATS, RULES, Content, recognise

SETTLED_NS = 2_000_000_000
"""The digest of a file that was changed less than this before it was read is not kept.

A second change within the same tick of the file system's clock would go unnoticed.
"""
_BLOCK_BYTES = 1 << 20


class DigestCache:
    """Digests by path. A digest is reused while inode, size, mtime and ctime of its file are the same.

    A program can set the mtime of a file back, but not its ctime, so contents that were replaced under the old mtime
    are noticed too.
    """

    def __init__(self, file: Path | None = None, now_ns: Callable[[], int] = time.time_ns) -> None:
        """Loads the digests kept in `file`. With None nothing is kept. `now_ns` is the clock."""
        self._file = file
        self._now_ns = now_ns
        self._known: dict[str, list[object]] = {}
        self._used: dict[str, list[object]] = {}
        if file is not None:
            try:
                known = json.loads(file.read_text(encoding="utf-8"))
                self._known = known if isinstance(known, dict) else {}
            except (OSError, ValueError):
                self._known = {}

    @classmethod
    def of(cls, paths: Sequence[str], cache_dir: Path) -> "DigestCache":
        """Returns the cache for one list of files and folders."""
        # Other formats may recognise other contents.
        name = hashlib.sha256(json.dumps([RULES, FORMATS.names(), *paths]).encode()).hexdigest()[:32]
        return cls(cache_dir / "digests" / f"{name}.json")

    def digest(self, path: Path) -> tuple[str, Stamp, Content]:
        """Returns the SHA-256 of a file, its stamp and what its content is. It is opened only if it may have changed.

        Raises:
            OSError: it cannot be read.
        """
        key = json.dumps(os.fspath(path))
        version = _version(os.stat(path))  # noqa: PTH116
        known = self._known.get(key)
        if isinstance(known, list) and known[:4] == version and [type(value) for value in known[4:]] == [str] * 3:
            self._used[key] = known
            sha256, kind, compression = (str(value) for value in known[4:])
            return sha256, Stamp(version[0], version[1], version[2]), Content(kind, compression)
        started = self._now_ns()
        with open_plain(path) as file:
            version = _version(os.fstat(file.fileno()))
            block = file.read(_BLOCK_BYTES)
            content, state = recognise(block), hashlib.sha256(block)
            while block := file.read(_BLOCK_BYTES):
                state.update(block)
            after = _version(os.fstat(file.fileno()))
        if version == after and max(version[2:]) + SETTLED_NS < started:
            self._used[key] = [*version, state.hexdigest(), content.kind, content.compression]
        return state.hexdigest(), Stamp(version[0], version[1], version[2]), content

    def save(self) -> None:
        """Writes the digests that were used since the cache was loaded.

        Raises:
            OSError: it cannot be written.
        """
        if self._file is not None and self._used != self._known:
            write_text(self._file, json.dumps(self._used))


def _version(status: os.stat_result) -> list[int]:
    return [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
