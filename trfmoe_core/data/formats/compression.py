"""Reads compressed files in steps, with a limit on how much they may inflate."""

import io
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from trfmoe_core.data.documents.opening import open_examined
from trfmoe_core.data.documents.records import SourceFile
from trfmoe_core.data.documents.reports import Status
from trfmoe_core.data.formats.base import COMPRESSED_SUFFIXES

MAX_RATIO = 50
"""Text compresses 3 to 20 times and logs up to 50 times. A file that inflates further is not text."""
FREE_BYTES = 1 << 26
"""Any file may inflate to this size, however small it is."""
_BLOCK_BYTES = 1 << 16


class Decompressed(io.RawIOBase):
    """The bytes of a file, inflated if its name ends in `.gz` or `.zst`.

    Reading ends where the file is broken or inflates too far; `problem` then holds the status and the reason.
    """

    def __init__(self, file: SourceFile) -> None:
        """Opens the file.

        Raises:
            ChangedError: it was changed since it was examined.
            OSError: it cannot be opened.
        """
        suffix = file.path.suffix.lower()
        self._file = open_examined(file)
        self._blocks = _DECOMPRESSORS.get(suffix, _plain)(self._file)
        self._size = file.stamp.size if file.stamp else 0
        self._left = b""
        self._given = 0
        self._compressed = suffix in _DECOMPRESSORS
        self.problem: tuple[Status, str] | None = None

    def readable(self) -> bool:
        """Returns True."""
        return True

    def readinto(self, buffer: "memoryview | bytearray") -> int:  # type: ignore[override]
        """Fills the front of `buffer` and returns the number of bytes, 0 at the end."""
        if not self._left and self.problem is None:
            self._left = self._next_block()
        part = self._left[: len(buffer)]
        buffer[: len(part)] = part
        self._left = self._left[len(part) :]
        return len(part)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
        super().close()

    def _next_block(self) -> bytes:
        try:
            block = next(self._blocks, b"")
        except (OSError, EOFError, zlib.error, ValueError) as error:
            if not self._compressed:
                raise
            self.problem = "broken", f"its compression is broken: {str(error).strip() or type(error).__name__}"
            return b""
        self._given += len(block)
        if self._compressed and self._given > max(FREE_BYTES, MAX_RATIO * self._size):
            self.problem = "too-large", f"it inflates to more than {MAX_RATIO} times its size; the rest is left out"
            return b""
        return block


def _plain(file: BinaryIO) -> Iterator[bytes]:
    while block := file.read(_BLOCK_BYTES):
        yield block


def _gzip(file: BinaryIO) -> Iterator[bytes]:
    """Yields the contents of all members of a gzip file; zero bytes after the last member are padding."""
    data = file.read(_BLOCK_BYTES)
    while data:
        member = zlib.decompressobj(wbits=31)
        while not member.eof:
            if not data:
                raise EOFError("it ends in the middle")
            if block := member.decompress(data, _BLOCK_BYTES):
                yield block
            data = member.unconsumed_tail or (b"" if member.eof else file.read(_BLOCK_BYTES))
        data = (member.unused_data or file.read(_BLOCK_BYTES)).lstrip(b"\0")
        while not data and (more := file.read(_BLOCK_BYTES)):
            data = more.lstrip(b"\0")


def _zstd(file: BinaryIO) -> Iterator[bytes]:
    import pyarrow as pa

    with pa.CompressedInputStream(pa.PythonFile(file, mode="r"), "zstd") as stream:
        while block := stream.read(_BLOCK_BYTES):
            yield block


_DECOMPRESSORS = dict(zip(COMPRESSED_SUFFIXES, (_gzip, _zstd), strict=True))
