"""SHA-256 digests of files, kept on disk and reused until the file system says that a file was changed."""

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from trfmoe_core.atomic import write_text
from trfmoe_core.data.documents.opening import open_plain
from trfmoe_core.data.documents.records import Stamp

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
        name = hashlib.sha256(json.dumps(list(paths)).encode()).hexdigest()[:32]
        return cls(cache_dir / "digests" / f"{name}.json")

    def digest(self, path: Path) -> tuple[str, Stamp]:
        """Returns the SHA-256 of a file and its stamp. The file is opened only if it may have changed.

        Raises:
            OSError: it cannot be read.
        """
        key = json.dumps(os.fspath(path))
        version = _version(os.stat(path))  # noqa: PTH116
        known = self._known.get(key)
        if isinstance(known, list) and known[:-1] == version and isinstance(known[-1], str):
            self._used[key] = known
            return known[-1], Stamp(version[0], version[1], version[2])
        started = self._now_ns()
        with open_plain(path) as file:
            version = _version(os.fstat(file.fileno()))
            state = hashlib.sha256()
            while block := file.read(_BLOCK_BYTES):
                state.update(block)
            after = _version(os.fstat(file.fileno()))
        if version == after and max(version[2:]) + SETTLED_NS < started:
            self._used[key] = [*version, state.hexdigest()]
        return state.hexdigest(), Stamp(version[0], version[1], version[2])

    def save(self) -> None:
        """Writes the digests that were used since the cache was loaded.

        Raises:
            OSError: it cannot be written.
        """
        if self._file is not None and self._used != self._known:
            write_text(self._file, json.dumps(self._used))


def _version(status: os.stat_result) -> list[int]:
    return [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
