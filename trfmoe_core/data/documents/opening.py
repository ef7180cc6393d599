"""Opens files, and tells whether one is still the file that was examined."""

import hashlib
import io
import os
from pathlib import Path
from typing import BinaryIO

from trfmoe_core.data.documents.records import SourceFile, Stamp

SMALL_BYTES = 1 << 23


def stamp_of(path: Path | int) -> Stamp:
    """Returns the stamp of a file, or of an open one by its descriptor."""
    status = os.stat(path)  # noqa: PTH116  A descriptor too.
    return Stamp(status.st_ino, status.st_size, status.st_mtime_ns)


class ChangedError(Exception):
    """A file is no longer the one that was examined."""


def open_examined(file: SourceFile) -> BinaryIO:
    """Opens a file for reading; a small one is read as a whole, so that it cannot change any more.

    Raises:
        ChangedError: it is another file than the one that was examined.
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
    """Opens a file for reading; one that became a pipe since it was looked at does not block."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    return os.fdopen(descriptor, "rb")
