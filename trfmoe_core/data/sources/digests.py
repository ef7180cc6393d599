"""SHA-256 digests of files, remembered for as long as the file system says that a file was not touched."""

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
"""A file that was touched so shortly before it was read may be touched again within the same tick of its clock."""
_BLOCK_BYTES = 1 << 20


class Digests:
    """Digests by path. What was read before is trusted while inode, size and both times of change are the same.

    The time of the last change of an inode (ctime) cannot be set back by a program, so contents that were replaced
    under the old time of modification are noticed too.
    """

    def __init__(self, file: Path | None = None, now_ns: Callable[[], int] = time.time_ns) -> None:
        """Opens the memory kept in `file`; None remembers nothing."""
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
    def of(cls, paths: Sequence[str], cache_dir: Path) -> "Digests":
        """Returns the memory of one list of files and folders."""
        name = hashlib.sha256(json.dumps(list(paths)).encode()).hexdigest()[:32]
        return cls(cache_dir / "digests" / f"{name}.json")

    def digest(self, path: Path) -> tuple[str, Stamp]:
        """Returns the SHA-256 of a file and its stamp, opening it only if it may have changed.

        Raises:
            OSError: it cannot be read.
        """
        key = json.dumps(os.fspath(path))
        seen = _seen(os.stat(path))  # noqa: PTH116
        known = self._known.get(key)
        if isinstance(known, list) and known[:-1] == seen and isinstance(known[-1], str):
            self._used[key] = known
            return known[-1], Stamp(seen[0], seen[1], seen[2])
        started = self._now_ns()
        with open_plain(path) as file:
            seen = _seen(os.fstat(file.fileno()))
            state = hashlib.sha256()
            while block := file.read(_BLOCK_BYTES):
                state.update(block)
            after = _seen(os.fstat(file.fileno()))
        if seen == after and max(seen[2:]) + SETTLED_NS < started:
            self._used[key] = [*seen, state.hexdigest()]
        return state.hexdigest(), Stamp(seen[0], seen[1], seen[2])

    def save(self) -> None:
        """Keeps what was used.

        Raises:
            OSError: it cannot be written.
        """
        if self._file is not None and self._used != self._known:
            write_text(self._file, json.dumps(self._used))


def _seen(status: os.stat_result) -> list[int]:
    return [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
