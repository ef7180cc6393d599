"""Opens files and notices when one was changed after it was examined."""

import hashlib
import io
import os
from pathlib import Path
from typing import BinaryIO

from trfmoe_core.data.documents.records import SourceFile, Stamp

SMALL_BYTES = 1 << 23
"""Files up to this size are read in one go and checked against their digest."""


class ChangedError(Exception):
    """A file is no longer the one that was examined."""


def stamp_of(path: Path | int) -> Stamp:
    """Returns the stamp of a file, given by its path or by the descriptor under which it is open."""
    status = os.stat(path)  # noqa: PTH116  Path.stat takes no descriptor.
    return Stamp(status.st_ino, status.st_size, status.st_mtime_ns)


def open_examined(file: SourceFile) -> BinaryIO:
    """Opens a file that was examined before. A small one is read into memory, so that it cannot change meanwhile.

    Raises:
        ChangedError: the file was changed since.
        OSError: it cannot be opened.
    """
    opened = open_plain(file.path)
    if stamp_of(opened.fileno()) != file.stamp:
        opened.close()
        raise ChangedError
    if file.stamp.size > SMALL_BYTES:
        return opened
    with opened:
        data = opened.read(SMALL_BYTES + 1)
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise ChangedError
    return io.BytesIO(data)


def open_plain(path: Path) -> BinaryIO:
    """Opens a file for reading without ever blocking, even if it was replaced by a pipe.

    Raises:
        OSError: it cannot be opened.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    return os.fdopen(descriptor, "rb")
